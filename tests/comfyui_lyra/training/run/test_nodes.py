"""Training on two nodes, as two process groups on this machine: one is lost, and the run goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.training.run.checkpoint import latest
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES

STEPS, LOST = 4, 2  # the second node is gone after so many
SLOW = (  # imported once for the seven that are forked: each would take eight seconds
    "accelerate", "diffusers.models.autoencoders.autoencoder_kl_cosmos", "lyra_pack.comfyui_lyra.training.train_recon",
)  # fmt: skip

PROGRAM = """
import sys
sys.path[:0] = [{here!r}, {tests!r}]
import conftest
from test_nodes import all_runs
all_runs(*sys.argv[1:])
"""


def train(out: str, sdg: str, tokenizer: str, batch: int, lost: bool, resume: bool) -> None:
    """A few steps of the splat decoder, on whichever node this is; a checkpoint after each."""
    from lyra_pack.comfyui_lyra.configs import ReconConfig
    from lyra_pack.comfyui_lyra.training.run import loop
    from lyra_pack.comfyui_lyra.training.run.optimizer import OptimConfig
    from lyra_pack.comfyui_lyra.training.train_recon import ReconTraining, train_recon

    loop.SAVE_SECONDS = 0.0
    config = ReconConfig(
        family="mini", trained_size=(32, 48), trained_frames=9, width=32, blocks=2, attention_every=2, heads=2,
        head_size=16, state=16, near=0.06, far=20.0, distance_shift=-3.0, bf16_plucker=False, bf16_rays=False,
    )  # fmt: skip
    stage = replace(
        MINI_STAGES["m4"], size=(32, 48), stop=STEPS, input_frames=9, target_frames=2, batch=batch, max_views=1
    )

    follow = loop.Run.follow

    def die(run: loop.Run) -> dict[str, float]:
        numbers = follow(run)
        if lost and run.step == LOST and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return numbers

    loop.Run.follow = die
    train_recon(
        out, tokenizer, roots=[sdg], stages=[stage], config=config, training=ReconTraining(validation=1),
        optim=OptimConfig(lr=4e-3, warmup=2), resume=resume,
    )  # fmt: skip


def launch(nodes: int, *arguments: object) -> list[int]:
    """Run ``train`` on some nodes; how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for node in range(nodes):
        if (child := os.fork()) == 0:
            group = {"RANK": node, "WORLD_SIZE": nodes, "GROUP_RANK": node, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
            os.environ.update({name: str(value) for name, value in group.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            code = 1
            try:
                train(*arguments)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def all_runs(folder: str, sdg: str, tokenizer: str) -> None:
    """One process alone with a double batch, two nodes, two of which one is lost, and these again."""
    torch.set_num_threads(1)
    for name in SLOW:
        import_module(name)

    def run(nodes: int, name: str, batch: int, lost: bool = False, resume: bool = False) -> list[int]:
        return launch(nodes, f"{folder}/{name}", sdg, tokenizer, batch, lost, resume)

    codes = {"alone": run(1, "alone", 2), "two": run(2, "two", 1), "lost": run(2, "lost", 1, lost=True)}
    kept = latest(f"{folder}/lost").step
    codes["resumed"] = run(2, "lost", 1, resume=True)
    Path(folder, "told.json").write_text(json.dumps(codes | {"kept": kept}))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks processes that open sockets: on Linux only")
def test_a_lost_node_costs_nothing_that_was_saved_and_two_nodes_learn_as_one_with_a_double_batch(
    tmp_path, nano_teacher, nano_tokenizer, nano_files
):
    pytest.importorskip("accelerate")
    from lyra_pack.comfyui_lyra.training.data.sdg_disk import write_sdg
    from lyra_pack.comfyui_lyra.training.data.sdg_memory import SDG_SETTINGS

    settings = replace(SDG_SETTINGS, steps=2)
    write_sdg(tmp_path / "sdg", nano_teacher, nano_tokenizer, range(10_000, 10_002), settings=settings)
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(here=str(here), tests=str(here.parents[2])), str(tmp_path),
         str(tmp_path / "sdg"), str(nano_files[0])],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["alone"] == [0] and told["two"] == told["resumed"] == [0, 0], done.stderr
    first, second = told["lost"]
    assert first > 0 and second == -signal.SIGKILL and LOST - 1 <= told["kept"] <= LOST
    alone, two, resumed = (latest(tmp_path / name) for name in ("alone", "two", "lost"))
    assert alone.step == two.step == resumed.step == STEPS
    for name, weight in two.weights.items():
        assert torch.equal(weight, resumed.weights[name]), name
    moved = max((two.weights[name] - alone.weights[name]).abs().max().item() for name in two.weights)
    assert moved < 4e-3, moved

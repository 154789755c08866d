import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.training.run.checkpoint import latest
from lyra_pack.comfyui_lyra.training.run.processes import Processes

PROGRAM = """
import sys, torch
sys.path[:0] = [{here!r}, {tests!r}]
import conftest
from test_processes import teach
teach({out!r}, int(sys.argv[1]))
"""


def teach(out: str, steps: int, resume: bool = False) -> None:
    """A line through points that each process draws by itself."""
    from lyra_pack.comfyui_lyra.training.run.loop import Run
    from lyra_pack.comfyui_lyra.training.run.optimizer import OptimConfig

    torch.manual_seed(0)
    optim = OptimConfig(lr=0.05, final_lr=0.001, steps=40, warmup=2)
    run = Run(
        torch.nn.Linear(3, 2), optim, out, stage="line", config={}, seed=0, device="cpu", steps=steps, resume=resume
    )
    seen = []

    def draw():
        seen.append(torch.randn(8, 3, generator=run.generator()))
        return seen[-1:]

    with run:
        run.train(lambda network, x: {"loss": (network(x) - x[:, :2]).square().mean()}, lambda network: ({}, []), draw)
        run.save()
        run.log.event(
            run.step, "done", weight=run.model.weight.double().sum().item(), first=seen[0].sum().item(),
            own=sum(run.processes.own(range(10))), joined=f"{run.processes.joined(run.processes.own(range(5)))}",
        )  # fmt: skip


def together(folder: Path, steps: int, count: int = 2) -> list[dict]:
    """What each of some processes says at the end of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).resolve().parent
    program = PROGRAM.format(here=str(here), tests=str(here.parents[2]), out=str(folder))
    told = {"WORLD_SIZE": f"{count}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, f"{steps}"],
            env=os.environ | told | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}, stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]  # fmt: skip
    for process in running:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors.decode()
    logs = [folder / "log.jsonl", *(folder / f"process-{rank}" / "log.jsonl" for rank in range(1, count))]
    return [json.loads(log.read_text().splitlines()[-1]) for log in logs]


def test_a_program_started_alone_is_the_only_process():
    alone = Processes("cpu")
    assert alone.is_first
    assert list(alone.own(range(3))) == [0, 1, 2]
    assert alone.of_first([1.0, 2.5]) == [1.0, 2.5]


@pytest.mark.slow
def test_two_processes_learn_one_network_from_data_of_their_own(tmp_path):
    pytest.importorskip("accelerate")
    first, second = together(tmp_path / "two", 12)
    assert first["weight"] == second["weight"]
    assert first["first"] != second["first"]
    assert (first["own"], second["own"]) == (0 + 2 + 4 + 6 + 8, 1 + 3 + 5 + 7 + 9)
    assert first["joined"] == second["joined"] == "[0, 1, 2, 3, 4]"
    assert latest(tmp_path / "two").step == 12
    assert not list((tmp_path / "two" / "process-1").glob("step-*"))
    teach(str(tmp_path / "alone"), 12)
    assert json.loads((tmp_path / "alone" / "log.jsonl").read_text().splitlines()[-1])["weight"] != first["weight"]

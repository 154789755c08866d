"""Jobs that are killed at random moments: ``python killed.py FOLDER SEED JOB=KILLS ...``; a line of figures each.

A job runs once without harm, and again and again in another folder, each time in a process of its own that gets no time
to say goodbye. After each kill, what has its final name must be whole; at the end the job runs to its end there and
must find what it needs, leave the same contents as without kills, and no temporary. Forks are safe: one thread only.
"""

import importlib.util
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("lyra_pack", ROOT / "__init__.py")
pack = sys.modules["lyra_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)

import diffusers.models.autoencoders.autoencoder_kl_cosmos  # noqa: E402, F401  once, for all that are forked
import torch  # noqa: E402
from lyra_pack.comfyui_lyra.bench.teacher import random_teacher  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig  # noqa: E402
from lyra_pack.comfyui_lyra.files.scenes.latents import load_latents  # noqa: E402
from lyra_pack.comfyui_lyra.files.scenes.scene import load_scene  # noqa: E402
from lyra_pack.comfyui_lyra.files.scenes.sdg_writer import PathStore  # noqa: E402
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply, save_ply  # noqa: E402
from lyra_pack.comfyui_lyra.files.splats.sequence import save_sequence  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings, generate  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.load import Teacher, save_teacher  # noqa: E402
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry  # noqa: E402
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene  # noqa: E402
from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence  # noqa: E402
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder, save_tokenizer  # noqa: E402
from lyra_pack.comfyui_lyra.training.run import loop  # noqa: E402
from lyra_pack.comfyui_lyra.training.run.checkpoint import latest, load_snapshot, steps  # noqa: E402
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES  # noqa: E402
from lyra_pack.comfyui_lyra.training.train_recon import ReconTraining, train_recon  # noqa: E402
from safetensors import safe_open  # noqa: E402

HEIGHT, WIDTH, FRAMES = 32, 48, 9


def small_teacher(family: str) -> Teacher:
    config = TeacherConfig(
        family=family, trained_size=(HEIGHT, WIDTH), trained_frames=FRAMES, heads=2, head_dim=16, blocks=2,
        adaln_rank=8, text_dim=12, text_rows=5, max_grid=(8, 16, 16), bf16_angles=False,
    )  # fmt: skip
    network = random_teacher(config, torch.device("cpu")).float()
    return Teacher(network=network, config=config, fingerprint="random", dtype=torch.float32)


def small_tokenizer(family: str) -> CosmosTokenizer:
    config = TokenizerConfig(family=family, channels=8, multipliers=(1, 1, 1), layers=1)
    torch.manual_seed(0)
    return CosmosTokenizer(config, build_autoencoder(config), torch.zeros(16, 2), torch.full((16, 2), 0.5))


def six_paths(folder: Path) -> None:
    """Latents, cameras and videos along the six paths; a later start takes what is finished."""
    depth = torch.full((1, HEIGHT, WIDTH), 2.0)
    frames = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(3))
    geometry = Geometry(frames=frames, depth=depth, valid=depth > 0, cameras=pinhole_camera(WIDTH, HEIGHT, 50), scale=1)
    paths = camera_paths(geometry.cameras, PathSettings("six_paths", FRAMES))
    torch.manual_seed(0)
    teacher = small_teacher("toy")
    store = PathStore(folder / "scene", "room", reference_format=True)
    settings = GenerateSettings(steps=2, guidance=0)
    generate(teacher, small_tokenizer("toy"), geometry, paths, settings=settings, store=store)


def whole_paths(folder: Path) -> None:
    for file in folder.glob("scene/*/latent/*.safetensors"):
        load_latents(file)
    if len(list(folder.glob("scene/*/latent/*.safetensors"))) == 6:
        load_scene(folder / "scene")


def training(folder: Path) -> None:
    """A splat decoder in one stage, a checkpoint after every step; a later start goes on from the newest."""
    loop.SAVE_SECONDS = 0.0
    frames = {"input_frames": 9, "target_frames": 2, "batch": 1, "max_views": 2, "target_views": 3}
    stages = [loop_stage(frames)]
    config = ReconConfig(
        family="mini", trained_size=(HEIGHT, WIDTH), trained_frames=FRAMES, width=32, blocks=2, attention_every=2,
        heads=2, head_size=16, state=16, near=0.06, far=20.0, distance_shift=-3.0, bf16_plucker=False, bf16_rays=False,
    )  # fmt: skip
    models = [folder.with_name(f"{name}.safetensors") for name in ("tokenizer", "teacher")]
    if not models[1].is_file():
        save_tokenizer(small_tokenizer("mini"), models[0])
        save_teacher(small_teacher("mini"), models[1])
    train_recon(
        folder / "run", *models, stages=stages, config=config, resume=bool(steps(folder / "run")),
        training=ReconTraining(scenes=1, moving_scenes=1, validation=1),
        settings=GenerateSettings(steps=2, solver="dpmpp_2m", guidance=0),
    )  # fmt: skip


def loop_stage(frames: dict):
    return replace(MINI_STAGES["m1"], size=(16, 32), stop=8, **frames)


def whole_checkpoints(folder: Path) -> None:
    for step in steps(folder / "run"):
        load_snapshot(folder / "run" / f"step-{step:08}.json")


SPLATS = demo_scene()


def many(count: int, seed: int):
    """Splats enough that their file takes a moment to write."""
    index = torch.randint(len(SPLATS), (count,), generator=torch.Generator().manual_seed(seed))
    return SPLATS[index]


def ply(folder: Path) -> None:
    """One file written over and over; each version has a length of its own."""
    for version in range(1, 7):
        save_ply(folder / "a.ply", many(20_000 * version, version))


def whole_ply(folder: Path) -> None:
    if (folder / "a.ply").exists():
        assert len(load_ply(folder / "a.ply")) % 20_000 == 0


def sequence(folder: Path) -> None:
    """Folders of splats; a later start makes those that are not there."""
    for number in range(3):
        if not (folder / f"run_{number}").exists():
            frames = tuple(many(30_000, number + time) for time in range(4))
            save_sequence(folder / f"run_{number}", GaussianSequence(frames=frames, times=(0, 1, 2, 3)))


def whole_sequences(folder: Path) -> None:
    for run in folder.glob("run_*"):
        assert len(list(run.iterdir())) == 5
        assert all(len(load_ply(file)) == 30_000 for file in run.glob("*.ply"))


def files(folder: Path) -> dict[str, object]:
    """What a folder holds that must be equal; safetensors writes its metadata in any order."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                held = {name: file.get_tensor(name).numpy().tobytes() for name in sorted(file.keys())}
                found[path.relative_to(folder).as_posix()] = (held, file.metadata())
        elif path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def tensors(folder: Path) -> dict[str, object]:
    """The weights and the optimiser's memory at the end of a run, whose checkpoints need not have been the same."""
    newest = latest(folder / "run")
    found = {**newest.weights, **newest.ema, **newest.optimizer}
    return {"step": newest.step, **{name: tensor.numpy().tobytes() for name, tensor in found.items()}}


@dataclass(frozen=True)
class Job:
    """What runs, what must be whole after a kill, and what must be equal in the end."""

    run: Callable[[Path], None]
    check: Callable[[Path], None]
    contents: Callable[[Path], dict]


JOBS = {
    "six_paths": Job(six_paths, whole_paths, files),
    "training": Job(training, whole_checkpoints, tensors),
    "ply": Job(ply, whole_ply, files),
    "sequence": Job(sequence, whole_sequences, files),
}


def start(job: Job, folder: Path, seconds: float | None = None) -> tuple[bool, float]:
    """Run a job in a process of its own, killed after so long; whether it was, and how long it took."""
    begun = time.monotonic()
    if not (child := os.fork()):
        code = 1
        try:
            job.run(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    if ended not in (0, -signal.SIGKILL):
        raise SystemExit(f"ended with {ended}")
    return ended != 0, time.monotonic() - begun


def temporaries(folder: Path) -> list[str]:
    """What unfinished saves have left."""
    return sorted(path.name for path in folder.rglob("*") if path.name.endswith((".tmp", ".unfinished", ".corrupt")))


def compare(job: Job, whole: Path, killed: Path) -> None:
    """Check that a folder of killed runs has become what one without kills is."""
    job.check(killed)
    expected, found = job.contents(whole), job.contents(killed)
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
    assert found == expected, [name for name in expected if found[name] != expected[name]]
    assert not temporaries(killed), temporaries(killed)


def main(name: str, place: Path, seed: int, kills: int) -> None:
    """Run, kill, and compare."""
    job, rng, whole, killed = JOBS[name], random.Random(seed), place / "whole", place / "killed"
    whole.mkdir(parents=True)
    killed.mkdir()
    _, taken = start(job, whole)
    done, left, completed = 0, 0, 0
    while done < kills:
        if not start(job, killed, rng.uniform(0, 0.8 * taken))[0]:  # it had time for all that was left: begin anew
            compare(job, whole, killed)
            shutil.rmtree(killed)
            killed.mkdir()
            completed += 1
            continue
        done, left = done + 1, max(left, len(temporaries(killed)))
        job.check(killed)
    start(job, killed)
    compare(job, whole, killed)
    told = f"{done} kills within {taken:.2f} s each, {completed + 1} completed with equal contents, "
    told += f"at most {left} temporaries between and none at the end"
    sys.stdout.write(f"{name}: seed {seed}, {told}\n")
    sys.stdout.flush()  # before the next fork


if __name__ == "__main__":
    torch.set_num_threads(1)
    failed = []
    for words in sys.argv[3:]:
        name, kills = words.split("=")
        try:
            main(name, Path(sys.argv[1], name), int(sys.argv[2]), int(kills))
        except (Exception, SystemExit):
            sys.stderr.write(f"{name}: {traceback.format_exc()}\n")
            failed.append(name)
    sys.exit(f"failed: {failed}" if failed else 0)

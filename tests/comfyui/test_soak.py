"""Many small prompts in one ComfyUI, cancelled ones and bad inputs among them: nothing stays behind.

24 prompts, or 200 with ``--long``. ``--figures FILE`` writes what was measured as Markdown; the last figures are kept
in dev/soak.md.
"""

import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.bench.teacher import random_teacher
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.files.media.images import save_image
from lyra_pack.comfyui_lyra.files.scenes.scene import save_scene
from lyra_pack.comfyui_lyra.files.splats.ply import save_ply
from lyra_pack.comfyui_lyra.gen3c.load import Teacher, save_teacher
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.recon.load import save_recon
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder, save_tokenizer

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

HEIGHT, WIDTH, FRAMES = 32, 48, 9
WARM = 0.3  # share of the prompts after which memory must not grow
GROWTH = 64.0  # MB that the median of the last third may lie above that of the first third after warming up
CORE = ("LoadImage", "PreviewImage", "PreviewAny")  # ComfyUI's own nodes
PROC = Path("/proc")


def node(kind: str, **inputs) -> dict:
    return {
        "class_type": kind if kind in ("LoadImage", "PreviewImage", "PreviewAny") else f"Lyra{kind}",
        "inputs": inputs,
    }


@pytest.fixture(scope="module")
def toys(comfyui) -> None:
    """A family of toy models, and files good and damaged, where ComfyUI finds them."""
    base = comfyui.base
    config = TeacherConfig(
        family="soak", trained_size=(HEIGHT, WIDTH), trained_frames=FRAMES, heads=2, head_dim=16, blocks=2,
        adaln_rank=8, text_dim=12, text_rows=5, max_grid=(8, 16, 16), bf16_angles=False,
    )  # fmt: skip
    network = random_teacher(config, torch.device("cpu"))
    teacher = Teacher(network=network, config=config, fingerprint="random", dtype=torch.bfloat16)
    save_teacher(teacher, base / "models" / "diffusion_models" / "soak.safetensors")
    config = TokenizerConfig(family="soak", channels=8, multipliers=(1, 1, 1), layers=1)
    tokenizer = CosmosTokenizer(config, build_autoencoder(config), torch.zeros(16, 2), torch.ones(16, 2))
    save_tokenizer(tokenizer, base / "models" / "vae" / "soak.safetensors")
    config = ReconConfig(
        family="soak", trained_size=(HEIGHT, WIDTH), trained_frames=FRAMES, width=32, blocks=2, attention_every=2,
        heads=2, head_size=16, state=8, far=20.0,
    )  # fmt: skip
    save_recon(Recon(config), base / "models" / "lyra" / "soak.safetensors")
    paths = camera_paths(pinhole_camera(WIDTH, HEIGHT, 50), PathSettings("six_paths", FRAMES))
    latents = VideoLatents(values=torch.randn(6, 16, 2, HEIGHT // 8, WIDTH // 8))
    save_scene(
        base / "input" / "soak", "a", MultiViewLatents(latents=latents, cameras=paths, family="soak", dynamic=False)
    )
    save_image(base / "input" / "soak.png", torch.rand(60, 80, 3))
    save_image(base / "input" / "soak_depth.png", torch.linspace(0.2, 0.9, 60)[:, None, None].repeat(1, 80, 3))
    (base / "input" / "3d").mkdir(exist_ok=True)
    save_ply(base / "input" / "3d" / "soak.ply", demo_scene()[::10])
    damaged = (base / "input" / "3d" / "soak.ply").read_bytes()[:9000]
    (base / "input" / "3d" / "damaged.ply").write_bytes(damaged)
    (base / "input" / "damaged.json").write_text('{"frames": [')
    (base / "input" / "damaged.safetensors").write_bytes(b"\0" * 300)


def paths(seed: int, frames: int = 3, **widgets) -> dict:
    inputs = {"preset": "left", "movement": 1, "rotation": "no_rotation", "seed": seed, "frames": frames, "fps": 8}
    inputs |= {"width": 64, "height": 48, "fov": 50, "center_depth": 1, "draw": "seeded"}
    return node("CameraPaths", **inputs | widgets)


def drawn(splat: list, cameras: list) -> dict:
    return node(
        "RenderSplats", splat=splat, cameras=cameras, width=0, height=0, every=1, background="#ffffff", backend="auto",
        mode="ut_eval3d",
    )  # fmt: skip


def look(*link) -> dict:
    return node("PreviewImage", images=list(link))


def see(*link) -> dict:
    return node("PreviewAny", source=list(link))


def scene() -> dict:
    return node("LoadSplats", file="demo scene")


def cameras_drawn(i: int) -> dict:
    return {"1": paths(i), "2": node("PreviewCameras", cameras=["1", 0], width=512, height=256)}


def splats_drawn(i: int, frames: int = 2) -> dict:
    return {"1": scene(), "2": paths(i, frames), "3": drawn(["1", 0], ["2", 0]), "4": look("3", 0)}


def splats_saved(i: int) -> dict:
    load = node("LoadSplats", file="3d/soak.ply")
    return {"1": load, "2": node("SaveSplats", splat=["1", 0], filename_prefix="3d/soak", scale=1.0 + i / 1000)}


def cameras_saved(i: int) -> dict:
    return {
        "1": paths(i, 9),
        "2": node("SaveCameraPaths", cameras=["1", 0], filename_prefix="soak/path", format="json", scale=1.0),
    }  # fmt: skip


def geometry(i: int) -> dict:
    return {
        "picture": node("LoadImage", image="soak.png"),
        "depth": node("LoadImage", image="soak_depth.png"),
        "geometry": node(
            "GeometryFromDepth", image=["picture", 0], depth=["depth", 0], width=WIDTH, height=HEIGHT, fit="crop",
            scale="auto", meaning="near-far", near=1.0, far=8.0 + i / 100, fov=60.0,
        ),
    }  # fmt: skip


def generated(i: int, steps: int = 2, preset: str = "left") -> dict:
    return geometry(i) | {
        "paths": paths(i, FRAMES, geometry=["geometry", 0], preset=preset),
        "teacher": node("LoadTeacher", file="soak.safetensors", precision="float32", attention="auto", memory="auto"),
        "tokenizer": node("LoadTokenizer", file="soak.safetensors", precision="float32"),
        "latents": node(
            "GenerateLatents", teacher=["teacher", 0], tokenizer=["tokenizer", 0], geometry=["geometry", 0],
            cameras=["paths", 0], seed=i, steps=steps, guidance=1.0, solver="euler", speed=0.0, resume=True,
            save_video=True, foreground_masking=True, name=f"soak{i}",
        ),
        "decode": node("DecodeLatents", latents=["latents", 0], tokenizer=["tokenizer", 0], view=0),
        "video": look("decode", 0),
    }  # fmt: skip


def reconstructed(i: int) -> dict:
    return {
        "latents": node("LoadLatents", path="soak", clip="", dynamic=False),
        "tokenizer": node("LoadTokenizer", file="soak.safetensors", precision="auto"),
        "recon": node("LoadRecon", file="soak.safetensors", precision="auto"),
        "splats": node(
            "Reconstruct", recon=["recon", 0], tokenizer=["tokenizer", 0], latents=["latents", 0], times="0",
            keep=0.05 + i / 10_000, chunk=0,
        ),
        "save": node(
            "SaveSplatSequence", splat=["splats", 0], times=["splats", 2], filename_prefix="3d/run", scale=1.0,
            cameras=["splats", 1],
        ),
    }  # fmt: skip


def cameras_of(path: str) -> Callable[[int], dict]:
    def make(i: int) -> dict:
        load = node("LoadCameraPaths", path=path, width=i, height=i, clip="")
        return {"1": load, "2": node("PreviewCameras", cameras=["1", 0], width=512, height=256)}

    return make


def damaged_splats(i: int) -> dict:
    return {
        "1": node("LoadSplats", file="3d/damaged.ply"),
        "2": paths(i),
        "3": drawn(["1", 0], ["2", 0]),
        "4": look("3", 0),
    }


def damaged_latents(i: int) -> dict:
    return {"1": node("LoadLatents", path="damaged.safetensors", clip="", dynamic=bool(i % 2)), "2": see("1", 0)}


def no_such_path(i: int) -> dict:
    return {"1": paths(i), "2": node("CameraToCore", cameras=["1", 0], path=5, frame=0), "3": see("2", 0)}


GOOD = (cameras_drawn, splats_drawn, splats_saved, cameras_saved, generated, reconstructed)
BAD = {
    damaged_splats: "damaged.ply", damaged_latents: "damaged.safetensors", no_such_path: "path 5",
    cameras_of("damaged.json"): "damaged.json", cameras_of("gone.json"): "gone.json",
}  # fmt: skip
LONG = (lambda i: splats_drawn(i, 2001), lambda i: generated(i, 200, "six_paths"))


@dataclass(frozen=True)
class State:
    """What the server holds."""

    memory: float  # MB
    threads: int
    files: int  # open ones


def state(process: int) -> State:
    folder = PROC / str(process)
    status = (folder / "status").read_text()
    memory, threads = (int(re.search(rf"{key}:\s+(\d+)", status)[1]) for key in ("VmRSS", "Threads"))
    return State(memory=memory / 1024, threads=threads, files=len(list((folder / "fd").iterdir())))


def temporaries(base: Path) -> list[Path]:
    return [path for path in base.rglob("*") if path.name.endswith((".tmp", ".unfinished"))]


def every_kind(rng: random.Random) -> Iterator[Callable]:
    """Each kind of prompt once, and then by chance, six of ten of them good ones."""
    yield from (*GOOD, *BAD, *LONG)
    while True:
        yield rng.choice(rng.choices((GOOD, tuple(BAD), LONG), (6, 2, 2))[0])


def one(comfyui, make: Callable[[int], dict], i: int, rng: random.Random) -> str:
    """Run a prompt, check how it ends, and return which kind of end that is."""
    if make in GOOD:
        comfyui.run(make(i))
        return "good"
    if make in BAD:
        with pytest.raises(comfyui.Refused, match=re.escape(BAD[make])) as refused:
            comfyui.run(make(i))
        assert "Traceback" not in str(refused.value)
        return "bad"
    prompt = comfyui.submit(make(i))
    while not comfyui.get("/queue")["queue_running"]:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 1.5))
    comfyui.get("/interrupt", {})
    with pytest.raises(comfyui.Refused, match="execution_interrupted"):
        comfyui.finish(prompt, seconds=60)
    return "cancelled"


def report(states: list[State], kinds: list[str], times: list[float], seed: int, left: int) -> str:
    """The figures as Markdown."""
    memory = [s.memory for s in states]
    first, last = thirds(memory)
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("good", "bad", "cancelled"))
    at = [0, len(states) // 4, len(states) // 2, 3 * len(states) // 4, len(states) - 1]
    rows = [f"| {i + 1} | {memory[i]:.0f} | {states[i].threads} | {states[i].files} |" for i in at]
    return "\n".join((
        "# Soak: the last figures", "",
        f"{date.today()}, {platform.machine()}, {platform.system()} with Python {platform.python_version()}, CPU only; "
        f"seed {seed}. {len(kinds)} prompts in one ComfyUI ({counts}), {statistics.median(times):.1f} s each in the "
        f"median and {max(times):.1f} s at most. Resident memory in the median: {first:.0f} MB in the first third "
        f"after warming up, {last:.0f} MB in the last; temporaries left: {left}.", "",
        "| prompt | memory, MB | threads | open files |", "|---|---|---|---|", *rows, "",
    ))  # fmt: skip


def thirds(values: list[float]) -> tuple[float, float]:
    """Medians of the first and the last third of what comes after warming up."""
    warm = values[int(WARM * len(values)) :]
    third = max(1, len(warm) // 3)
    return statistics.median(warm[:third]), statistics.median(warm[-third:])


@pytest.mark.skipif(not PROC.is_dir(), reason="reads memory and threads from /proc")
def test_many_prompts_leave_nothing_behind(comfyui, toys, long, pytestconfig):
    seed, count = random.SystemRandom().randrange(1 << 16), 200 if long else 24
    rng, states, kinds, times = random.Random(seed), [], [], []
    for i, make in zip(range(count), every_kind(rng), strict=False):
        begun = time.monotonic()
        kinds.append(one(comfyui, make, i, rng))
        times.append(time.monotonic() - begun)
        states.append(state(comfyui.process.pid))
    left = temporaries(comfyui.base)
    figures = report(states, kinds, times, seed, len(left))
    if keep := pytestconfig.getoption("--figures"):
        Path(keep).write_text(figures, encoding="utf-8")
    assert not left, figures
    warm, end = states[int(WARM * count)], states[-1]
    assert end.threads <= warm.threads + 4 and end.files <= warm.files + 8, figures
    if long:
        first, last = thirds([s.memory for s in states])
        assert last < first + GROWTH, figures

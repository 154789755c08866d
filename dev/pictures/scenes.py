"""The shipped picture and clip as scenes, made once by the mini models."""

import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from lyra_pack.comfyui_lyra import demo
from lyra_pack.comfyui_lyra.callbacks import no_progress
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory
from lyra_pack.comfyui_lyra.files.scenes.sample import shipped_sample
from lyra_pack.comfyui_lyra.files.scenes.scene import load_scene
from lyra_pack.comfyui_lyra.files.scenes.sdg_writer import PathStore
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply, save_ply
from lyra_pack.comfyui_lyra.pipeline import Scene, build_scene
from lyra_pack.comfyui_lyra.recon.reconstruct import reconstruct
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians
from lyra_pack.comfyui_lyra.splats.render import render
from lyra_pack.comfyui_lyra.tokenizer.clips import decode
from lyra_pack.comfyui_lyra.training.data.sdg_memory import SDG_SETTINGS
from lyra_pack.comfyui_lyra.weights.shipped import MINI
from torch import Tensor

MOMENTS = (0, 8, 16)  # bullet times of the clip
WORK = Path(tempfile.gettempdir(), "lyra-pictures")  # latents and splats, for the parts of the script
refining = {"seconds": 40.0}  # of each scene, as the demo does on a CPU


@cache
def models() -> demo.Models:
    """The mini models, on a GPU if there is one."""
    return demo.Models.load(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@cache
def decoded(kind: str) -> Scene:
    """The shipped picture or clip as a scene, as the splat decoder makes it; the picture's latents are shipped."""
    found, sample = models(), shipped_sample(kind)
    if kind == "clip":
        return build_scene(
            found.teacher, found.tokenizer, found.dynamic, sample, settings=SDG_SETTINGS, times=MOMENTS,
            store=PathStore(WORK, kind, rgb=False),
        )  # fmt: skip
    latents = load_scene(MINI / "latents", None, dynamic=False)
    splats, cameras = reconstruct(found.static, found.tokenizer, latents)
    return Scene(geometry=sample, latents=latents, splats=splats, cameras=cameras)


@cache
def scene(kind: str) -> Scene:
    """The same refined, as the demo does; kept for the next call."""
    made = decoded(kind)
    files = [WORK / f"{kind}_{time}_{refining['seconds']:g}s.ply" for time in made.splats.times]
    if not all(file.is_file() for file in files):
        refined = demo.refined(models(), made, refining["seconds"], lambda label: no_progress, say)
        for file, splats in zip(files, refined.splats.frames, strict=True):
            save_ply(file, splats.to("cpu"))
    splats = tuple(load_ply(file).to(models().teacher.device) for file in files)
    return replace(made, splats=replace(made.splats, frames=splats))


def say(line: str) -> None:
    """Tell how it went."""
    sys.stdout.write(f"{line}\n")


@cache
def teacher_frames(kind: str, view: int) -> Tensor:
    """What the teacher made along a path, [F, H, W, 3] in [0, 1]."""
    made = decoded(kind)
    return decode(models().tokenizer, made.latents.to(models().teacher.device), view).cpu()


def drawn(splats: Gaussians, path: CameraTrajectory, times: int = 2) -> Tensor:
    """Splats along a path, so many times as large as it says, [F, H, W, 3]."""
    larger = path.resized(times * path.height, times * path.width).to(splats.means.device)
    return render(splats, larger, store="cpu").rgb


def depth_picture(near: float, far: float) -> Tensor:
    """The shipped picture's depth as a grey picture, near is bright, [1, H, W]; its nearest thing is 1 away."""
    depth = shipped_sample("picture").depth
    depth = depth / depth[depth > 0].min()
    return ((1 / depth - 1 / far) / (1 / near - 1 / far)).clamp(0, 1)


def ends(kind: str) -> list[tuple[str, int, int]]:
    """Label, path and frame of the places that are shown: the ends of five paths, half way of the first circle."""
    names = [path.name for path in decoded(kind).cameras]
    return [(f"{n}, last frame", i, 16) for i, n in enumerate(names[:5])] + [(f"{names[5]}, frame 4", 5, 4)]

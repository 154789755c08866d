"""What ``python run.py demo`` shows: a scene of Gaussians, six camera paths around it, and their pictures."""

from collections.abc import Callable
from pathlib import Path

import torch

from .cameras import pinhole_camera
from .contact_sheet import contact_sheet
from .demo_scene import demo_scene
from .files.images import save_image
from .files.ply import save_ply
from .files.video import save_video
from .path_picture import draw_paths
from .progress import OnStep
from .render import render
from .trajectories import camera_paths

FRAMES, WIDTH, HEIGHT, FOV = 25, 320, 176, 50.0  # of each path; pixels; degrees


def run(out: Path, progress: Callable[[str], OnStep]) -> list[Path]:
    """Write scene.ply, orbit.mp4, contact_sheet.png and camera_paths.png into a folder; return where they are."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scene = demo_scene()
    paths = camera_paths(pinhole_camera(WIDTH, HEIGHT, FOV), "six_paths", FRAMES, movement=1.5)
    files = [out / name for name in ("scene.ply", "orbit.mp4", "contact_sheet.png", "camera_paths.png")]
    save_ply(files[0], scene)
    clips = {p.name: render(scene.to(device), p.to(device), store="cpu", on_step=progress(p.name)).rgb for p in paths}
    save_video(files[1], clips["clockwise"], fps=12)
    save_image(files[2], contact_sheet([*clips.items()]))
    save_image(files[3], draw_paths(paths, scene.means, scene.colors))
    return files

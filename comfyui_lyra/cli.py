"""The ``lyra`` shell command: the nodes' work without ComfyUI. ``lyra VERB --help`` tells each verb's options."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from ..kernels_glue import OPS
from ..kernels_glue.registry import KernelUnavailable
from . import bench, demo
from .cameras import CameraTrajectory, pinhole_camera
from .files.cameras import load_cameras, save_cameras
from .files.images import save_image
from .files.ply import load_ply, save_ply
from .files.video import save_video
from .path_picture import draw_paths
from .progress import OnStep
from .render import RenderSettings, render_each
from .trajectories import PRESETS, ROTATIONS, camera_paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 when done, 1 with one sentence on standard error when the input cannot be used."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options.run(options)
    except (ValueError, OSError, KernelUnavailable) as error:
        print(f"lyra {options.verb}: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    top = argparse.ArgumentParser(prog="lyra", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("path", help="make camera paths and a picture of them")
    add_path_options(verb)
    verb.add_argument("out", type=Path, help="cameras to write: a .json file, or a folder for COLMAP text and npz")
    verb.add_argument("--picture", type=Path, help="also draw the paths from above and from the side")
    verb.set_defaults(run=run_path)

    verb = verbs.add_parser("render", help="draw splats along camera paths, one mp4 a path")
    verb.add_argument("splats", type=Path, help="a PLY file of Gaussian splats")
    verb.add_argument("out", type=Path, help="folder for <path>.mp4")
    verb.add_argument("--cameras", type=Path, help="a camera file; without it the path options below make the cameras")
    add_path_options(verb)
    verb.add_argument("--every", type=int, default=1, metavar="N", help="draw every Nth camera")
    verb.add_argument("--mode", choices=["ut_eval3d", "ewa"], default="ut_eval3d", help="3DGUT as Lyra, or classic")
    verb.add_argument("--backend", default="auto", help="auto, torch or gsplat")
    verb.add_argument("--device", default=default_device())
    verb.set_defaults(run=run_render)

    verb = verbs.add_parser("convert", help="rewrite splats as 3DGS PLY, or cameras in another format")
    verb.add_argument("source", type=Path, help="any PLY of splats, or any camera file or folder")
    verb.add_argument("out", type=Path, help=".ply for splats; .json or a folder for cameras")
    verb.add_argument("--scale", type=float, default=1.0, help="splats: multiply the world by this")
    verb.add_argument("--min-opacity", type=float, default=0.0, help="splats: drop what is more transparent")
    verb.set_defaults(run=run_convert)

    verb = verbs.add_parser("info", help="say what a file holds; without a file, what can run here")
    verb.add_argument("file", type=Path, nargs="?")
    verb.set_defaults(run=run_info)

    verb = verbs.add_parser("demo", help="a coloured scene, six camera paths, their pictures")
    verb.add_argument("--out", type=Path, default=Path("out"))
    verb.set_defaults(run=run_demo)

    verb = verbs.add_parser("bench", help="repeat the figures of the README")
    verb.add_argument("what", choices=bench.NAMES)
    verb.add_argument("--device", default=default_device())
    verb.set_defaults(run=run_bench)
    return top


def add_path_options(verb: argparse.ArgumentParser) -> None:
    """The options that make camera paths."""
    verb.add_argument("--preset", choices=PRESETS, default=PRESETS[0])
    verb.add_argument("--movement", type=float, default=1.0, help="factor on the path lengths (1 = Lyra's)")
    verb.add_argument("--rotation", choices=ROTATIONS, default="center_facing")
    verb.add_argument("--seed", type=int, default=1, help="of the path lengths")
    verb.add_argument("--frames", type=int, default=121)
    verb.add_argument("--width", type=int, default=1280, help="pixels")
    verb.add_argument("--height", type=int, default=704, help="pixels")
    verb.add_argument("--fov", type=float, default=38.0, help="vertical field of view in degrees")


def default_device() -> str:
    """``cuda`` where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def progress(label: str) -> OnStep:
    """An on_step callback that draws a tqdm bar once there is something to show."""
    bars: list[tqdm] = []

    def on_step(done: int, total: int) -> None:
        if not bars:
            bars.append(tqdm(desc=label, total=total, mininterval=0.5))
        bars[0].update(done - bars[0].n)
        if done == total:
            bars[0].close()

    return on_step


def paths_of(options: argparse.Namespace) -> tuple[CameraTrajectory, ...]:
    """The paths that the path options ask for."""
    return camera_paths(
        pinhole_camera(options.width, options.height, options.fov),
        options.preset,
        frames=options.frames,
        movement=options.movement,
        rotation=options.rotation,
        seed=options.seed,
    )


def run_path(options: argparse.Namespace) -> None:
    """Write camera paths, and their picture."""
    paths = paths_of(options)
    save_cameras(options.out, paths)
    if options.picture:
        save_image(options.picture, draw_paths(paths))
    print(f"{len(paths)} paths of {options.frames} cameras: {options.out}")


def run_render(options: argparse.Namespace) -> None:
    """Draw splats along each path, frame by frame into an mp4."""
    device = torch.device(options.device)
    splats = load_ply(options.splats).to(device)
    settings = RenderSettings(mode=options.mode, backend=options.backend)
    for path in load_cameras(options.cameras) if options.cameras else paths_of(options):
        seen = replace(path[:: options.every], fps=path.fps / options.every).to(device)
        frames = (frame.rgb[0] for frame in render_each(splats, seen, settings, progress(path.name)))
        with torch.inference_mode():
            save_video(options.out / f"{path.name}.mp4", frames, seen.fps)
        print(options.out / f"{path.name}.mp4")


def run_convert(options: argparse.Namespace) -> None:
    """Rewrite splats or cameras."""
    if options.out.suffix == ".ply":
        splats = load_ply(options.source)
        save_ply(options.out, splats, scale=options.scale, min_opacity=options.min_opacity)
        print(f"{len(splats)} splats: {options.out}")
    else:
        paths = load_cameras(options.source)
        save_cameras(options.out, paths)
        print(f"{len(paths)} camera paths: {options.out}")


def run_info(options: argparse.Namespace) -> None:
    """Describe a file, or this machine's kernels."""
    if options.file is None:
        print(f"torch {torch.__version__} on {default_device()}")
        for op in OPS:
            kernels = (f"{name} {op.absent(name) or 'ready'}" for name in op.kernels)
            print(f"{op.name}: {'; '.join(('torch ready', *kernels))}")
    elif options.file.suffix == ".ply":
        splats = load_ply(options.file)
        low, high = splats.means.amin(0).tolist(), splats.means.amax(0).tolist()
        bands = 0 if splats.sh_rest is None else int((splats.sh_rest.shape[1] + 1) ** 0.5) - 1
        print(f"{len(splats)} splats, harmonics to band {bands}, opacity {splats.opacities.mean():.3f} on average")
        print("  ".join(f"{axis} {a:.3f} to {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True)))
    else:
        for path in load_cameras(options.file):
            print(f"{path.name}: {len(path)} cameras of {path.width}x{path.height} at {path.fps:g} fps")


def run_demo(options: argparse.Namespace) -> None:
    """Make the demo's files and say where they are."""
    print("\n".join(str(path) for path in demo.run(options.out, progress)))


def run_bench(options: argparse.Namespace) -> None:
    """Measure, and print the table."""
    device = torch.device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}\n", flush=True)
    for line in bench.rows(options.what, device):
        print(line, flush=True)

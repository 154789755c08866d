"""The verb that refines splats."""

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from .. import pipeline
from ..files.cameras import load_cameras
from ..files.geometry import load_geometry
from ..files.ply import load_ply, save_ply
from ..files.scene import load_scene
from ..refine.optimise import Enough
from ..refine.schedule import settings_for
from .options import progress
from .scene import tokenizer_of


def run_refine(options: argparse.Namespace) -> None:
    """Write refined splats; Ctrl-C ends the optimisation with what there is."""
    latents = load_scene(options.latents, options.clip, dynamic=options.time is not None)
    if latents.dynamic and options.time is None:
        raise ValueError(f"{options.latents} shows a moving scene; say which bullet time the splats are of with --time")
    cameras, geometry = load_cameras(camera_file(options)), options.geometry and load_geometry(options.geometry)
    path = cameras[0]
    settings = settings_for(
        options.device, path.height * path.width, steps=options.steps, seconds=options.seconds, seed=options.seed
    )
    with interruptible() as enough:
        refined = pipeline.refine(
            [load_ply(options.splats).to(options.device)], cameras, latents.to(options.device), tokenizer_of(options),
            geometry, settings=settings, times=(options.time or 0,), on_step=progress("refine"), enough=enough,
        )  # fmt: skip
    (splats,) = refined.splats
    save_ply(options.out, splats.to("cpu"))
    print(f"{len(splats)} splats: {options.out}")
    print(refined.report())


def camera_file(options: argparse.Namespace) -> Path:
    """The cameras in the world of the splats."""
    file = options.cameras or options.splats.with_name("cameras.json")
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is not there; name the cameras that 'lyra reconstruct' wrote with these splats: --cameras"
        )
    return file


@contextmanager
def interruptible() -> Iterator[Enough]:
    """Whether Ctrl-C was pressed meanwhile; pressed again it ends the program as ever."""
    pressed = Event()

    def handle(*_: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)

"""The verb that refines splats."""

import argparse
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

from .. import pipeline
from ..cameras.path import CameraTrajectory
from ..files.cameras.load import load_cameras
from ..files.scenes.geometry import load_geometry
from ..files.scenes.scene import load_scene
from ..files.splats.load import load_splats
from ..files.splats.ply import save_ply
from ..latents import MultiViewLatents
from ..refine.optimise import Enough
from ..refine.report import Refined
from ..refine.schedule import EXTRAS, RefineSettings, settings_for
from ..splats.gaussians import Gaussians
from ..tokenizer.model import CosmosTokenizer
from .models import tokenizer_of
from .options import progress


def run_refine(options: argparse.Namespace) -> None:
    """Write refined splats; Ctrl-C ends the optimisation with what there is."""
    latents = load_scene(options.latents, options.clip, dynamic=options.time is not None)
    if latents.dynamic and options.time is None:
        raise ValueError(f"{options.latents} shows a moving scene; say which bullet time the splats are of with --time")
    cameras, given = load_cameras(camera_file(options)), load_splats(options.splats)
    path = cameras[0]
    settings = settings_for(
        options.device, path.height * path.width, steps=options.steps, seconds=options.seconds, seed=options.seed
    )
    settings = replace(settings, **{name: getattr(options, name) for name in EXTRAS})
    refined = sharpened(
        options, [given.to(options.device)], cameras, latents, tokenizer_of(options), settings, (options.time or 0,)
    )
    (splats,) = refined.splats
    save_ply(options.out, splats.to("cpu"))
    print(f"{len(splats)} splats: {options.out}")
    print(refined.report())


def sharpened(
    options: argparse.Namespace,
    splats: Sequence[Gaussians],
    cameras: Sequence[CameraTrajectory],
    latents: MultiViewLatents,
    tokenizer: CosmosTokenizer,
    settings: RefineSettings,
    times: Sequence[int],
) -> Refined:
    """Refined splats of each time, with a bar; Ctrl-C ends it with what there is."""
    geometry = options.geometry and load_geometry(options.geometry)
    with interruptible() as enough:
        return pipeline.refine(
            splats, cameras, latents.to(options.device), tokenizer, geometry,
            settings=settings, times=times, on_step=progress("refine"), enough=enough,
        )  # fmt: skip


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

"""What several verbs make of their options, and their progress bars."""

import argparse

from tqdm import tqdm

from ..callbacks import OnStep
from ..cameras.moves import PathSettings, camera_paths
from ..cameras.path import CameraTrajectory, pinhole_camera
from .fields import filled


def paths_of(options: argparse.Namespace) -> tuple[CameraTrajectory, ...]:
    """The paths that the path and camera options ask for."""
    base = pinhole_camera(options.width, options.height, options.fov)
    return camera_paths(base, path_settings(options))


def path_settings(options: argparse.Namespace) -> PathSettings:
    """What the path options say."""
    return filled(PathSettings(), options, seed=options.path_seed)


_bars: list[tqdm] = []  # that are drawn


def close_bars() -> None:
    """End the lines of bars whose work was stopped."""
    while _bars:
        _bars.pop().close()


def progress(label: str) -> OnStep:
    """An on_step callback that draws a tqdm bar once there is something to show."""
    bars: list[tqdm] = []

    def on_step(done: int, total: int) -> None:
        if not bars:
            bars.append(tqdm(desc=label, total=total, mininterval=0.5))
            _bars.append(bars[0])
        bars[0].update(done - bars[0].n)
        if done == total:
            bars[0].close()
            _bars[:] = [bar for bar in _bars if bar is not bars[0]]

    return on_step

"""Sets of camera paths, tuples of CameraTrajectory: put together, and laid end to end."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count

import torch

from .path import CameraTrajectory


def combine(sets: Sequence[Sequence[CameraTrajectory]]) -> tuple[CameraTrajectory, ...]:
    """One set from several, in order. A name that occurs twice gets a number: "left", "left 2"."""
    combined: dict[str, CameraTrajectory] = {}
    for path in (path for paths in sets for path in paths):
        names = chain((path.name,), (f"{path.name} {number}" for number in count(2)))
        name = next(name for name in names if name not in combined)
        combined[name] = replace(path, name=name)
    return tuple(combined.values())


def end_to_end(paths: Sequence[CameraTrajectory], every: int = 1, width: int = 0, height: int = 0) -> CameraTrajectory:
    """All paths of a set as one, keeping every n-th frame of each, for pictures of one size.

    Width or height 0 follows from the other by the aspect ratio of each path; both 0 keeps the paths' own size. What is
    not given is made even, for video encoders take no odd sides.
    """
    if not paths:
        raise ValueError("the set holds no camera paths")
    if every < 1 or min(width, height) < 0:
        raise ValueError(f"every {every} frames at {width}x{height}: every is 1 or more, sizes are 0 or more")
    parts = [_resized(path[::every], width, height) for path in paths]
    sizes = sorted({(part.width, part.height) for part in parts})
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h}" for w, h in sizes)
        raise ValueError(f"the paths have different sizes ({listed}); give width and height")
    rates = sorted({part.fps for part in parts})
    if len(rates) > 1:
        raise ValueError(f"the paths have different speeds ({', '.join(f'{r:g}' for r in rates)} fps); draw each alone")
    return replace(
        parts[0],
        c2w=torch.cat([part.c2w for part in parts]),
        K=torch.cat([part.K for part in parts]),
        fps=parts[0].fps / every,
    )


def _resized(path: CameraTrajectory, width: int, height: int) -> CameraTrajectory:
    """The path for pictures of a size, of which 0 means whatever keeps the aspect ratio: even, as video encoders want.

    A side that nobody chose, which would be the path's own, is made even too.
    """
    size = height or even(width * path.height / path.width), width or even(height * path.width / path.height)
    if not width and not height:
        size = even(path.height), even(path.width)
    return path if size == (path.height, path.width) else path.resized(*size)


def even(side: float) -> int:
    """The even number of pixels next to a length, 2 at least."""
    return max(2, 2 * round(side / 2))

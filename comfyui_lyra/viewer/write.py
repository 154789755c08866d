"""Splats into any form that the table names, the page among them."""

from collections.abc import Sequence
from pathlib import Path

from ..cameras.path import CameraTrajectory
from ..files.splats.formats import axes_of, to_write
from ..files.splats.save import DEFAULT, Placing, save_moving, save_splats
from ..splats.gaussians import GaussianSequence
from ..splats.placing import prepared
from .html import write_html


def write_scene(
    path: Path | str,
    moments: GaussianSequence,
    placing: Placing = DEFAULT,
    cameras: Sequence[CameraTrajectory] = (),
    *,
    fps: float = 24.0,
    kind: str | None = None,
) -> None:
    """Write one moment or several into one file; ``cameras``, in the world of the splats, go into a page only.

    Raises ValueError as ``save_splats``, ``save_moving`` and ``write_html`` do.
    """
    form = to_write(Path(path), kind)
    if form.name == "html":
        up = axes_of(form, placing.up)
        frames = tuple(
            prepared(frame, scale=placing.scale, min_opacity=placing.min_opacity, up=up) for frame in moments.frames
        )
        paths = [path.scaled(placing.scale) for path in cameras]
        write_html(path, GaussianSequence(frames=frames, times=moments.times), paths, fps=fps)
    elif len(moments) == 1:
        save_splats(path, moments.frames[0], placing, kind=kind)
    else:
        save_moving(path, moments, placing, fps=fps, kind=kind)

"""Splats into any form of file that is written."""

from dataclasses import dataclass
from pathlib import Path

from ...splats.gaussians import Gaussians, GaussianSequence
from ...splats.placing import prepared
from .forge import write_forged
from .formats import SplatFormat, Up, axes_of, to_write
from .glb import write_glb
from .ply import write_ply
from .usd import write_usd


@dataclass(frozen=True, kw_only=True)
class Placing:
    """Which splats a file gets, and in what world. The defaults are scene units and the form's usual axes."""

    scale: float = 1.0  # the world is multiplied by it first
    min_opacity: float = 0.0  # more transparent splats are left out
    up: Up | None = None  # None: as is usual for the form
    metres: float | None = None  # what a unit of the file is, where known: after ``scale``
    spz_version: int = 3


DEFAULT = Placing()


def save_splats(path: Path | str, splats: Gaussians, placing: Placing = DEFAULT, *, kind: str | None = None) -> int:
    """Write one scene in the form that ``kind`` or the ending of the name says; returns how many splats.

    Raises ValueError for forms that are not written, axes that the form does not have, a missing library, and where no
    splats are left.
    """
    form = to_write(Path(path), kind)
    up = axes_of(form, placing.up)
    kept = prepared(splats, scale=placing.scale, min_opacity=placing.min_opacity, up=up)
    write(Path(path), kept, form, up, placing)
    return len(kept)


def write(path: Path, kept: Gaussians, form: SplatFormat, up: Up, placing: Placing) -> None:
    """Write prepared splats."""
    if form.name == "ply":
        write_ply(path, kept, up, placing.metres)
    elif form.name in ("spz", "sog"):
        write_forged(path, kept, form.name, placing.spz_version)
    elif form.name == "glb":
        write_glb(path, kept, placing.metres)
    elif form.name in ("usda", "usdc"):
        write_usd(path, [kept], up=up, metres=placing.metres, binary=form.name == "usdc")
    else:
        raise ValueError(f"{path}: {form.title} is written elsewhere")


def save_moving(
    path: Path | str,
    moments: GaussianSequence,
    placing: Placing = DEFAULT,
    *,
    fps: float = 24.0,
    kind: str | None = None,
) -> None:
    """Write several moments into one file of a form that may hold them; ``fps`` counts the clip's frames."""
    form = to_write(Path(path), kind)
    if not form.moves:
        raise ValueError(f"{path}: {form.title} holds one moment; write a folder of numbered files")
    up = axes_of(form, placing.up)
    frames = [prepared(frame, scale=placing.scale, min_opacity=placing.min_opacity, up=up) for frame in moments.frames]
    write_usd(path, frames, up=up, metres=placing.metres, times=moments.times, fps=fps, binary=form.name == "usdc")

"""A picture or clip with its depth, as the pack brings them: what any viewer shows, and numbers beside it.

    picture.png, picture_depth.npz    or    clip.mp4, clip_depth.npz

The npz holds ``depth`` [F, H, W] in float16, infinite where there is only sky, NaN where
nothing is known, and ``K`` [3, 3] of the camera, which
stands still.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from ...cameras.moves import still
from ...cameras.path import CameraTrajectory
from ...geometry.geometry import Geometry
from ...weights import shipped
from ..arrays import read_arrays
from ..atomic import replacing
from ..media.images import load_image, save_image
from ..media.video import load_video, save_video
from ..reading import reading

Kind = Literal["picture", "clip"]
KINDS = get_args(Kind)
SUFFIXES = {"picture": "png", "clip": "mp4"}


def sample_files(folder: Path | str, kind: Kind) -> tuple[Path, Path]:
    """Where pictures and depth lie."""
    return Path(folder, f"{kind}.{SUFFIXES[kind]}"), Path(folder, f"{kind}_depth.npz")


def save_sample(folder: Path | str, geometry: Geometry) -> tuple[Path, Path]:
    """Write a picture, or a clip of a camera that stands still; mp4 is close to its pictures, not equal."""
    kind: Kind = "picture" if len(geometry.frames) == 1 else "clip"
    shown, depth = files = sample_files(folder, kind)
    if kind == "picture":
        save_image(shown, geometry.frames[0])
    else:
        save_video(shown, geometry.frames, geometry.cameras.fps)
    with replacing(depth) as temporary, temporary.open("wb") as file:
        values = (
            torch.where(geometry.valid | (geometry.depth == torch.inf), geometry.depth, torch.nan).half().cpu().numpy()
        )
        np.savez_compressed(file, depth=values, K=geometry.cameras.K[0].cpu().numpy())
    return files


def load_sample(folder: Path | str, kind: Kind) -> Geometry:
    """Read what ``save_sample`` wrote; its world is the camera's, and has the unit of the depth."""
    shown, beside = sample_files(folder, kind)
    frames, fps = (load_image(shown)[None], 24.0) if kind == "picture" else load_video(shown)
    with reading(beside) as file:
        arrays = read_arrays(file, lambda _: ("depth", "K"))
        depth, K = (torch.from_numpy(arrays[name]).float() for name in ("depth", "K"))
    camera = CameraTrajectory(
        c2w=torch.eye(4)[None], K=K[None], height=depth.shape[1], width=depth.shape[2], fps=fps, name=kind
    )
    cameras = replace(still(camera, len(depth)), name=kind)
    return Geometry(frames=frames, depth=depth.nan_to_num(0, torch.inf), valid=depth.isfinite(), cameras=cameras)


def shipped_sample(kind: Kind) -> Geometry:
    """The picture or clip with its depth: procedural scenes that none of the models saw."""
    for file in sample_files(shipped.MINI, kind):
        shipped.shipped_file(file.name)
    return load_sample(shipped.MINI, kind)

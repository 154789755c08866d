"""Depth pictures that people have: EXR, npz and npy with lengths, PNG, videos and the like with levels."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import OpenEXR
import torch
from torch import Tensor

from .images import load_image
from .reading import reading
from .video import VIDEOS, load_video

EXR_CHANNELS = ("Z", "depth.Z", "Y", "V", "R")  # where depth is found, the first that is there
TINT = 1 / 128  # difference of colours up to which a picture is grey; JPEG leaves some


def load_depth(path: Path | str, start: int = 0, count: int | None = None) -> Tensor:
    """Read a depth picture, or those of a clip, [F, H, W], float32.

    Values of EXR, npz and npy files as they are, levels in [0, 1] of others. An npz holds them as ``depth``, or alone.
    Of a clip at most ``count``, from frame ``start`` on.
    """
    with reading(path) as file:
        suffix = file.suffix.lower()
        values = read_exr(file) if suffix == ".exr" else read_array(file) if suffix in (".npz", ".npy") else None
        if values is None:
            pictures = load_video(file, start, count)[0] if suffix in VIDEOS else load_image(file)[None]
            if (pictures.amax(-1) - pictures.amin(-1)).max() > TINT:
                raise ValueError("a coloured picture holds no depth; save the depth itself, grey or as EXR or npz")
            return pictures[..., 0].contiguous()
        depth = torch.from_numpy(values.astype(np.float32)).squeeze()
        if depth.ndim not in (2, 3):
            raise ValueError(f"expected depth pictures [H W] or [F H W], got {values.shape}")
        return depth[None] if depth.ndim == 2 else depth[start:][:count]


def read_exr(file: Path) -> np.ndarray:
    """The depth channel of an EXR."""
    try:
        channels = OpenEXR.File(str(file), separate_channels=True).channels()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"not an EXR file, or a damaged one: {error}") from error
    name = next((name for name in EXR_CHANNELS if name in channels), None)
    if name is None:
        raise ValueError(f"expected a depth channel named {', '.join(EXR_CHANNELS)}, found {', '.join(channels)}")
    return channels[name].pixels


def read_array(file: Path) -> np.ndarray:
    """The depth of an npz or npy."""
    try:
        found = np.load(file, allow_pickle=False)
        arrays = {"depth": found} if isinstance(found, np.ndarray) else dict(found)
    except (OSError, EOFError, ValueError, BadZipFile) as error:
        raise ValueError(f"not a numpy file of numbers, or a damaged one: {error}") from error
    name = "depth" if "depth" in arrays or len(arrays) != 1 else next(iter(arrays))
    if name not in arrays:
        raise ValueError(f"expected an array 'depth', found {', '.join(arrays) or 'none'}")
    return arrays[name]

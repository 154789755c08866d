"""Depth in numpy's files: npz and npy."""

from pathlib import Path
from zipfile import is_zipfile

import numpy as np

from ..arrays import read_arrays, read_npy
from .depth_values import Unit

NAMES = ("depth", "depths", "z")  # of arrays and fields that hold depth, in any case


def read_depth_array(file: Path, start: int, count: int | None, unit: Unit | None) -> tuple[np.ndarray, int | None]:
    """Depth [F, H, W] of an npz or npy and what its levels count up to: 255 of bytes, or None for lengths.

    Of a clip at most ``count``, from ``start`` on.
    """
    if is_zipfile(file):
        (values,) = read_arrays(file, lambda names: (depth_name(names),)).values()
    else:
        values = read_npy(file)
    values = values[depth_field(values.dtype)] if values.dtype.names else values
    if values.dtype.kind not in "fiu":
        raise ValueError(f"holds values of type {values.dtype}; expected numbers, such as float32")
    clip = values.reshape(picture_shape(values.shape))
    part = clip[start:][:count] if len(clip) > 1 else clip
    if not len(part):
        raise ValueError(f"holds {len(clip)} depth pictures, none from number {start} on")
    return part, top_level(values.dtype, unit)


def depth_name(names: tuple[str, ...]) -> str:
    """Which of some arrays or fields holds depth."""
    small = {name.lower(): name for name in reversed(names)}
    found = next((small[name] for name in NAMES if name in small), names[0] if len(names) == 1 else None)
    if found is None:
        raise ValueError(f"expected an array 'depth', found {', '.join(names) or 'none'}")
    return found


def depth_field(dtype: np.dtype) -> str:
    """The field of a structured type that holds depth."""
    names = dtype.names or ()
    small = {name.lower(): name for name in names}
    if not small.keys() & set(NAMES):
        raise ValueError(f"a structured array needs a field depth or z, and has {', '.join(names)}")
    return next(small[name] for name in NAMES if name in small)


def picture_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Frames, height and width of an array, which may have an axis of one channel."""
    found = shape
    if len(shape) == 4:
        found = shape[:3] if shape[3] == 1 else (shape[0], *shape[2:]) if shape[1] == 1 else shape
    elif len(shape) == 3:
        found = (1, *shape[:2]) if shape[2] == 1 else shape
    elif len(shape) == 2:
        found = (1, *shape)
    is_colored = len(shape) == 3 and shape[2] in (2, 3, 4) and min(shape[:2]) > 4
    if len(found) != 3 or is_colored or 0 in found:
        raise ValueError(f"expected depth pictures [H W] or [F H W], got {shape}")
    return found


def top_level(dtype: np.dtype, unit: Unit | None) -> int | None:
    """The largest level of bytes, and of other integers that are said to be levels; else numbers are lengths."""
    is_levels = dtype.kind in "iu" and (dtype == np.uint8 or unit == "levels")
    return int(np.iinfo(dtype).max) if is_levels else None

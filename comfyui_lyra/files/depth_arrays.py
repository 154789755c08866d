"""Depth in numpy's files: npz and npy, no more of them read than is asked for."""

import zlib
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np

from ..depth_values import Unit

NAMES = ("depth", "depths", "z")  # of arrays and fields that hold depth, in any case
MOST_BYTES = 1 << 31  # of numbers read at once
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
EXPECTED = "expected depth pictures [H W] or [F H W]"


def read_array(file: Path, start: int, count: int | None, unit: Unit | None) -> tuple[np.ndarray, int | None]:
    """Depth [F, H, W] of an npz or npy and what its levels count up to: 255 of bytes, or None for lengths."""
    try:
        if not is_zipfile(file):
            with file.open("rb") as stream:
                return read_stream(stream, start, count, unit)
        with ZipFile(file) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
            with archive.open(members[depth_name(list(members))]) as stream:
                return read_stream(stream, start, count, unit)
    except (OSError, EOFError, BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"not a numpy file of numbers, or a damaged one: {error}") from error


def depth_name(names: list[str]) -> str:
    """Which of some arrays or fields holds depth."""
    small = {name.lower(): name for name in reversed(names)}
    found = next((small[name] for name in NAMES if name in small), names[0] if len(names) == 1 else None)
    if found is None:
        raise ValueError(f"expected an array 'depth', found {', '.join(names) or 'none'}")
    return found


def read_stream(stream: BinaryIO, start: int, count: int | None, unit: Unit | None) -> tuple[np.ndarray, int | None]:
    """Depth of one npy."""
    shape, is_fortran, dtype = read_header(stream)
    frames, height, width = picture_shape(shape)
    is_clip = len(shape) > 2 and frames > 1
    first, last = (start, min(frames, start + (count or frames))) if is_clip else (0, frames)
    if first >= last:
        raise ValueError(f"holds {frames} depth pictures, none from number {start} on")
    if is_fortran:
        values = read_numbers(stream, dtype, frames * height * width).reshape(shape, order="F")
        values = values.reshape(frames, height, width)[first:last]
    else:
        skip(stream, first * height * width * dtype.itemsize)
        values = read_numbers(stream, dtype, (last - first) * height * width).reshape(-1, height, width)
    if dtype.names:
        values = values[depth_field(dtype)]
    return values, top_level(values.dtype, unit)


def read_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type; ValueError unless these are numbers."""
    try:
        shape, is_fortran, dtype = HEADERS[np.lib.format.read_magic(stream)](stream)
    except (KeyError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not a numpy file of numbers, or a damaged one") from error
    kind = dtype[depth_field(dtype)] if dtype.names else dtype
    if kind.kind not in "fiu" or kind.shape or dtype.hasobject:
        raise ValueError(f"holds values of type {kind}; expected numbers, such as float32")
    return shape, is_fortran, dtype


def depth_field(dtype: np.dtype) -> str:
    """The field of a structured type that holds depth."""
    small = {name.lower(): name for name in dtype.names}
    if not small.keys() & set(NAMES):
        raise ValueError(f"a structured array needs a field depth or z, and has {', '.join(dtype.names)}")
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
        raise ValueError(f"{EXPECTED}, got {shape}")
    return found


def top_level(dtype: np.dtype, unit: Unit | None) -> int | None:
    """The largest level of bytes, and of other integers that are said to be levels; else numbers are lengths."""
    is_levels = dtype.kind in "iu" and (dtype == np.uint8 or unit == "levels")
    return int(np.iinfo(dtype).max) if is_levels else None


def read_numbers(stream: BinaryIO, dtype: np.dtype, count: int) -> np.ndarray:
    """Numbers [count]; ValueError before they are read if they are too many, after if they are too few."""
    wanted = count * dtype.itemsize
    if wanted > MOST_BYTES:
        raise ValueError(f"claims {wanted} bytes of depth; at most {MOST_BYTES} are read at once, so take fewer frames")
    data = bytearray()
    while len(data) < wanted and (part := stream.read(min(1 << 24, wanted - len(data)))):
        data += part
    if len(data) < wanted:
        raise ValueError(f"cut short: {len(data)} of {wanted} bytes of depth are there")
    return np.frombuffer(data, dtype)


def skip(stream: BinaryIO, count: int) -> None:
    """Read past some bytes."""
    while count > 0 and (part := stream.read(min(1 << 24, count))):
        count -= len(part)

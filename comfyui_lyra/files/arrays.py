"""Numpy's files, npy and npz: only the arrays that are asked for, and none that claims more than its file holds."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from .reading import open_zip

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
NPY, KINDS = ".npy", "biufVUS"  # of dtypes that are read; V are structured arrays, U and S words


def array_names(file: Path) -> tuple[str, ...]:
    """Names of the arrays of an npz."""
    with open_zip(file) as archive:
        return tuple(name.removesuffix(NPY) for name in archive.namelist() if name.endswith(NPY))


def read_arrays(file: Path, choose: Callable[[tuple[str, ...]], tuple[str, ...]]) -> dict[str, np.ndarray]:
    """The arrays of an npz that ``choose`` names out of those that are there."""
    with open_zip(file) as archive:
        members = {name.removesuffix(NPY): archive.getinfo(name) for name in archive.namelist() if name.endswith(NPY)}
        found = {}
        for name in choose(tuple(members)):
            with archive.open(members[name]) as stream:
                found[name] = read_array(stream, members[name].file_size, f"array '{name}'")
        return found


def read_npy(file: Path) -> np.ndarray:
    """The array of an npy."""
    with file.open("rb") as stream:
        return read_array(stream, file.stat().st_size, "the array")


def read_array(stream: IO[bytes], size: int, what: str) -> np.ndarray:
    """An array of numbers, words or records, from a stream of ``size`` bytes."""
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"{what}: numpy's format {version[0]}.{version[1]} is not read; save plain numbers")
    shape, by_columns, dtype = HEADERS[version](stream)
    if dtype.kind not in KINDS or dtype.hasobject:
        raise ValueError(f"{what} holds {dtype}, no numbers")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or not dtype.itemsize or count * dtype.itemsize > size:
        raise ValueError(f"{what} claims {shape} of {dtype}, more than the {size} bytes that are there")
    values = np.empty(count, dtype)
    if count:
        read_into(stream, values.view(np.uint8).reshape(-1).data, what)
    return values.reshape(shape, order="F" if by_columns else "C")


def read_into(stream: IO[bytes], buffer: memoryview, what: str) -> None:
    """Fill a buffer; ValueError where the stream ends before."""
    done = 0
    while done < len(buffer):
        block = stream.read(min(1 << 20, len(buffer) - done))
        if not block:
            raise ValueError(f"{what} is cut short: {done} of {len(buffer)} bytes")
        buffer[done : done + len(block)] = block
        done += len(block)

"""Safetensors under any suffix: the header alone, or the tensors as windows into the mapped file."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...files.reading import parse_json
from .containers import LARGEST_HEADER
from .mapping import Windows
from .unpickle import Damaged

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64, "U16": torch.uint16,
    "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says before its numbers."""

    about: dict[str, str]
    tensors: dict[str, Tensor]  # on ``meta``; precisions that torch lacks as bytes of the same size
    starts: dict[str, int]  # where each one's bytes begin in the file
    size: int  # bytes the whole file has


def read_header(path: Path) -> Header:
    """The header of a safetensors file. Raises ``Damaged`` where it contradicts itself or the file is too short."""
    with Path(path).open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
        if length > LARGEST_HEADER:
            raise Damaged("no safetensors header")
        text = file.read(length)
    try:
        entries = parse_json(text)
        about = entries.pop("__metadata__", None)
        about = {} if about is None else about
        if not isinstance(about, dict) or not all(isinstance(word, str) for word in about.values()):
            raise ValueError("its metadata are no words by name")
        tensors = {name: described(entry) for name, entry in entries.items()}
        starts = {name: 8 + length + entry["data_offsets"][0] for name, entry in entries.items()}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Damaged(f"a damaged safetensors header ({error})") from error
    size, there = 8 + length + end, Path(path).stat().st_size
    if size > there:
        raise Damaged(f"it ends after {there:,} bytes of {size:,}: a download that broke off")
    return Header(about=about, tensors=tensors, starts=starts, size=size)


def described(entry: dict) -> Tensor:
    """One tensor's shape and precision, on ``meta``."""
    start, end = entry["data_offsets"]
    shape, dtype = entry["shape"], DTYPES.get(entry["dtype"])
    if type(start) is not int or type(end) is not int or not 0 <= start <= end < 2**62:
        raise ValueError("a tensor that begins behind its end")
    if dtype is None:
        return torch.empty(end - start, dtype=torch.uint8, device="meta")
    if len(shape) > 64 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise ValueError("a tensor of no shape")
    if math.prod(max(n, 1) for n in shape) >= 2**60 or math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError("a tensor whose shape does not fit its bytes")
    return torch.empty(shape, dtype=dtype, device="meta")


def read_safetensors(path: Path, is_described: bool = False) -> dict[str, Tensor]:
    """Tensors by name, mapped, or only described on ``meta``."""
    header = read_header(path)
    if is_described:
        return header.tensors
    windows = Windows(path)
    return {name: placed(windows, header.starts[name], tensor) for name, tensor in header.tensors.items()}


def placed(windows: Windows, start: int, described: Tensor) -> Tensor:
    """The tensor of a description, over the file's bytes."""
    data = windows.storage(start, described.numel() * described.element_size())
    return torch.empty(0, dtype=described.dtype).set_(data, 0, described.shape, described.stride())

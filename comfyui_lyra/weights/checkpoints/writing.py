"""Safetensors written tensor by tensor, for models that fit into memory only once."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...callbacks import OnStep, no_progress
from ...files.atomic import replacing
from .quantised import EIGHT_BITS, Scaled, real
from .quantising import Lazy
from .safetensors_files import NAMES

AT_ONCE = 64 * 2**20  # bytes


def stored_dtype(value: Tensor | Scaled | Lazy, dtype: torch.dtype | None) -> torch.dtype:
    """What ``stored`` makes of a tensor."""
    if isinstance(value, Lazy):
        return value.dtype
    if isinstance(value, Scaled):
        return dtype or torch.bfloat16
    if not value.is_floating_point():
        return value.dtype
    return dtype or (torch.bfloat16 if value.dtype in EIGHT_BITS else value.dtype)


def stored(value: Tensor | Scaled | Lazy, dtype: torch.dtype | None) -> Tensor:
    """What is written: ``quantised.real``, or what was to be made now, which keeps its own precision."""
    return value.make() if isinstance(value, Lazy) else real(value, dtype)


def stream_safetensors(
    file: Path,
    tensors: Mapping[str, Tensor | Scaled | Lazy],
    about: Mapping[str, str],
    dtype: Callable[[str], torch.dtype | None] = lambda name: None,
    on_step: OnStep = no_progress,
) -> str:
    """Write tensors one after another, cast to what ``dtype`` says of a name (None: as stored); return the sha256.

    No more than one tensor is held in memory beside mapped ones. Raises ValueError as ``files.atomic.replacing`` does.
    """
    names, entries, end = sorted(tensors), {}, 0
    for name in names:
        kind = stored_dtype(tensors[name], dtype(name))
        size = tensors[name].shape.numel() * kind.itemsize
        entries[name] = {
            "dtype": NAMES[kind],
            "shape": list(tensors[name].shape),
            "data_offsets": [end, end + size],
        }
        end += size
    header = json.dumps({"__metadata__": dict(about)} | entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    digest = hashlib.sha256()
    with replacing(file) as temporary, temporary.open("wb") as out:
        for piece in (struct.pack("<Q", len(header)), header):
            digest.update(piece)
            out.write(piece)
        for step, name in enumerate(names):
            values = stored(tensors[name], dtype(name)).detach().cpu().contiguous().flatten().view(torch.uint8)
            for piece in values.split(AT_ONCE):
                digest.update(piece.numpy())
                out.write(piece.numpy())
            on_step(step + 1, len(names))
    return digest.hexdigest()

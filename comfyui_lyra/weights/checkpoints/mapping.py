"""A file's bytes as memory of tensors, read when they are looked at."""

import mmap
from pathlib import Path

import torch

from .unpickle import Damaged

SMALL = 64 * 2**10  # bytes; fewer are read at once, as every mapping costs the system something


def mapped(path: Path, start: int, size: int) -> torch.UntypedStorage:
    """Bytes of a file, in place; what is written to them stays in memory.

    Each piece is a mapping of its own: of a file larger than the machine's memory the system maps no whole that may be
    written to. Raises ``Damaged`` where the file ends before the piece does.
    """
    if start + size > Path(path).stat().st_size:
        raise Damaged("it ends inside its tensors: a download that broke off")
    if not size:
        return torch.UntypedStorage(0)
    with Path(path).open("rb") as file:
        if size < SMALL:
            file.seek(start)
            buffer, shift = bytearray(file.read(size)), 0
        else:
            shift = start % mmap.ALLOCATIONGRANULARITY
            buffer = mmap.mmap(file.fileno(), shift + size, access=mmap.ACCESS_COPY, offset=start - shift)
    return torch.frombuffer(buffer, dtype=torch.uint8, count=size, offset=shift).untyped_storage()

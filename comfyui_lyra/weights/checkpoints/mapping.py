"""A file's bytes as memory of tensors, read when they are looked at."""

import mmap
from pathlib import Path

import torch

from .unpickle import Damaged

SMALL = 64 * 2**10  # bytes; fewer are read at once, as every tensor in a window keeps it
WINDOW = 2**30  # bytes, a multiple of the granularity; each mapping keeps a descriptor, so tensors share them


class Windows:
    """One read of a file: its pieces in place; what is written to them stays in memory and with this read.

    Neighbours share a mapping: every one costs a descriptor, of which a process may have 256. Not all share one: of a
    file larger than the machine's memory the system maps no whole that may be written to.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.windows: dict[int, mmap.mmap] = {}  # by where they begin

    def storage(self, start: int, size: int) -> torch.UntypedStorage:
        """Bytes of the file. Raises ``Damaged`` where it ends before they do, OSError where it cannot be mapped."""
        end = self.path.stat().st_size
        if start + size > end:
            raise Damaged("it ends inside its tensors: a download that broke off")
        if not size:
            return torch.UntypedStorage(0)
        if size < SMALL:
            with self.path.open("rb") as file:
                file.seek(start)
                buffer, shift = bytearray(file.read(size)), 0
        else:
            shift = start % WINDOW
            buffer = self.windows.get(start - shift)
            if buffer is None or shift + size > len(buffer):
                buffer, shift = self.mapped(start, size, end)
        return torch.frombuffer(buffer, dtype=torch.uint8, count=size, offset=shift).untyped_storage()

    def mapped(self, start: int, size: int, end: int) -> tuple[mmap.mmap, int]:
        """A new mapping that holds these bytes, and where in it: the window, or one of their own if they cross it."""
        shift = start % WINDOW
        length = min(WINDOW, end - start + shift)
        is_shared = shift + size <= length
        if not is_shared:
            shift = start % mmap.ALLOCATIONGRANULARITY
            length = shift + size
        with self.path.open("rb") as file:
            buffer = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY, offset=start - shift)
        if is_shared:
            self.windows[start - shift] = buffer
        return buffer, shift

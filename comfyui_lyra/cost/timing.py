"""Time and memory of a call, measured one way for every figure of the README."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from ..callbacks import watching

PROCESS = Path("/proc/self")  # what Linux tells of this process
REST = "the rest"


def measure(call: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """Median seconds of ``repeats`` calls after one that does not count, and the peak of what they add in GB.

    GB are 10^9 bytes of the torch allocator on CUDA, 0 elsewhere; what was allocated before the call is not counted.
    """
    cuda = device.type == "cuda"
    call()
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before, seconds = torch.cuda.memory_allocated(device) if cuda else 0, []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds), (torch.cuda.max_memory_allocated(device) - before) / 1e9 if cuda else 0.0


@dataclass(kw_only=True)
class Part:
    """What was spent in all calls of one part, without the parts inside of it."""

    name: str
    times: int = 0
    seconds: float = 0.0
    first: float = 0.0  # seconds of the first call
    peak: int = 0  # bytes of the torch allocator on CUDA
    ram: int = 0  # bytes, see ``process_bytes``

    def row(self) -> str:
        """A line of the table."""
        numbers = f"{self.seconds:.2f} | {self.first:.2f} | {self.peak / 1e9:.1f} | {self.ram / 1e9:.1f}"
        return f"| {self.name} | {self.times} | {numbers} |"


class Timeline:
    """Every second since a start: to which ``part`` of which stage it went, and the memory meanwhile."""

    HEAD = (
        "| part | times | s | first, s | GB of the GPU, weights included | GB of RAM until then |",
        "|---|" + "---|" * 5,
    )

    def __init__(self, device: torch.device, before: float = 0.0):
        """``before``: seconds that had passed already."""
        self.device, self._mark = device, time.perf_counter()
        self._start = self._mark - before
        self.parts: dict[str, Part] = {}
        self._outside = Part(name="outside")
        self._open = [self._outside]

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._start

    @contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Time parts under this name; the list gets their rows at the end, and what no part was."""
        lines: list[str] = []
        own = self.parts.setdefault(f"{name}: {REST}", Part(name=f"{name}: {REST}"))
        before = set(self.parts)
        with watching(lambda inner: self._during(self._part(f"{name}: {inner}"))), self._during(own):
            yield lines
        lines += [part.row() for key, part in self.parts.items() if key not in before] + [own.row()]

    def _part(self, name: str) -> Part:
        return self.parts.setdefault(name, Part(name=name))

    @contextmanager
    def _during(self, part: Part) -> Iterator[None]:
        self._turn()
        self._open.append(part)
        part.times += 1
        try:
            yield
        finally:
            self._turn()
            self._open.pop()
            part.first = part.seconds if part.times == 1 else part.first

    def _turn(self) -> None:
        """What was spent until now belongs to the innermost part that is open."""
        owner = self._open[-1]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            owner.peak = max(owner.peak, torch.cuda.max_memory_allocated(self.device))
            torch.cuda.reset_peak_memory_stats(self.device)
        owner.ram, now = process_bytes(), time.perf_counter()
        owner.seconds += now - self._mark
        self._mark = now

    def summary(self) -> Iterator[str]:
        """The last rows: all seconds, and those that no part was."""
        self._turn()
        total = self._mark - self._start
        rest = self._outside.seconds + sum(p.seconds for p in self.parts.values() if p.name.endswith(REST))
        peak = max((part.peak for part in self.parts.values()), default=0)
        yield f"| all | | {total:.2f} | | {peak / 1e9:.1f} | {process_bytes() / 1e9:.1f} |"
        yield f"| of it unexplained: {rest / total:.1%} | | {rest:.2f} | | | |"


def process_seconds() -> float:
    """Since this process began, to 0.01 s; since now where the system does not tell."""
    try:
        ticks = float((PROCESS / "stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


def process_bytes() -> int:
    """The most RAM that this process held so far, mapped files included; 0 where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in (PROCESS / "status").read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0

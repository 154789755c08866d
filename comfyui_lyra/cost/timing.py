"""Time and memory of a call, measured one way for every figure of the README."""

import time
from collections.abc import Callable
from statistics import median

import torch


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

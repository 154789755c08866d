"""Size and seconds of every form of splats, for a small and a full scene."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ..files.splats.formats import WRITTEN
from ..files.splats.load import load_splats
from ..splats.gaussians import GaussianSequence
from ..viewer.write import write_scene
from .ply import COUNT, random_splats

COUNTS = (20_000, COUNT)


def rows(
    device: torch.device, *, counts: Sequence[int] = COUNTS, names: Sequence[str] = tuple(WRITTEN)
) -> Iterator[str]:
    """Processor seconds, of all threads, to a temporary folder and back. Splats are random, which compresses worst."""
    yield "| splats | format | MB | bytes a splat | write, processor s | read, processor s |"
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            moment = GaussianSequence(frames=(random_splats(count),), times=(0,))
            for name in names:
                yield row(Path(folder, f"splats.{name}"), moment, count)


def row(path: Path, moment: GaussianSequence, count: int) -> str:
    """One form of one scene; the reason where it cannot be written."""
    form = WRITTEN[path.suffix[1:]]
    try:
        written = seconds(lambda: write_scene(path, moment))
    except ValueError as error:
        return f"| {count} | {form.name} | {error} | | | |"
    size = path.stat().st_size
    read = f"{seconds(lambda: load_splats(path)):.2f}" if form.reads else "-"
    path.unlink()
    return f"| {count} | {form.name} | {size / 1e6:.2f} | {size / count:.1f} | {written:.2f} | {read} |"


def seconds(act: Callable[[], object]) -> float:
    """Processor time of the process."""
    start = time.process_time()
    act()
    return time.process_time() - start

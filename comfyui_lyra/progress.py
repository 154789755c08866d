"""The progress callback that long functions take: ``on_step(done, total)``."""

from collections.abc import Callable

OnStep = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Report to nobody."""

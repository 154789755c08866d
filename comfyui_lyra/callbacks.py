"""What long functions report to: ``on_step(done, total)``, ``on_picture``, ``check_frames``, and who times ``part``."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from torch import Tensor

OnStep = Callable[[int, int], None]
CheckFrames = Callable[[Tensor], Tensor]  # frames [F, H, W, 3] in [0, 1] -> the same, changed or refused
OnPicture = Callable[[Tensor], None]  # [H, W, 3] in [0, 1]
Watch = Callable[[str], AbstractContextManager]

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


def no_progress(done: int, total: int) -> None:
    """Report to nobody."""


def no_picture(picture: Tensor) -> None:
    """Show nobody."""


@contextmanager
def part(name: str) -> Iterator[None]:
    """A part of the work that whoever is ``watching`` this thread times; also a decorator. Nobody does by default."""
    watch = _watch.get()
    with watch(name) if watch else nullcontext():
        yield


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Enter ``watch(name)`` around each ``part`` meanwhile."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)

"""The callbacks that long functions take: ``on_step(done, total)``, and ``on_picture`` with what there is to see."""

from collections.abc import Callable

from torch import Tensor

OnStep = Callable[[int, int], None]
OnPicture = Callable[[Tensor], None]  # [H, W, 3] in [0, 1]


def no_progress(done: int, total: int) -> None:
    """Report to nobody."""


def no_picture(picture: Tensor) -> None:
    """Show nobody."""

"""The callbacks that long functions take: ``on_step(done, total)``, ``on_picture`` and ``check_frames``."""

from collections.abc import Callable

from torch import Tensor

OnStep = Callable[[int, int], None]
CheckFrames = Callable[[Tensor], Tensor]  # frames [F, H, W, 3] in [0, 1] -> the same, changed or refused
OnPicture = Callable[[Tensor], None]  # [H, W, 3] in [0, 1]


def no_progress(done: int, total: int) -> None:
    """Report to nobody."""


def no_picture(picture: Tensor) -> None:
    """Show nobody."""

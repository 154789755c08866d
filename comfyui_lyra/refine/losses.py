"""How far what splats show is from what it should be: L1 and 1 - SSIM."""

from torch import Tensor

from ...kernels_glue.ssim import ssim


def frame_losses(drawn: Tensor, wanted: Tensor, similarity: float) -> Tensor:
    """``(1 - similarity) L1 + similarity (1 - SSIM)`` of each of B frames [B, H, W, 3]: [B]; slopes along ``drawn``."""
    found = (drawn - wanted).abs().mean((1, 2, 3))
    if not similarity:
        return found
    return (1 - similarity) * found + similarity * (1 - ssim(drawn, wanted))

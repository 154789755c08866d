"""How far what splats show is from what it should be: L1 and 1 - SSIM, depth, and shapes that no picture asks for."""

import torch
from torch import Tensor

from ...kernels_glue.ssim import ssim

NEEDLE = 1.1  # logarithm of the ratio of a splat's two longest axes from which on it is a needle: 3
SOLID = 0.5  # alpha below which a pixel has no depth


def frame_losses(drawn: Tensor, wanted: Tensor, similarity: float, pixels: Tensor | None = None) -> Tensor:
    """``(1 - similarity) L1 + similarity (1 - SSIM)`` of each of B frames [B, H, W, 3]: [B]; slopes along ``drawn``.

    ``pixels`` [B, H, W] are weights of L1; SSIM gets their mean.
    """
    error = (drawn - wanted).abs().mean(-1)
    found = (error if pixels is None else error * pixels).mean((1, 2))
    if not similarity:
        return found
    share = 1 if pixels is None else pixels.mean((1, 2))
    return (1 - similarity) * found + similarity * share * (1 - ssim(drawn, wanted))


def depth_losses(depth: Tensor, alpha: Tensor, known: Tensor) -> Tensor:
    """Mean of ``abs(depth - known) / known`` of B frames [B, H, W] where depth is known (not 0) and seen: [B]."""
    seen = (known > 0) & (alpha > SOLID)
    error = torch.where(seen, (depth - known).abs() / known.clamp_min(1e-3), 0)
    return error.sum((1, 2)) / seen.sum((1, 2)).clamp_min(1)


def needles(scales: Tensor) -> Tensor:
    """How much longer than NEEDLE splats are, a mean; ``scales`` [N, 3] are logarithms."""
    _, middle, longest = scales.sort(dim=1).values.unbind(1)
    return (longest - middle - NEEDLE).clamp_min(0).mean()

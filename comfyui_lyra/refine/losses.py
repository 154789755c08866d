"""How far what splats show is from what it should be: L1 and 1 - SSIM."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # pixels of SSIM's Gaussian window (Wang et al. 2004)
C1, C2 = 0.01**2, 0.03**2  # SSIM's stabilisers, for pictures in [0, 1]


def frame_losses(drawn: Tensor, wanted: Tensor, similarity: float) -> Tensor:
    """``(1 - similarity) L1 + similarity (1 - SSIM)`` of each of B frames [B, H, W, 3]: [B]."""
    found = (drawn - wanted).abs().mean((1, 2, 3))
    if not similarity:
        return found
    return (1 - similarity) * found + similarity * (1 - ssim_float32(drawn, wanted))


def ssim_float32(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Structural similarity of frames [B, H, W, 3]: [B], population covariance, without the border.

    In float32, unlike ``quality.scores``: a gradient needs no more, and home GPUs are slow at float64. Colours
    are taken about 1/2, which keeps the variances' small differences of large numbers exact enough.
    """
    x, y = (frames.permute(0, 3, 1, 2) - 0.5 for frames in (drawn, wanted))
    maps = torch.cat((x, y, x * x, y * y, x * y))
    x, y, xx, yy, xy = means(maps).chunk(5)
    variances, covariance = xx - x * x + yy - y * y, xy - x * y
    x, y = x + 0.5, y + 0.5
    similar = (2 * x * y + C1) * (2 * covariance + C2) / ((x * x + y * y + C1) * (variances + C2))
    return similar.mean((1, 2, 3))


def means(maps: Tensor) -> Tensor:
    """Gaussian means of [B, C, H, W] over the windows that fit: [B, C, H - 10, W - 10]."""
    if min(maps.shape[2:]) < WINDOW:
        raise ValueError(f"refine: frames of {maps.shape[3]}x{maps.shape[2]} are too small; 11x11 pixels at least")
    offsets = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    weights = (-0.5 * (offsets / SIGMA).square()).exp()
    weights = (weights / weights.sum())[None, None, None]
    single = maps.flatten(0, 1)[:, None]  # each map a batch item of one channel
    return F.conv2d(F.conv2d(single, weights), weights.mT).unflatten(0, maps.shape[:2])[:, :, 0]

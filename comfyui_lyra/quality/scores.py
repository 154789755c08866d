"""How near frames [F, H, W, 3] are to the truth (training.md 10). All functions give one number a frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels_glue.devices import doubled
from .perceptual import Perceptual

WINDOW, SIGMA = 11, 1.5  # pixels of SSIM's Gaussian window
C1, C2 = 0.01**2, 0.03**2  # SSIM's stabilisers, for pictures in [0, 1]
BEST = 100.0  # dB that an exact copy counts as in averages
PERCEPTUAL_BATCH = 32  # frames that a perceptual network sees at once


def psnr(frames: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of frames [F, H, W, 3] clipped to [0, 1]: [F]; infinite for an exact copy.

    ``mask`` [F, H, W] (bool) restricts it to some pixels; a frame that has none of them is NaN.
    """
    return -10 * masked_mean((frames.clamp(0, 1) - truth.clamp(0, 1)).square().mean(-1), mask).log10()


def ssim(frames: Tensor, truth: Tensor, mask: Tensor | None = None, sample_covariance: bool = True) -> Tensor:
    """Structural similarity of frames [F, H, W, 3], not clipped: [F] (Wang et al. 2004, as in scikit-image).

    A Gaussian window of 11 x 11, per colour, without the five pixels along the border. ``sample_covariance`` divides
    by N - 1 = 120. ``mask`` [F, H, W] (bool) averages the pixels it holds, NaN where there are none.
    """
    margin = WINDOW // 2
    if min(frames.shape[1:3]) < WINDOW:
        raise ValueError(
            f"SSIM needs frames of at least {WINDOW}x{WINDOW} pixels, got {frames.shape[2]}x{frames.shape[1]}"
        )
    # float64: a variance is the small difference of two large numbers
    x, y = (doubled(pictures).permute(0, 3, 1, 2) for pictures in (frames, truth))
    mean_x, mean_y = blur(x), blur(y)
    norm = WINDOW**2 / (WINDOW**2 - 1) if sample_covariance else 1.0
    var_x, var_y = norm * (blur(x * x) - mean_x**2), norm * (blur(y * y) - mean_y**2)
    cov = norm * (blur(x * y) - mean_x * mean_y)
    similar = (2 * mean_x * mean_y + C1) * (2 * cov + C2) / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))
    inner = None if mask is None else mask[:, margin:-margin, margin:-margin]
    return masked_mean(similar.mean(1), inner if inner is None else inner.to(x.device)).float().to(frames.device)


def blur(x: Tensor) -> Tensor:
    """Gaussian means of [F, C, H, W] over the windows that fit: [F, C, H - 10, W - 10]."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = (-0.5 * (offsets / SIGMA).square()).exp()
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, WINDOW)
    return F.conv2d(F.conv2d(x, weights, groups=x.shape[1]), weights.mT, groups=x.shape[1])


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of values [F, H, W] over the mask's pixels: [F], NaN for a frame without any."""
    if mask is None:
        return values.mean((1, 2))
    return torch.where(mask, values, 0).sum((1, 2)) / mask.sum((1, 2))


def sharpness(frames: Tensor) -> Tensor:
    """Mean length of the brightness gradient of frames [F, H, W, 3]: [F]; what blur takes away first."""
    grey = frames.mean(-1)
    across, down = grey[:, :-1, 1:] - grey[:, :-1, :-1], grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return (across.square() + down.square()).sqrt().mean((1, 2))


def flicker(frames: Tensor, truth: Tensor) -> Tensor:
    """How much more than it should a picture changes from one time to the next, seen by a camera that stands still.

    Frames [..., F, H, W, 3] at consecutive times: mean of ``abs(change) - abs(true change)`` where that is above 0, of
    each of the F - 1 changes: [..., F - 1], in units of [0, 1]. 0 for what changes as the truth does, or less.
    """
    if frames.shape != truth.shape or frames.shape[-4] < 2:
        shapes = f"{list(frames.shape)} and {list(truth.shape)}"
        raise ValueError(f"flicker needs two clips of equal shape and at least two frames, got {shapes}")
    change, right = ((clip[..., 1:, :, :, :] - clip[..., :-1, :, :, :]).abs() for clip in (frames, truth))
    return (change - right).clamp_min(0).mean((-3, -2, -1))


def depth_error(depth: Tensor, truth: Tensor) -> Tensor:
    """Mean of abs(a d - t) / t over the pixels known in the truth, a the median of t / d: [F]; NaN where none is.

    Depth [F, H, W], 0 or not finite where unknown; a known pixel that ``depth`` does not know counts as depth 0.
    """
    known = torch.isfinite(truth) & (truth > 0)
    seen = known & torch.isfinite(depth) & (depth > 0)
    ratio = torch.where(seen, truth / depth, torch.nan).flatten(1).nanmedian(1).values[:, None, None]
    error = (torch.where(seen, ratio * depth, 0) - truth).abs() / truth
    return masked_mean(torch.where(known, error, 0), known)


def cover(frames: Tensor, height: int, width: int) -> Tensor:
    """Frames [F, H, W, 3] resized, bilinear, to just cover a size, and cropped to it about the centre."""
    rows, columns = frames.shape[1:3]
    factor = max(height / rows, width / columns)
    size = max(height, int(rows * factor)), max(width, int(columns * factor))
    if size != (rows, columns):
        frames = F.interpolate(frames.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)
        frames = frames.permute(0, 2, 3, 1)
    return centre_crop(frames, height, width)


def centre_crop(frames: Tensor, height: int, width: int) -> Tensor:
    """The central part of frames [F, H, W, 3]."""
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return frames[:, top : top + height, left : left + width]


def compare(
    frames: Tensor, truth: Tensor, visible: Tensor | None = None, perceptual: Perceptual | None = None
) -> dict[str, Tensor]:
    """PSNR, SSIM and, where a network is given, LPIPS or TPIPS of each frame of a clip [F, H, W, 3]: [F] by name.

    A longer truth is cut to the clip's length, a shorter one leaves frames out; another size is made to cover it.
    With ``visible`` [F, H, W] (bool: seen in the first frame) also apart for those pixels and for the ``hole`` pixels.
    """
    count = min(len(frames), len(truth))
    frames, truth = frames[:count], cover(truth[:count], *frames.shape[1:3])
    masks = {"": None} if visible is None else {"": None, "_visible": visible[:count], "_hole": ~visible[:count]}
    scores = {"psnr" + suffix: psnr(frames, truth, mask) for suffix, mask in masks.items()}
    scores |= {"ssim" + suffix: ssim(frames, truth, mask) for suffix, mask in masks.items()}
    if perceptual is not None:
        scores[perceptual.name] = perceptual(frames[None].clamp(0, 1), truth[None], PERCEPTUAL_BATCH)[0]
    return scores

"""What the splat decoder is trained to make small (training.md 3).

Pictures are frames [B, N, H, W, 3]: N renders of each of B scenes over white, not clamped, against the teacher's in
[0, 1]. Every term is computed in float32.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..quality.perceptual import Perceptual
from ..quality.scores import ssim

SPREADS = (1e-3, 1e3)  # least and greatest mean deviation that a depth map is divided by


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms beside the squared error; a term of weight 0 is not computed."""

    perceptual: float = 0.5
    ssim: float = 0.0
    depth: float = 0.05
    opacity: float = 0.0  # 0.1 in the stages that prune


def total_loss(
    pictures: Tensor,
    targets: Tensor,
    depth: Tensor,
    target_depth: Tensor,
    opacities: Tensor,
    weights: LossWeights,
    perceptual: Perceptual | None = None,
    chunk: int = 1,
) -> dict[str, Tensor]:
    """The weighted sum as ``total``, and each term by its name, before its weight.

    Pictures [B, N, H, W, 3], depth [B, N, H, W] (0 = unknown in the target's), activated opacities of the kept
    splats, any shape. ``perceptual`` is LPIPS or TPIPS, in chunks of ``chunk`` views, and lends its term its name.
    """
    pictures, targets = pictures.float(), targets.float()
    terms = {"mse": F.mse_loss(pictures, targets)}
    total = terms["mse"]
    if weights.perceptual:
        if perceptual is None:
            raise ValueError("the perceptual term has a weight but no network; give one, or weight 0")
        terms[perceptual.name] = perceptual(pictures, targets, chunk).mean()
        total = total + weights.perceptual * terms[perceptual.name]
    if weights.ssim:
        terms["ssim"] = ssim_loss(pictures, targets)
        total = total + weights.ssim * terms["ssim"]
    if weights.depth:
        terms["depth"] = depth_loss(depth, target_depth)
        total = total + weights.depth * terms["depth"]
    if weights.opacity:
        terms["opacity"] = opacity_loss(opacities)
        total = total + weights.opacity * terms["opacity"]
    return {"total": total, **terms}


def ssim_loss(pictures: Tensor, targets: Tensor) -> Tensor:
    """(1 - SSIM) / 2 of frames [..., H, W, 3], averaged; population covariance, borders left out."""
    height, width, channels = pictures.shape[-3:]
    pictures, targets = (frames.reshape(-1, height, width, channels) for frames in (pictures, targets))
    return (1 - ssim(pictures, targets, sample_covariance=False).mean()) / 2


def opacity_loss(opacities: Tensor, kind: Literal["sigmoid", "l1"] = "sigmoid") -> Tensor:
    """Mean opacity, pushed through one more sigmoid as in the reference (slope about 0.235), or as it is (``l1``)."""
    opacities = opacities.float()
    return (torch.sigmoid(opacities) if kind == "sigmoid" else opacities).mean()


def sanitise_depth(depth: Tensor) -> Tensor:
    """Depth with 0 wherever it is unknown: not finite, or not positive."""
    return torch.where(torch.isfinite(depth) & (depth > 0), depth, 0)


def depth_loss(depth: Tensor, target: Tensor, median: Literal["masked_zero", "valid_only"] = "masked_zero") -> Tensor:
    """Distance of two depth maps [..., H, W] after each has lost its own shift and scale, per picture.

    The mean of smooth L1 over all pixels. Where the target is unknown (not finite, not positive) nothing is compared.
    A depth that is not finite makes the loss NaN: a mistake upstream, which the optimiser refuses to follow.
    """
    depth, target = depth.float().flatten(-2), sanitise_depth(target.float()).flatten(-2)
    mask = target > 0
    return F.smooth_l1_loss(normalise_depth(depth, mask, median), normalise_depth(target, mask, median))


def normalise_depth(
    depth: Tensor, mask: Tensor, median: Literal["masked_zero", "valid_only"] = "masked_zero"
) -> Tensor:
    """Depth [..., n] minus its median, over its mean deviation, 0 outside the mask [..., n] (bool).

    The lower median over *all* pixels with 0 for the masked ones, as in the reference: once half of a picture is
    unknown the shift is 0. ``valid_only`` takes the median of the known pixels.
    """
    known = depth * mask  # not a selection: NaN outside the mask must show, too
    if median == "masked_zero":
        middle = known.median(-1, keepdim=True).values
    else:
        middle = torch.where(mask, depth, torch.nan).nanmedian(-1, keepdim=True).values.nan_to_num(0)
    centred = (known - middle) * mask
    spread = centred.abs().sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp_min(1)
    return centred / spread.clamp(*SPREADS)

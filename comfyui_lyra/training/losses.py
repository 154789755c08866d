"""What the splat decoder is trained to make small (training.md 3).

Pictures are frames [B, N, H, W, 3]: N renders of each of B scenes over white, not clamped, against the teacher's in
[0, 1]. Every term is computed in float32.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..quality.perceptual import Perceptual

SPREADS = (1e-3, 1e3)  # least and greatest mean deviation that a depth map is divided by


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms beside the squared error; a term of weight 0 is not computed."""

    perceptual: float = 0.5
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
    if weights.depth:
        terms["depth"] = depth_loss(depth, target_depth)
        total = total + weights.depth * terms["depth"]
    if weights.opacity:
        terms["opacity"] = opacity_loss(opacities)
        total = total + weights.opacity * terms["opacity"]
    return {"total": total, **terms}


def opacity_loss(opacities: Tensor) -> Tensor:
    """Mean opacity, pushed through one more sigmoid as in the reference (slope about 0.235)."""
    return torch.sigmoid(opacities.float()).mean()


def sanitise_depth(depth: Tensor) -> Tensor:
    """Depth with 0 wherever it is unknown: not finite, or not positive."""
    return torch.where(torch.isfinite(depth) & (depth > 0), depth, 0)


def depth_loss(depth: Tensor, target: Tensor) -> Tensor:
    """Distance of two depth maps [..., H, W] after each has lost its own shift and scale, per picture.

    The mean of smooth L1 over all pixels. Where the target is unknown (not finite, not positive) nothing is compared.
    A depth that is not finite makes the loss NaN: a mistake upstream, which the optimiser refuses to follow.
    """
    depth, target = depth.float().flatten(-2), sanitise_depth(target.float()).flatten(-2)
    mask = target > 0
    return F.smooth_l1_loss(normalise_depth(depth, mask), normalise_depth(target, mask))


def normalise_depth(depth: Tensor, mask: Tensor) -> Tensor:
    """Depth [..., n] minus its median, over its mean deviation, 0 outside the mask [..., n] (bool).

    The lower median over *all* pixels with 0 for the masked ones, as in the reference: once half of a picture is
    unknown the shift is 0.
    """
    known = depth * mask  # not a selection: NaN outside the mask must show, too
    centred = (known - known.median(-1, keepdim=True).values) * mask
    spread = centred.abs().sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp_min(1)
    return centred / spread.clamp(*SPREADS)

"""From features to Gaussians: the transposed convolution as a matrix product, and the activations."""

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from ..configs import COMPRESSION
from ..splats.gaussians import Gaussians

RAW = 12  # distance 1 | rgb 3 | scale 3 | rotation 4 | opacity 1, as the network emits them
OPACITY = slice(RAW - 1, RAW)
OPACITY_SHIFT = -2.0


def upsample(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution of features [B, T, h, w, D] to [B, 1 + 8 (T - 1), s h, s w, C], channels last.

    ``weight`` [D, C, 9, s, s] and ``bias`` [C] are those of a kernel (9, s, s), stride (8, s, s), padding (4, 0, 0).
    In space nothing overlaps. In time a latent frame t reaches frames 8t - 4 .. 8t + 4, so neighbours meet in one
    frame and everything is one matrix product and one addition.
    """
    taps, steps = weight.shape[2], features.shape[1]
    columns = rearrange(weight, "d c k p q -> d (k c p q)")
    out = rearrange(features @ columns, "b t h w (k n) -> b t k h w n", k=taps)
    # the last tap of latent frame t falls on the first of t + 1
    first = torch.cat((out[:, :1, :1], out[:, 1:, :1] + out[:, :-1, -1:]), 1)
    out = torch.cat((first, out[:, :, 1:-1]), 2)
    out = rearrange(
        out, "b t k h w (c p q) -> b (t k) (h p) (w q) c", c=weight.shape[1], p=weight.shape[3], q=weight.shape[4]
    )
    start = COMPRESSION // 2  # frames before 0, and after the last, are cut off
    return out[:, start : start + COMPRESSION * (steps - 1) + 1] + bias


def opacity(raw: Tensor) -> Tensor:
    """Activated opacity of its raw channel."""
    return torch.sigmoid(raw + OPACITY_SHIFT)


def gaussians(
    raw: Tensor, origins: Tensor, directions: Tensor, *, near: float, far: float, shift: float, cap: float
) -> Gaussians:
    """Gaussians of raw channels [N, 12] along rays (origins, directions [N, 3]); every operation in the dtype of raw.

    The distance is along the unit ray and spans near..far: sigmoid(raw + shift). Scales are capped at ``cap``.
    """
    distance, rgb, scale, rotation, opaque = raw.split([1, 3, 3, 4, 1], -1)
    share = torch.sigmoid(distance + shift)
    depth = near * (1 - share) + far * share
    return Gaussians(
        means=origins + directions * depth,
        scales=torch.exp(scale - (1 - math.log(cap))).clamp(max=cap),
        quats=functional.normalize(rotation, dim=-1, eps=1e-12),
        opacities=opacity(opaque)[..., 0],
        colors=0.5 * torch.tanh(rgb) + 0.5,
    )

"""Bring a new picture's depth to the scale and shape of what the cache already knows (teacher.md 3.3)."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry.geometry import pixel_rays, transform

STEPS = 100
LEARNING_RATE = 1e-3
SMOOTHNESS = 0.1  # weight of the scale map's difference from its 3 x 3 mean


def align_rigid(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Depth [H, W] whose inverse is the line a / depth + b closest to 1 / target [H, W] where ``mask`` [H, W] (bool).

    The line is fitted to pixels strictly between the 10 % and 90 % quantiles of both inverse depths. Where it reaches
    0 there is no depth, 0.
    """
    inverse, inverse_target = 1 / depth, 1 / target
    inside = mask & (target > 0) & (depth > 0)
    for values, known in ((inverse, depth > 0), (inverse_target, mask & (target > 0))):
        if known.any():
            low, high = torch.quantile(values[known], torch.tensor([0.1, 0.9], device=depth.device))
            inside &= (values > low) & (values < high)
    if inside.sum() < 2:
        raise ValueError(
            "depth alignment: the new camera sees almost nothing of the remembered points; use a shorter camera path"
        )
    x = torch.stack([inverse[inside], torch.ones_like(inverse[inside])], 1)
    slope, shift = torch.linalg.lstsq(x, inverse_target[inside][:, None]).solution[:, 0]
    return (1 / (inverse * slope + shift)).nan_to_num(0, 0, 0)


def align(depth: Tensor, target: Tensor, mask: Tensor, K: Tensor, c2w: Tensor) -> Tensor:
    """Align depth [H, W] to target [H, W] where ``mask`` [H, W]: first rigidly, then by a smooth scale a pixel.

    The scale map minimises, by Adam, the mean absolute difference of the points plus its own roughness. Points of one
    pixel differ along its ray, so theirs is the depths' times the mean absolute coordinate of the ray. As in the
    reference w2c turns the rays, where c2w should: absolute coordinates depend on the axes.
    """
    with torch.inference_mode(False), torch.enable_grad():
        rigid, target, mask, K, c2w = (t.clone() for t in (align_rigid(depth, target, mask), target, mask, K, c2w))
        rays = transform(torch.linalg.inv(c2w)[None, :3, :3], pixel_rays(K[None], *depth.shape).unbind(-1))
        weight = mask * torch.cat(rays).abs().mean(0) / mask.sum()
        scale = torch.ones_like(rigid, requires_grad=True)
        optimizer = torch.optim.Adam([scale], lr=LEARNING_RATE)
        for _ in range(STEPS):
            distance = ((scale * rigid - target).abs() * weight).sum()
            roughness = (box_mean(scale) - scale).abs().mean()
            optimizer.zero_grad()
            (distance + SMOOTHNESS * roughness).backward()
            optimizer.step()
        return (rigid * scale).detach()


def box_mean(values: Tensor) -> Tensor:
    """Mean of 3 x 3 windows of [H, W], zeros beyond the border.

    A sum of products, never a TF32 convolution: only the sign of a small difference from it counts.
    """
    height, width = values.shape
    padded = F.pad(values, (1, 1, 1, 1))
    parts = (padded[i : i + height, j : j + width] * (1 / 9) for i in range(3) for j in range(3))
    return reduce(torch.add, parts)

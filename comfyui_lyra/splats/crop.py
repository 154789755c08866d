"""Taking splats away: the faint, the huge, and what lies outside a box or a ball."""

from collections.abc import Sequence

import torch

from .gaussians import Gaussians


def crop(
    gaussians: Gaussians,
    *,
    min_opacity: float = 0.0,
    max_scale: float = 0.0,
    center: Sequence[float] = (0.0, 0.0, 0.0),
    box: Sequence[float] = (0.0, 0.0, 0.0),
    max_distance: float = 0.0,
) -> Gaussians:
    """The splats that pass every test, in their order; 0 switches a test off.

    ``max_scale`` bounds the longest of the three deviations. ``box`` (width, height, depth along x, y, z) and
    ``max_distance`` lie around ``center`` and look at splat centres. Lengths are in scene units.
    Raises ValueError where nothing is left.
    """
    if not 0 <= min_opacity <= 1:
        raise ValueError(f"min_opacity {min_opacity} is an opacity and must lie in 0..1")
    if min(max_scale, max_distance, *box) < 0:
        raise ValueError(
            f"max_scale {max_scale}, box {tuple(box)}, max_distance {max_distance}: sizes cannot be negative"
        )
    offset = gaussians.means - gaussians.means.new_tensor(center)
    keep = gaussians.opacities >= min_opacity
    if max_scale:
        keep &= gaussians.scales.amax(-1) <= max_scale
    for axis, size in enumerate(box):
        if size:
            keep &= offset[:, axis].abs() <= size / 2
    if max_distance:
        keep &= torch.linalg.vector_norm(offset, dim=-1) <= max_distance
    if not keep.any():
        raise ValueError(f"none of {len(gaussians)} splats is left; loosen the opacity, size, box or distance")
    return gaussians[keep]

"""Forward warp: coloured points splatted into other cameras with a soft z-buffer (teacher.md 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry.geometry import transform
from ...shapes import check_shapes
from .occlusion import BoundaryMesh, hidden

PAIR = 2  # consecutive pictures share one depth-weight maximum: GEN3C was trained with this
SHARPNESS = 50.0  # the farthest point of a pair weighs exp(-50) of one at the camera


@dataclass(frozen=True, eq=False, kw_only=True)
class Warped:
    """Pictures as seen from other cameras."""

    image: Tensor  # [I, 3, H, W] in [-1, 1], -1 where nothing landed
    mask: Tensor  # [I, 1, H, W] 1 where something landed
    depth: Tensor  # [I, H, W] along the new camera's z axis, 0 where nothing landed

    def __post_init__(self) -> None:
        check_shapes(self, image="I 3 H W", mask="I 1 H W", depth="I H W")


def forward_warp(
    image: Tensor,
    points: Tensor,
    mask: Tensor,
    w2c: Tensor,
    K: Tensor,
    meshes: Sequence[BoundaryMesh] | None = None,
) -> Warped:
    """Draw I pictures into I cameras; pictures 0 and 1, 2 and 3, ... share their depth-weight maximum.

    image [I, 3, H, W] in [-1, 1], points [I, H, W, 3] in the world, mask [I, 1, H, W] weights (0 drops a point),
    w2c [I, 4, 4], K [I, 3, 3]. What lies behind ``meshes``, one a picture, is removed (foreground masking).
    """
    warped = splat(image, mask[:, 0], *project(points, w2c, K))
    return warped if meshes is None else without(warped, hidden(warped.depth, meshes, w2c, K))


def project(points: Tensor, w2c: Tensor, K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel column, pixel row and depth of world points [I, ..., 3] in each camera; integers are pixel centres."""
    x, y, z = transform(K, transform(w2c, points.unbind(-1)))
    return x / (z + 1e-7), y / (z + 1e-7), z


def splat(image: Tensor, mask: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Warped:
    """Bilinear splats weighted by nearness; image [I, 3, H, W], the others [I, H, W].

    A point on an exact integer adds its four corners to one pixel, hence four times: GEN3C was trained with this.
    """
    pictures, _, height, width = image.shape
    weight = mask * (z > 0) / depth_weight(z)
    values = torch.cat([image.transpose(0, 1), z[None], torch.ones_like(z)[None]])  # [5, I, H, W]
    total = torch.zeros_like(values).flatten(1)  # [5, I * H * W]
    here = torch.arange(z.numel(), device=z.device).view_as(z)  # where points go that miss the picture, with weight 0
    canvas = here[:, :1, :1]
    x, y = x + 1, y + 1  # a border of one pixel around the canvas; the sum's rounding decides what is an integer
    columns = [(edge.clamp(0, width + 1).int(), 1 - (x - edge).abs()) for edge in (x.floor(), x.ceil())]
    rows = [(edge.clamp(0, height + 1).int(), 1 - (y - edge).abs()) for edge in (y.floor(), y.ceil())]
    for row, row_weight in rows:
        for column, column_weight in columns:
            lands = (row >= 1) & (row <= height) & (column >= 1) & (column <= width)
            index = torch.where(lands, canvas + (row - 1) * width + (column - 1), here)
            part = torch.where(lands, row_weight * column_weight * weight, 0)
            add_up(total, index.flatten(), (values * part).flatten(1))
    total = total.view_as(values)
    hit = total[4] > 0
    mean = total[:4] / torch.where(hit, total[4], 1)
    return Warped(
        image=torch.where(hit, mean[:3], -1).clamp(-1, 1).transpose(0, 1),
        mask=hit[:, None].to(image.dtype),
        depth=torch.where(hit, mean[3], 0),
    )


def add_up(total: Tensor, index: Tensor, values: Tensor) -> None:
    """total[:, index] += values, of [C, N], [n] and [C, n]; the same bits every time.

    On a GPU index_add_ adds in the order in which threads arrive; index_put_ sorts first.
    """
    if total.is_cuda:
        total.mT.index_put_((index,), values.mT, accumulate=True)
    else:
        total.index_add_(1, index, values)


def depth_weight(z: Tensor) -> Tensor:
    """Growing weight of depth [I, H, W]: exp(50 log(1 + z) / maximum over the pair of pictures)."""
    log_depth = z.clamp(min=0).log1p()
    highest = F.pad(log_depth.flatten(1).amax(1), (0, len(z) % PAIR)).view(-1, PAIR).amax(1)
    highest = highest.repeat_interleave(PAIR)[: len(z), None, None]
    return (SHARPNESS * log_depth / (highest + 1e-7)).exp() + 1e-7


def without(warped: Warped, hidden: Tensor) -> Warped:
    """Remove pixels [I, H, W]."""
    return Warped(
        image=warped.image.masked_fill(hidden[:, None], -1),
        mask=warped.mask.masked_fill(hidden[:, None], 0),
        depth=warped.depth.masked_fill(hidden, 0),
    )

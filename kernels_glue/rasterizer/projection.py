"""Where each Gaussian falls on a pinhole picture: footprint, depth and the tiles it may be drawn in."""

from dataclasses import dataclass
from math import sqrt
from typing import Literal, get_args

import torch
from torch import Tensor

ALPHA_MIN = 1 / 255  # weaker contributions are not drawn
TILE = 16  # pixels; a Gaussian is drawn only in the tiles its bounding box touches
BLUR = 0.3  # px^2 added to the projected covariance
REACH = 3.33  # bounding boxes end at this many sigmas
FIELD_MARGIN = 0.3  # ewa: the Jacobian is taken at most 30 % of the half field of view outside the picture
UT_ALPHA, UT_BETA, UT_KAPPA = 0.1, 2.0, 0.0  # spread of the sigma points
UT_MARGIN = 0.1  # every sigma point must lie within 10 % of the picture's size around it

Mode = Literal["ut_eval3d", "ewa"]  # 3DGUT, or classic splatting
MODES = get_args(Mode)


@dataclass(frozen=True, eq=False, kw_only=True)
class Footprints:
    """What may be drawn of a splat set in one camera, nearest first.

    A pixel whose centre lies (dx, dy) from the footprint's receives
    ``opacity * exp((a dx^2 + b dx dy + c dy^2) / (1 + d dx + e dy + f dx^2 + g dx dy + h dy^2))``;
    ``rows`` holds x, y, a, b, c, then d..h where the mode has them (1 is the denominator otherwise), then the opacity.
    """

    index: Tensor  # [M] which of the N splats
    depths: Tensor  # [M] camera z
    rows: Tensor  # [M, 6] ewa, [M, 11] ut_eval3d
    tiles: Tensor  # [M, 4] first column, first row, end column, end row of the tiles it may be drawn in
    boxes: Tensor  # [M, 4] the same in pixels, of the part of these tiles where it may reach ALPHA_MIN


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmat: Tensor,
    K: Tensor,
    *,
    width: int,
    height: int,
    near: float,
    far: float,
    mode: Mode,
) -> Footprints:
    """Footprints of N Gaussians in one camera, with the bounding boxes and cut-offs of gsplat 1.5.3.

    Differentiable in means, quats, scales and opacities, but for ``tiles`` and ``boxes``; in ``ut_eval3d`` depths carry
    no gradient either, as in gsplat, where the unscented transform has none.
    """
    camera = viewmat, K.diagonal()[:2], K[:2, 2], torch.tensor([width, height], dtype=means.dtype, device=means.device)
    with torch.no_grad():
        index, tiles, boxes = cull(means, quats, scales, opacities, *camera, near=near, far=far, mode=mode)
    centres, axes = in_camera(means[index], quats[index], viewmat)
    rows, _ = footprint_rows(centres, axes, scales[index], *camera[1:], mode)
    depths = centres[:, 2] if mode == "ewa" else centres[:, 2].detach()
    return Footprints(
        index=index, depths=depths, rows=torch.cat((rows, opacities[index, None]), dim=1), tiles=tiles, boxes=boxes
    )


def cull(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmat: Tensor,
    focal: Tensor,
    principal: Tensor,
    size: Tensor,
    *,
    near: float,
    far: float,
    mode: Mode,
) -> tuple[Tensor, Tensor, Tensor]:
    """Index [M], tiles [M, 4] and boxes [M, 4] of the splats that may be drawn, nearest first."""
    depths = turn(viewmat[:3, :3], means)[:, 2] + viewmat[2, 3]
    index = ((depths >= near) & (depths <= far) & (opacities >= ALPHA_MIN)).nonzero().squeeze(1)
    index = index[depths[index].argsort(stable=True)]
    centres, axes = in_camera(means[index], quats[index], viewmat)
    halves = axes * scales[index, None]
    reach = (2 * (opacities[index] / ALPHA_MIN).log()).clamp_min(0).sqrt()[:, None]  # sigmas at which ALPHA_MIN is left
    rows, covariance = footprint_rows(centres, axes, scales[index], focal, principal, size, mode)
    screen, extent = rows[:, :2], reach
    middle, visible = screen, rows.isfinite().all(1)
    if mode == "ut_eval3d":
        middle, sharp, projects = unscented(centres, halves, focal, principal, size)
        covariance = sharp + BLUR * torch.eye(2).to(halves)
        # here gsplat's tiles, and they alone, count the opacity less by what the blur would take from its peak
        thinned = opacities[index] * (determinant(sharp) / determinant(covariance)).clamp_min(0).sqrt()
        extent = (2 * (thinned / ALPHA_MIN).log()).clamp_min(0).sqrt()[:, None]
        visible &= projects & (thinned >= ALPHA_MIN)
    assert covariance is not None  # both modes have one by now
    sigmas = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    radii = (extent.clamp_max(REACH) * sigmas).ceil()
    visible &= (determinant(covariance) > 0) & (radii > 0).all(1)
    visible &= ((middle + radii > 0) & (middle - radii < size)).all(1)
    low, high = (-reach * sigmas, reach * sigmas) if mode == "ewa" else silhouette(centres, halves, reach, focal)
    slack = 0.01 + 1e-4 * (high - low)  # px, far above rounding: boxes only save work
    grid = (size / TILE).ceil()
    start, end = whole((middle - radii) / TILE, grid), whole(((middle + radii) / TILE).ceil(), grid)
    first, last = (screen + low - slack - 0.5).ceil(), (screen + high + slack + 0.5).floor()
    box_start = torch.maximum(whole(first, size), start * TILE)
    box_end = torch.minimum(whole(last, size), end * TILE)
    shown = visible.nonzero().squeeze(1)
    return index[shown], torch.cat((start, end), dim=1)[shown], torch.cat((box_start, box_end), dim=1)[shown]


def in_camera(means: Tensor, quats: Tensor, viewmat: Tensor) -> tuple[Tensor, Tensor]:
    """Centres [M, 3] and principal axes [M, 3, 3] (columns) in camera coordinates."""
    rotation, shift = viewmat[:3, :3], viewmat[:3, 3]
    return turn(rotation, means) + shift, product(rotation[None], rotation_matrices(quats))


def footprint_rows(
    centres: Tensor, axes: Tensor, scales: Tensor, focal: Tensor, principal: Tensor, size: Tensor, mode: Mode
) -> tuple[Tensor, Tensor | None]:
    """The columns of ``Footprints.rows`` but the opacity, and in ``ewa`` the blurred covariance [M, 2, 2] in px^2."""
    screen = centres[:, :2] / centres[:, 2:] * focal + principal
    if mode == "ut_eval3d":
        return eval3d_rows(screen, centres, axes / scales[:, None], focal), None
    covariance = ewa_covariance(centres, axes * scales[:, None], focal, principal, size)
    return ewa_rows(screen, covariance), covariance


def whole(values: Tensor, highest: Tensor) -> Tensor:
    """Floor to int64 [M, 2], limited to 0..highest [2]; not a number counts as 0."""
    return values.nan_to_num(0).clamp_min(0).floor().minimum(highest).long()


def turn(matrix: Tensor, points: Tensor) -> Tensor:
    """``matrix`` [3, 3] times each of ``points`` [M, 3]; not a matmul, which may run in TF32."""
    return (matrix * points[:, None]).sum(-1)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix products [M, I, J] x [M, J, K]; not a matmul, which may run in TF32."""
    return (left[..., None] * right[:, None]).sum(-2)


def determinant(matrices: Tensor) -> Tensor:
    """Determinants of 2x2 matrices, [M, 2, 2] -> [M]."""
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices of wxyz quaternions of any length, [M, 4] -> [M, 3, 3]."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    entries = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(entries, dim=-1).view(-1, 3, 3)


def ewa_covariance(centres: Tensor, halves: Tensor, focal: Tensor, principal: Tensor, size: Tensor) -> Tensor:
    """Covariance of the projected Gaussian, to first order (Zwicker et al. 2001) and blurred, [M, 2, 2] px^2.

    ``halves`` [M, 3, 3] is a square root of the covariance in camera axes.
    """
    margin = FIELD_MARGIN * size / 2
    lowest, highest = -(principal + margin) / focal, (size - principal + margin) / focal
    slopes = (centres[:, :2] / centres[:, 2:]).maximum(lowest).minimum(highest)
    projected = (halves[:, :2] - slopes[..., None] * halves[:, 2:]) * (focal / centres[:, 2:])[..., None]
    return product(projected, projected.transpose(1, 2)) + BLUR * torch.eye(2).to(halves)


def ewa_rows(screen: Tensor, covariance: Tensor) -> Tensor:
    """x, y, a, b, c of a Gaussian in the picture plane, [M, 5]."""
    scaled = covariance / determinant(covariance)[:, None, None]
    return torch.stack((*screen.unbind(1), -scaled[:, 1, 1] / 2, scaled[:, 0, 1], -scaled[:, 0, 0] / 2), dim=1)


def eval3d_rows(screen: Tensor, centres: Tensor, inverses: Tensor, focal: Tensor) -> Tensor:
    """x, y, a..h such that the exponent is -1/2 of the squared distance between pixel ray and centre, [M, 10].

    Distances are in sigmas: ``inverses`` [M, 3, 3] maps camera axes to the Gaussian's frame (row = camera axis), where
    the centre is m = z w and the ray through pixel (dx, dy) from it points along v = w + dx p + dy q. The squared
    distance is |v x m|^2 / |v|^2, and since v x m = dx (p x m) + dy (q x m) nothing large cancels.
    """
    depth = centres[:, 2:]
    w = (inverses * (centres / depth)[..., None]).sum(1)
    p, q = inverses[:, 0] / focal[0], inverses[:, 1] / focal[1]
    length = w.norm(dim=1, keepdim=True)
    pm, qm = (torch.linalg.cross(side, w / length) * depth for side in (p, q))
    w, p, q = w / length, p / length, q / length

    def dot(left: Tensor, right: Tensor) -> Tensor:
        return (left * right).sum(1)

    above = -dot(pm, pm) / 2, -dot(pm, qm), -dot(qm, qm) / 2
    below = 2 * dot(p, w), 2 * dot(q, w), dot(p, p), 2 * dot(p, q), dot(q, q)
    return torch.stack((*screen.unbind(1), *above, *below), dim=1)


@torch.no_grad()
def unscented(
    centres: Tensor, halves: Tensor, focal: Tensor, principal: Tensor, size: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [M, 2], covariance [M, 2, 2] and validity [M] of the projection by seven sigma points.

    Wan and van der Merwe 2000. Valid is what has all seven in front of the camera and near the picture.
    """
    spread = UT_ALPHA**2 * (3 + UT_KAPPA)
    offsets = sqrt(spread) * halves.transpose(1, 2)  # [M, 3, 3] one row an axis
    points = torch.cat((centres[:, None], centres[:, None] + offsets, centres[:, None] - offsets), dim=1)
    front = points[..., 2:] > 0
    pixels = torch.where(front, points[..., :2] / points[..., 2:] * focal + principal, 0)  # [M, 7, 2]
    near_picture = front & (pixels >= -UT_MARGIN * size) & (pixels < (1 + UT_MARGIN) * size)
    weight = 1 / (2 * spread)  # of the outer six; the centre has the rest
    middle = pixels[:, 0] + weight * (pixels[:, 1:] - pixels[:, :1]).sum(1)
    away = pixels - middle[:, None]
    outer = away[..., None] * away[..., None, :]  # [M, 7, 2, 2]
    centre_weight = 1 - 6 * weight + 1 - UT_ALPHA**2 + UT_BETA
    covariance = centre_weight * outer[:, 0] + weight * outer[:, 1:].sum(1)
    return middle, covariance, near_picture.flatten(1).all(1)


def silhouette(centres: Tensor, halves: Tensor, reach: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """Extent [M, 2] to the left and right of the centre's pixel of the ellipsoid ``reach`` [M, 1] sigmas wide.

    The planes through the eye at slope t from the centre touch it where k t^2 + 2 r^2 s t - r^2 v = 0; an ellipsoid
    that reaches behind the eye (k <= 0) has no bound.
    """
    depth, along = centres[:, 2:], halves[:, 2]
    across = halves[:, :2] - (centres[:, :2] / depth)[..., None] * along[:, None]
    v, s = across.square().sum(-1), (across * along[:, None]).sum(-1)
    k = depth.square() - reach.square() * along.square().sum(-1, keepdim=True)
    root = reach * (v * k + (reach * s).square()).clamp_min(0).sqrt()
    shift = -reach.square() * s
    low, high = (torch.where(k > 0, focal * (shift + sign * root) / k, sign * torch.inf) for sign in (-1, 1))
    return low, high

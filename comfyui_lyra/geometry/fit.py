"""Bringing pictures, their depth and their cameras to the size a model was trained with."""

import logging
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras.path import CameraTrajectory, largest_crop
from .geometry import Geometry
from .pictures import crop_resize

log = logging.getLogger("lyra")

Fit = Literal["crop", "reference"]
FITS = get_args(Fit)

WORTH_SAYING = 0.1  # share of a picture that is cut, or squashed, from which the log says so
REFERENCE_SIZE = (720, 1280)  # height, width to which the reference resizes every input
REFERENCE_HEIGHT = 704  # rows that it keeps of a clip
REFERENCE_BACKGROUND = 1000.0  # depth that it gives to what MoGe masks


def fit(geometry: Geometry, height: int, width: int, how: Fit = "crop") -> Geometry:
    """The geometry for height x width pictures.

    ``crop`` cuts the largest centred part of that shape and resizes it. ``reference`` resizes a picture whatever its
    shape, and a clip to 720 rows for every 704 wanted before it cuts, as the reference programs do.
    """
    if how not in FITS:
        raise ValueError(f"picture fit '{how}' is neither {' nor '.join(map(repr, FITS))}")
    if (geometry.cameras.height, geometry.cameras.width) == (height, width):
        return geometry
    _say_what_changes(geometry.cameras, height, width, how)
    if how == "crop":
        return fit_by_crop(geometry, height, width)
    if len(geometry.frames) == 1:
        return resize_as_reference(geometry, height, width)
    rows = round(height * REFERENCE_SIZE[0] / REFERENCE_HEIGHT)
    return crop_as_reference(resize_as_reference(geometry, rows, width), height, width)


def _say_what_changes(cameras: CameraTrajectory, height: int, width: int, how: Fit) -> None:
    """Warn of much that is cut, or squashed, for pictures of another shape."""
    size = f"pictures of {cameras.width}x{cameras.height} for a model of {width}x{height}"
    rows, columns = largest_crop(cameras.height, cameras.width, height, width)
    kept = rows * columns / (cameras.height * cameras.width)
    if kept > 1 - WORTH_SAYING:
        return
    if how == "reference":
        log.warning("%s: they are squashed by a factor of %.2f", size, 1 / kept)
        return
    sides = "top and bottom" if rows < cameras.height else "left and right"
    log.warning(
        "%s: %.0f %% is cut away, at %s; the middle %dx%d stays. Choose the part yourself by cropping before",
        size, 100 * (1 - kept), sides, columns, rows,
    )  # fmt: skip


def fit_by_crop(geometry: Geometry, height: int, width: int) -> Geometry:
    """Crop and resize; depth averages measured pixels only, so neither background nor holes bleed into its edges."""
    known = geometry.valid & geometry.depth.isfinite()
    layers = torch.stack([torch.where(known, geometry.depth, 0), known.float()], 1)
    layers = torch.cat([geometry.frames.movedim(-1, 1), layers], 1)
    red, green, blue, depth, share = crop_resize(layers, height, width).unbind(1)
    nearest, valid = crop_resize(
        torch.stack([geometry.depth, geometry.valid.float()], 1), height, width, mode="nearest"
    ).unbind(1)
    averaged = (valid > 0) & nearest.isfinite()
    return replace(
        geometry,
        frames=torch.stack([red, green, blue], -1),
        depth=torch.where(averaged, depth / share, nearest),
        valid=valid > 0,
        cameras=geometry.cameras.resized(height, width),
    )


def resize_as_reference(geometry: Geometry, height: int, width: int) -> Geometry:
    """Resize to any shape by plain bilinear samples, the background at depth 1000 and bleeding into its neighbours."""
    depth = geometry.depth.nan_to_num(0, REFERENCE_BACKGROUND)
    layers = torch.cat([geometry.frames.movedim(-1, 1), depth[:, None]], 1)
    layers = F.interpolate(layers, (height, width), mode="bilinear")
    cameras, K = geometry.cameras, geometry.cameras.K.clone()
    K[:, 0] *= width / cameras.width
    K[:, 1] *= height / cameras.height
    return replace(
        geometry,
        frames=layers[:, :3].movedim(1, -1),
        depth=layers[:, 3],
        valid=F.interpolate(geometry.valid[:, None].float(), (height, width), mode="nearest")[:, 0] > 0,
        cameras=replace(cameras, K=K, height=height, width=width),
    )


def crop_as_reference(geometry: Geometry, height: int, width: int) -> Geometry:
    """Cut the centred part of a size, at whole pixels: an odd row or column more is left below and to the right."""
    cameras, K = geometry.cameras, geometry.cameras.K.clone()
    top, left = (cameras.height - height) // 2, (cameras.width - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"no {width}x{height} part of {cameras.width}x{cameras.height} pictures; resize them first")
    K[:, 0, 2] -= left
    K[:, 1, 2] -= top
    part = (slice(None), slice(top, top + height), slice(left, left + width))
    return replace(
        geometry,
        frames=geometry.frames[part],
        depth=geometry.depth[part],
        valid=geometry.valid[part],
        cameras=replace(cameras, K=K, height=height, width=width),
    )


def condition_frame(geometry: Geometry) -> Tensor:
    """The picture [1, 3, 1, H, W] in [-1, 1] that a video starts from."""
    return geometry.frames[:1].permute(0, 3, 1, 2)[:, :, None] * 2 - 1

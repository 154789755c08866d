"""Bringing pictures, their depth and their cameras to the size a model was trained with."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras.path import CameraTrajectory, largest_crop
from .geometry import Fit, Fitting, Geometry
from .pictures import crop_resize

log = logging.getLogger("lyra")

AT_ONCE = 1 << 25  # pixels of frames that are fitted together, in about 50 bytes each
LARGEST_CLIP = 6e9  # bytes of a clip that keeps its own size: 121 frames of 1920x1080 are 4.3e9, of 4K 17e9
WORTH_SAYING = 0.1  # share of a picture that is cut, or squashed, from which the log says so
REFERENCE_SIZE = (720, 1280)  # height, width to which the reference resizes every input
REFERENCE_HEIGHT = 704  # rows that it keeps of a clip
REFERENCE_BACKGROUND = 1000.0  # depth that it gives to what MoGe masks


def meant_for(geometry: Geometry, height: int, width: int, how: Fit = "crop") -> Geometry:
    """The same geometry for height x width pictures, to which ``fit`` will bring it; says what that costs.

    A clip that would take too much memory until then is fitted at once.
    """
    size = sum(t.numel() * t.element_size() for t in (geometry.frames, geometry.depth, geometry.valid))
    if geometry.is_clip and size > max(LARGEST_CLIP, size * height * width / math.prod(geometry.size)):
        log.info("a clip of %.0f GB is brought to %dx%d at once", size / 1e9, width, height)
        return fit(geometry, height, width, how)
    if geometry.size != (height, width):
        _say_what_changes(geometry.cameras, height, width, how)
    return replace(geometry, fitting=Fitting(height, width, how))


def aimed(geometry: Geometry) -> CameraTrajectory:
    """Its cameras at the size that it is meant for, where paths begin."""
    to = geometry.fitting
    return fit_cameras(geometry.cameras, *to.size, to.how, geometry.is_clip) if to else geometry.cameras


def fitted(
    geometry: Geometry, cameras: Sequence[CameraTrajectory], height: int, width: int
) -> tuple[Geometry, tuple[CameraTrajectory, ...]]:
    """A geometry and paths that were made from it, both at a model's size: the one place where that happens."""
    return fit(geometry, height, width), tuple(fit_path(path, geometry, height, width) for path in cameras)


def fit(geometry: Geometry, height: int, width: int, how: Fit | None = None, is_clip: bool | None = None) -> Geometry:
    """The geometry for height x width pictures, ``how`` its ``fitting`` says, or else by ``crop``.

    ``crop`` cuts the largest centred part of that shape and resizes it. ``reference`` resizes a picture whatever its
    shape, and a clip to 720 rows for every 704 wanted before it cuts, as the reference programs do. ``is_clip`` is said
    of frames that are part of one.
    """
    to = Fitting(height, width, how or (geometry.fitting.how if geometry.fitting else "crop"))
    is_clip = geometry.is_clip if is_clip is None else is_clip
    if geometry.size != to.size:
        if geometry.fitting is None or geometry.fitting.size != to.size:  # else it was said when it was set
            _say_what_changes(geometry.cameras, height, width, to.how)
        count = max(1, AT_ONCE // (geometry.size[0] * geometry.size[1]))
        parts = [_fit(geometry[i : i + count], to, is_clip) for i in range(0, len(geometry.frames), count)]
        cameras = fit_cameras(geometry.cameras, height, width, to.how, is_clip)
        geometry = parts[0] if len(parts) == 1 else _joined(parts, cameras)
    return replace(geometry, fitting=None) if geometry.fitting else geometry


def _fit(geometry: Geometry, to: Fitting, is_clip: bool) -> Geometry:
    """Some frames, brought to another size."""
    if to.how == "crop":
        return fit_by_crop(geometry, *to.size)
    if not is_clip:
        return resize_as_reference(geometry, *to.size)
    return crop_as_reference(resize_as_reference(geometry, reference_rows(to.height), to.width), *to.size)


def _joined(parts: Sequence[Geometry], cameras: CameraTrajectory) -> Geometry:
    """The frames of all parts, seen by their cameras."""
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("frames", "depth", "valid")}
    return replace(parts[0], **joined, cameras=cameras)


def fit_cameras(cameras: CameraTrajectory, height: int, width: int, how: Fit, is_clip: bool) -> CameraTrajectory:
    """The cameras of pictures that are brought to another size as ``fit`` does it."""
    if (cameras.height, cameras.width) == (height, width):
        return cameras
    if how == "crop":
        return cameras.resized(height, width)
    if not is_clip:
        return _stretched(cameras, height, width)
    return _cut(_stretched(cameras, reference_rows(height), width), height, width)


def fit_path(path: CameraTrajectory, geometry: Geometry, height: int, width: int) -> CameraTrajectory:
    """A path that was made from a geometry, at its own size or the one it is meant for, for height x width pictures."""
    own, to, size = geometry.cameras, geometry.fitting, (path.height, path.width)
    how, is_clip = to.how if to else "crop", geometry.is_clip
    if size != geometry.size:
        if to is None or size != to.size:
            raise ValueError(
                f"camera path '{path.name}' is of {path.width}x{path.height} pictures, the geometry of {own.width}x"
                f"{own.height}; make the camera paths from this geometry"
            )
        if size == (height, width):
            return path
        unit = replace(own[:1], K=torch.eye(3, dtype=torch.float64)[None])  # its K becomes the way to that size
        back = torch.linalg.inv(fit_cameras(unit, *size, how, is_clip).K)
        path = replace(path, K=(back @ path.K.cpu().double()).to(path.K), height=own.height, width=own.width)
    return fit_cameras(path, height, width, how, is_clip)


def reference_rows(height: int) -> int:
    """Rows to which the reference resizes a clip of which ``height`` stay."""
    return round(height * REFERENCE_SIZE[0] / REFERENCE_HEIGHT)


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
    return replace(
        geometry,
        frames=layers[:, :3].movedim(1, -1),
        depth=layers[:, 3],
        valid=F.interpolate(geometry.valid[:, None].float(), (height, width), mode="nearest")[:, 0] > 0,
        cameras=_stretched(geometry.cameras, height, width),
    )


def _stretched(cameras: CameraTrajectory, height: int, width: int) -> CameraTrajectory:
    """The cameras of pictures resized to any shape."""
    K = cameras.K.clone()
    K[:, 0] *= width / cameras.width
    K[:, 1] *= height / cameras.height
    return replace(cameras, K=K, height=height, width=width)


def _cut(cameras: CameraTrajectory, height: int, width: int) -> CameraTrajectory:
    """The cameras of the centred part of pictures, see ``crop_as_reference``."""
    K = cameras.K.clone()
    K[:, 0, 2] -= (cameras.width - width) // 2
    K[:, 1, 2] -= (cameras.height - height) // 2
    return replace(cameras, K=K, height=height, width=width)


def crop_as_reference(geometry: Geometry, height: int, width: int) -> Geometry:
    """Cut the centred part of a size, at whole pixels: an odd row or column more is left below and to the right."""
    cameras = geometry.cameras
    top, left = (cameras.height - height) // 2, (cameras.width - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"no {width}x{height} part of {cameras.width}x{cameras.height} pictures; resize them first")
    part = (slice(None), slice(top, top + height), slice(left, left + width))
    return replace(
        geometry,
        frames=geometry.frames[part],
        depth=geometry.depth[part],
        valid=geometry.valid[part],
        cameras=_cut(cameras, height, width),
    )


def condition_frame(geometry: Geometry) -> Tensor:
    """The picture [1, 3, 1, H, W] in [-1, 1] that a video starts from."""
    return geometry.frames[:1].permute(0, 3, 1, 2)[:, :, None] * 2 - 1

"""Geometry from what others measure: MoGe, Depth Anything 3, depth pictures, ViPE results.

In all of them depth +inf is background, such as sky; NaN and what is not positive is unknown.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..cameras.path import CameraTrajectory, pinhole_K
from ..files.media.depth_values import FAR, MEANINGS, Meaning, Unit, check_meaning
from ..files.scenes.vipe import load_vipe
from ..geometry.geometry import Geometry, Scale
from ..geometry.pictures import crop_resize

log = logging.getLogger("lyra")

SKY = 0.5  # probability from which Depth Anything's sky counts
POSES = "use one picture, a ViPE folder, Depth Anything 3 in multiview mode, or depth pictures with cameras"
SHAPE_ERROR = 1.02  # difference in aspect ratio up to which a picture and its depth count as of one shape
PANORAMA_WIDTH = 1000  # pixels from which a picture of 2:1 may be a panorama
VIPE_SKY = 1e3  # ViPE's lyra preset never lets the inverse depth fall below 1e-3


def from_moge(frames: Tensor, moge: Mapping[str, Tensor], scale: Scale = "auto") -> Geometry:
    """A picture [1, H, W, 3] with core's MOGE_GEOMETRY: depth [1, H, W], mask, intrinsics for a picture of size 1.

    What the mask excludes is background; without a mask, what is infinite.
    """
    depth = _depth_like(frames, moge["depth"], "MoGe")
    if len(frames) != 1:
        raise ValueError(f"MoGe gives no camera poses, so {len(frames)} frames cannot be placed; {POSES}")
    if "intrinsics" not in moge:
        raise ValueError("this MoGe geometry has no intrinsics (a panorama has none); run MoGe on a plain picture")
    height, width = depth.shape[1:]
    K = moge["intrinsics"].to(depth) * torch.tensor([[width], [height], [1.0]], device=depth.device)
    masked = ~moge["mask"].to(depth.device).bool() if "mask" in moge else depth == torch.inf
    return _assemble(frames, depth, masked, K, _still(depth), "MoGe").normalized(scale)


def from_da3(frames: Tensor, da3: Mapping[str, Tensor], fov: float | None = None, scale: Scale = "auto") -> Geometry:
    """Pictures [F, H, W, 3] with core's DA3_GEOMETRY: depth [F, H, W], of a multiview run also w2c and K; maybe sky.

    A mono run needs ``fov``, the vertical view angle in degrees. K belongs to the smaller picture that the model saw,
    whose centre is the principal point: that gives its size. Sky is background.
    """
    depth = _depth_like(frames, da3["depth"], "Depth Anything 3")
    count, height, width = depth.shape
    if "extrinsics" in da3:
        w2c = torch.eye(4, device=depth.device).repeat(count, 1, 1)
        w2c[:, :3] = da3["extrinsics"][0, :, :3].to(depth)
        K = da3["intrinsics"][0].to(depth)
        if not (w2c.isfinite().all() and K.isfinite().all()):
            raise ValueError("Depth Anything 3 lost the cameras (NaN poses); choose other frames or pose method")
        if torch.equal(K, torch.eye(3, device=depth.device).expand_as(K)):
            raise ValueError(
                "this Depth Anything 3 run estimated no cameras (every K is the identity); use a Small or Base model "
                "in multiview mode on two or more frames"
            )
        size = torch.tensor([width, height], device=depth.device)
        K = K * torch.cat([size / (2 * K[:, :2, 2].median(0).values), size.new_ones(1)])[:, None]
        c2w = torch.linalg.inv(w2c)
    else:
        if count != 1:
            raise ValueError(f"Depth Anything 3 in mono mode gives no poses for {count} frames; {POSES}")
        if fov is None:
            raise ValueError(
                "Depth Anything 3 in mono mode gives no view angle; set fov, in degrees from top to bottom"
            )
        K, c2w = pinhole_K(width, height, fov).to(depth)[None], _still(depth)
    sky = da3["sky"].to(depth) >= SKY if "sky" in da3 else torch.zeros_like(depth, dtype=torch.bool)
    geometry = _assemble(frames, depth, sky, K, c2w, "Depth Anything 3")
    return replace(geometry, metric=False).normalized(scale)


def from_depth(
    frames: Tensor,
    picture: Tensor,
    meaning: Meaning = "depth",
    near: float | None = None,
    far: float | None = None,
    fov: float | None = None,
    cameras: CameraTrajectory | None = None,
    scale: Scale = "auto",
    still: bool = False,
    fps: float = 24.0,
    unit: Unit | None = None,
) -> Geometry:
    """Pictures [F, H, W, 3] with depth pictures [F, H, W].

    ``depth``: values are z-depth, inf (or a renderer's 1e10) is background. ``disparity``: they are 1 / z, 0 or less is
    background. ``near-far``: 1 (white) lies
    at depth ``near``, 0 at ``far``, linear in 1 / z between, as depth estimators draw their pictures. One picture takes
    ``fov`` (vertical, degrees) or ``cameras``; a clip takes ``cameras``, one a frame, or ``fov`` and ``still``: the
    camera did not move, and took ``fps`` frames a second. ``unit`` is what the values are said to be: metres, however
    they were brought to them, or levels. Values that cannot be what is said are refused, see ``check_meaning``.
    """
    values = _depth_like(frames, picture, "the depth picture")
    count, height, width = values.shape
    if meaning not in MEANINGS:
        raise ValueError(f"depth meaning '{meaning}' is none of {', '.join(sorted(MEANINGS))}")
    check_meaning(values, meaning, unit)
    background = torch.zeros_like(values, dtype=torch.bool)
    if meaning == "near-far":
        if near is None or far is None or not 0 < near < far:
            raise ValueError(f"near-far depth needs 0 < near < far, got near {near} and far {far}")
        depth = 1 / (values.clamp(0, 1) * (1 / near - 1 / far) + 1 / far)
    elif meaning == "disparity":
        depth, background = 1 / values, values <= 0
    else:
        depth, background = values, values >= FAR
    if cameras is not None:
        if len(cameras) != count or cameras.width * height != cameras.height * width:
            raise ValueError(
                f"{len(cameras)} cameras of {cameras.width}x{cameras.height} for {count} pictures of {width}x{height}; "
                "expected one a picture, of the same shape"
            )
        cameras = cameras.resized(height, width).to(depth)
        K, c2w = cameras.K, cameras.c2w
    elif count > 1 and not still:
        raise ValueError(
            f"a depth picture holds no camera poses, so {count} frames cannot be placed; {POSES}, or say that the "
            "camera stands still"
        )
    elif fov is None:
        raise ValueError("a depth picture holds no view angle; set fov, in degrees from top to bottom, or give cameras")
    else:
        K, c2w = pinhole_K(width, height, fov).to(depth).repeat(count, 1, 1), _still(depth).repeat(count, 1, 1)
    rate = cameras.fps if cameras is not None else fps
    geometry = _assemble(frames, depth, background, K, c2w, "the depth picture", rate)
    return replace(geometry, metric=meaning == "depth").normalized(scale)


def depth_of_size(depth: Tensor, height: int, width: int, source: str) -> Tensor:
    """Depth pictures [F, h, w] at the size of their pictures [F, height, width], of which they must have the shape."""
    rows, columns = depth.shape[1:]
    if (rows, columns) == (height, width):
        return depth
    if not 1 / SHAPE_ERROR < columns * height / (rows * width) < SHAPE_ERROR:
        raise ValueError(
            f"{source}: depth of {columns}x{rows} for a picture of {width}x{height}; make the depth from this very "
            "picture"
        )
    return crop_resize(depth[:, None], height, width, mode="nearest")[:, 0]


def from_vipe(
    path: Path | str,
    start: int = 0,
    count: int = 121,
    masks: bool = False,
    strict: bool = False,
    scale: Scale = "auto",
) -> Geometry:
    """Frames ``start`` .. ``start + count - 1`` of a ViPE result (folder or its mp4), sky as background."""
    clip = load_vipe(path, start, count, masks, strict)
    sky = clip.depth >= VIPE_SKY  # infinite ones too
    clip = replace(clip, depth=clip.depth.masked_fill(sky, torch.inf), valid=clip.valid & ~sky)
    return clip.normalized(scale)


def _depth_like(frames: Tensor, depth: Tensor, source: str) -> Tensor:
    """Depth as float32 beside the frames; ValueError unless the sizes agree."""
    if frames.ndim != 4 or frames.shape[3] != 3 or depth.shape != frames.shape[:3]:
        if frames.ndim == 4 and depth.ndim == 3 and len(depth) != len(frames):
            raise ValueError(f"{source}: {len(depth)} depth pictures for {len(frames)} frames; expected one a frame")
        raise ValueError(
            f"{source}: depth of shape {tuple(depth.shape)} for pictures {tuple(frames.shape)}; expected [F H W] and "
            "[F H W 3]: compute the depth from these very pictures, or resize it to their size"
        )
    return depth.to(frames.device, torch.float32)


def _still(depth: Tensor) -> Tensor:
    """One camera at the world's origin."""
    return torch.eye(4, device=depth.device)[None]


def _assemble(
    frames: Tensor, depth: Tensor, background: Tensor, K: Tensor, c2w: Tensor, name: str, fps: float = 24.0
) -> Geometry:
    """A geometry in its source's own world; infinite depth is background, what is not positive unknown."""
    _warn_of_panorama(*depth.shape[1:])
    background = background | (depth == torch.inf)
    valid = depth.isfinite() & (depth > 0) & ~background
    return Geometry(
        frames=frames.float(),
        depth=torch.where(valid, depth, torch.where(background, torch.inf, 0.0)),
        valid=valid,
        cameras=CameraTrajectory(c2w=c2w, K=K, height=depth.shape[1], width=depth.shape[2], fps=fps, name=name),
    )


def _warn_of_panorama(height: int, width: int) -> None:
    """Say so if a picture has the size of a panorama."""
    if width >= PANORAMA_WIDTH and abs(width - 2 * height) <= width / 200:
        log.warning(
            "a picture of %dx%d is twice as wide as high, as 360-degree panoramas are; take a plain part of one: "
            "a panorama has no single view angle",
            width,
            height,
        )

"""Cameras of ComfyUI's 3D view (LOAD3D_CAMERA) to ours and back.

The view's world is right-handed with y up, and its cameras look along their own -z (three.js). A turn by 180 degrees
about x leads from there to OpenCV axes and back: (x, y, z) -> (x, -y, -z) for points, and for the camera's own axes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from .path import CameraTrajectory, facing, pinhole_K

TURN = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
FOV = 35.0  # degrees; at which ComfyUI's 3D view opens, and what Render Splat takes where a view gives none


def to_viewer(cameras: CameraTrajectory, frame: int) -> dict[str, Any]:
    """One camera of a path as LOAD3D_CAMERA, its target one unit ahead.

    The lens is written as ``zoom`` on top of the view's own angle: the 3D view heeds zoom and not an angle it is sent,
    Render Splat heeds both. They span the smaller side of the picture. An off-centre principal point is lost.
    """
    if not 0 <= frame < len(cameras):
        raise ValueError(f"frame {frame}: the path '{cameras.name}' has frames 0..{len(cameras) - 1}")
    c2w, K = cameras.c2w[frame].double().cpu(), cameras.K[frame].double().cpu()
    rotation, position = TURN @ c2w[:3, :3] @ TURN, TURN @ c2w[:3, 3]
    side = min((cameras.height, K[1, 1].item()), (cameras.width, K[0, 0].item()))  # (pixels, focal length)
    return {
        "position": _to_dict("xyz", position.tolist()),
        "target": _to_dict("xyz", (position - rotation[:, 2]).tolist()),
        "quaternion": _to_dict("xyzw", Rotation.from_matrix(rotation.numpy()).as_quat().tolist()),
        "fov": FOV,
        "zoom": math.tan(math.radians(FOV) / 2) * side[1] / (side[0] / 2),
        "aspect": cameras.width / cameras.height,
        "cameraType": "perspective",
    }


def from_viewer(info: Mapping[str, Any], width: int, height: int) -> tuple[Tensor, Tensor]:
    """(c2w [4, 4], K [3, 3]) of a LOAD3D_CAMERA for pictures of width x height.

    ``fov`` spans the smaller side and ``zoom`` multiplies the focal length, as in Render Splat. Without a quaternion
    the camera looks from its position to its target with the y axis of the view upwards.
    """
    if not isinstance(info, Mapping) or "position" not in info:
        raise ValueError(
            f"expected a camera of the 3D view with a position, got {type(info).__name__}; move the view once, "
            "or use Create Camera Info"
        )
    if str(info.get("cameraType", "perspective")).lower().startswith("ortho"):
        raise ValueError("the 3D view is orthographic, which has no vantage point; switch it to perspective")
    fov, zoom = float(info.get("fov") or FOV), float(info.get("zoom") or 1)
    if not (0 < fov < 180 and 0 < zoom < math.inf):
        raise ValueError(f"3D view: fov {fov} degrees with zoom {zoom}; fov lies in 0..180 and zoom is positive")
    position = _vector(info, "position", "xyz")
    if info.get("quaternion"):
        quat = _vector(info, "quaternion", "xyzw")
        if not quat.norm() > 0:
            raise ValueError("3D view: its quaternion has length zero, which is no rotation")
        rotation = TURN @ torch.from_numpy(Rotation.from_quat(quat.numpy()).as_matrix()) @ TURN
    else:
        rotation = facing(TURN @ (_vector(info, "target", "xyz") - position)).mT
    c2w = torch.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation, TURN @ position
    K = pinhole_K(width, height, fov)
    K[[0, 1], [0, 1]] *= zoom * min(width, height) / height  # from the vertical angle to that of the smaller side
    return c2w, K


def one_by_one(infos: Iterable[Mapping[str, Any] | Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """LOAD3D_CAMERAs of sockets that bring one each, or a list of several."""
    return [info for given in infos for info in ((given,) if isinstance(given, Mapping) else given)]


def keyframes_from_viewer(
    infos: Sequence[Mapping[str, Any]], width: int, height: int, start: CameraTrajectory | None = None
) -> CameraTrajectory:
    """One path with a frame for each LOAD3D_CAMERA, behind the first camera of ``start`` and in its size, if given."""
    if start is not None:
        width, height = start.width, start.height
    cameras = [(start.c2w[0].float().cpu(), start.K[0].float().cpu())] if start is not None else []
    cameras += [from_viewer(info, width, height) for info in infos]
    if not cameras:
        raise ValueError("no keyframes: connect at least one camera of a 3D view")
    c2w, K = (torch.stack(matrices) for matrices in zip(*cameras, strict=True))
    fps = {"fps": start.fps} if start is not None else {}
    return CameraTrajectory(c2w=c2w, K=K, width=width, height=height, name="keyframes", **fps)


def _to_dict(axes: str, values: Sequence[float]) -> dict[str, float]:
    return dict(zip(axes, values, strict=True))


def _vector(info: Mapping[str, Any], key: str, axes: str) -> Tensor:
    """The numbers of one entry, [3] or [4] float64; ValueError naming the entry if it lacks one."""
    entry = info.get(key, {})
    try:
        vector = torch.tensor([float(entry[axis]) for axis in axes], dtype=torch.float64)
    except (TypeError, KeyError, ValueError):
        vector = torch.tensor([math.nan])
    if not torch.isfinite(vector).all():
        raise ValueError(f"3D view: expected {key} with finite {', '.join(axes)}, got {entry}")
    return vector

"""What the page must know of a scene beside its splats: moments, camera paths, and where one stands at first."""

from collections.abc import Sequence
from typing import Any

import torch

from ..cameras.path import CameraTrajectory, pinhole_camera
from ..splats.gaussians import Gaussians
from ..splats.render import DEFAULT
from ..versions import pack_version

FORMAT = {"format": "lyra-view", "version": 1, "axes": "opencv"}
SIZE, FOV = (1280, 704), 38.0  # of the picture that one sees at first where no camera says


def opening(splats: Gaussians, cameras: Sequence[CameraTrajectory] = ()) -> CameraTrajectory:
    """The one camera from which a scene is seen at first: the paths' first, or one that sees the splats.

    Scenes of this pack lie ahead of the world's origin; in front of others the camera steps back along z.
    """
    if cameras:
        return cameras[0][:1]
    camera = pinhole_camera(*SIZE, FOV)
    if not len(splats):
        return camera
    middle = splats.means.median(0).values.float().cpu()
    radius = float((splats.means.float().cpu() - middle).norm(dim=1).quantile(0.8)) if len(splats) < 2**24 else 1.0
    c2w = camera.c2w.clone()
    if not middle[2] > 0.7 * radius:
        c2w[0, :3, 3] = middle - torch.tensor([0, 0, 2.5 * max(radius, 1e-3)])
    return camera.at(c2w, camera.K)


def focus_of(splats: Gaussians, camera: CameraTrajectory) -> float:
    """How far ahead of a camera the middle of what it sees lies: about what one turns around, in scene units."""
    if not len(splats):
        return 1.0
    depths = (splats.means.float().cpu() - camera.c2w[0, :3, 3]) @ camera.c2w[0, :3, 2]
    ahead = depths[depths > DEFAULT.near]
    return float(ahead.median()) if len(ahead) else 1.0


def describe(
    moments: Sequence[dict[str, Any]],
    cameras: Sequence[CameraTrajectory],
    start: CameraTrajectory,
    *,
    focus: float,
    fps: float,
    title: str,
    background: Sequence[float] = DEFAULT.background,
) -> dict[str, Any]:
    """The page's JSON; a moment is its ``time`` (frame of the clip), its ``splats`` and whatever finds its bytes."""
    return FORMAT | {
        "pack": pack_version(),
        "title": title,
        "fps": fps,
        "near": DEFAULT.near,
        "far": DEFAULT.far,
        "focus": focus,
        "background": list(background),
        "start": _numbers(start),
        "paths": [_numbers(path) for path in cameras],
        "moments": list(moments),
    }


def _numbers(path: CameraTrajectory) -> dict[str, Any]:
    """A path for the page: c2w as its first three rows, K as fx, fy, cx, cy."""
    c2w, K = path.c2w[:, :3].flatten(1).double(), path.K.double()
    lens = torch.stack((K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]), dim=1)
    return {
        "name": path.name,
        "width": path.width,
        "height": path.height,
        "fps": path.fps,
        "c2w": [[round(value, 7) for value in row] for row in c2w.tolist()],
        "K": [[round(value, 4) for value in row] for row in lens.tolist()],
    }

"""Camera trajectories. OpenCV axes: x right, y down, z forward."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..shapes import check_shapes


@dataclass(frozen=True, eq=False, kw_only=True)
class CameraTrajectory:
    """One camera path: a pose and pinhole intrinsics a frame. A path set is a tuple of these."""

    c2w: Tensor  # [F, 4, 4] camera-to-world, float32
    K: Tensor  # [F, 3, 3] pixels of a width x height picture
    height: int
    width: int
    fps: float = 24.0
    name: str = "path"

    def __post_init__(self) -> None:
        check_shapes(self, c2w="F 4 4", K="F 3 3")
        if not len(self):
            raise ValueError(f"camera path '{self.name}' holds no cameras")
        if self.height < 1 or self.width < 1 or not 0 < self.fps < math.inf:
            size = f"{self.width}x{self.height} at {self.fps} fps"
            raise ValueError(f"camera path '{self.name}': {size}; all must be positive and finite")

    def __len__(self) -> int:
        return self.c2w.shape[0]

    @property
    def viewmats(self) -> Tensor:
        """World-to-camera matrices [F, 4, 4]."""
        return torch.linalg.inv(self.c2w)

    def to(self, *args: Any) -> "CameraTrajectory":
        """Move or cast the tensors, as ``Tensor.to``."""
        return replace(self, c2w=self.c2w.to(*args), K=self.K.to(*args))

    def check_finite(self) -> "CameraTrajectory":
        """Return self; raise ValueError naming the first frame that holds NaN or infinity."""
        finite = torch.isfinite(self.c2w).all((1, 2)) & torch.isfinite(self.K).all((1, 2))
        if not finite.all():
            frame = int(finite.int().argmin())
            raise ValueError(f"camera path '{self.name}': frame {frame} of {len(self)} holds NaN or infinity")
        return self

    def __getitem__(self, frames: Tensor | slice) -> "CameraTrajectory":
        """Keep some frames: a slice or an index [M]."""
        return replace(self, c2w=self.c2w[frames], K=self.K[frames])

    def at(self, c2w: Tensor, K: Tensor) -> "CameraTrajectory":
        """A path of the same pictures with other cameras, c2w [F, 4, 4] and K [F, 3, 3]."""
        return replace(self, c2w=c2w, K=K)

    def backwards(self) -> "CameraTrajectory":
        """The path from its last camera to its first."""
        return self[torch.arange(len(self) - 1, -1, -1)]

    def scaled(self, factor: float) -> "CameraTrajectory":
        """The path in a world that is ``factor`` times as large."""
        c2w = self.c2w.clone()
        c2w[:, :3, 3] *= factor
        return replace(self, c2w=c2w)

    def resized(self, height: int, width: int) -> "CameraTrajectory":
        """The cameras of the pictures after ``largest_crop`` about the centre and a resize (decoder.md 2.3 step 3)."""
        crop_height, crop_width = largest_crop(self.height, self.width, height, width)
        sx, sy = width / crop_width, height / crop_height
        K = self.K.clone()
        K[:, 0, 2] -= crop_start(self.width, crop_width)
        K[:, 1, 2] -= crop_start(self.height, crop_height)
        K[:, 0] *= sx
        K[:, 1] *= sy
        return replace(self, K=K, height=height, width=width)


def largest_crop(height: int, width: int, target_height: int, target_width: int) -> tuple[int, int]:
    """(height, width) of the largest part of a picture with the aspect ratio of the target, whole pixels."""
    if min(height, width, target_height, target_width) < 1:
        raise ValueError(f"no {target_width}x{target_height} crop of {width}x{height}: sizes must be positive")
    ratio = min(height / target_height, width / target_width)
    return max(1, int(target_height * ratio)), max(1, int(target_width * ratio))


def crop_start(size: int, part: int) -> int:
    """The first row or column of a central part: a whole number, for pictures and K alike (half a pixel is not cut)."""
    return round((size - part) / 2)


def relative_to(paths: Sequence[CameraTrajectory], origin: Tensor) -> tuple[CameraTrajectory, ...]:
    """Paths in the frame of the camera ``origin`` [4, 4] (c2w): every c2w becomes ``inverse(origin) @ c2w``."""
    if tuple(origin.shape) != (4, 4):
        raise ValueError(f"origin: expected one camera-to-world matrix [4 4], got {tuple(origin.shape)}")
    return tuple(replace(path, c2w=torch.linalg.inv(origin.to(path.c2w)) @ path.c2w) for path in paths)


def pinhole_K(width: int, height: int, fov: float) -> Tensor:
    """Intrinsics [3, 3] of square pixels, centred, with the *vertical* field of view ``fov`` in degrees."""
    if width < 1 or height < 1 or not 0 < fov < 180:
        raise ValueError(
            f"no camera for {width}x{height} at {fov} degrees; sizes are positive, the view angle in 0..180"
        )
    focal = height / 2 / math.tan(math.radians(fov) / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def pinhole_camera(width: int, height: int, fov: float) -> CameraTrajectory:
    """One camera at the world's origin with the *vertical* field of view ``fov`` in degrees."""
    return CameraTrajectory(
        c2w=torch.eye(4)[None], K=pinhole_K(width, height, fov)[None], height=height, width=width, name="camera"
    )


def facing(forward: Tensor) -> Tensor:
    """World-to-camera rotations [..., 3, 3] that look along ``forward`` [..., 3], image-down towards +y.

    Rows are right = y x forward, down = forward x right, forward. Straight up or down, right is +x.
    """
    length = forward.norm(dim=-1, keepdim=True)
    if not (length > 0).all():
        raise ValueError("a camera cannot look at the point where it stands; move the camera or its target")
    forward = forward / length
    y = torch.zeros_like(forward)
    y[..., 1] = 1
    right = torch.linalg.cross(y, forward)
    level = right.norm(dim=-1, keepdim=True)
    right = torch.where(level > 1e-6, right / level, y.roll(-1, -1))  # y rolled back by one axis is +x
    return torch.stack((right, torch.linalg.cross(forward, right), forward), dim=-2)

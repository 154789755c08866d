"""What a picture or a clip shows: frames, depth, validity and the cameras that saw them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .cameras import CameraTrajectory
from .shapes import check_shapes


@dataclass(frozen=True, eq=False, kw_only=True)
class Geometry:
    """Pictures with depth and cameras, F = 1 for a picture. World axes: the camera of frame 0."""

    frames: Tensor  # [F, H, W, 3] in [0, 1]
    depth: Tensor  # [F, H, W] along the camera's z axis
    valid: Tensor  # [F, H, W] bool: where depth is known
    cameras: CameraTrajectory  # F poses and intrinsics for H x W pictures
    scale: float = 1.0  # what depth and translations were divided by; multiply to get the source's unit back

    def __post_init__(self) -> None:
        check_shapes(self, frames="F H W 3", depth="F H W", valid="F H W")
        frames, height, width = self.depth.shape
        if (len(self.cameras), self.cameras.height, self.cameras.width) != (frames, height, width):
            raise ValueError(
                f"Geometry: {frames} frames of {width}x{height}, but {len(self.cameras)} cameras of "
                f"{self.cameras.width}x{self.cameras.height}"
            )
        if self.valid.dtype != torch.bool:
            raise ValueError(f"Geometry.valid: expected bool, got {self.valid.dtype}")

    def to(self, device: torch.device | str) -> "Geometry":
        """Move to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("frames", "depth", "valid", "cameras")}
        return replace(self, **moved)

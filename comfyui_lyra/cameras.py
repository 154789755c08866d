"""Camera trajectories, rays and Pluecker coordinates. OpenCV axes: x right, y down, z forward."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .shapes import check_shapes


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
        if self.height < 1 or self.width < 1 or not self.fps > 0:
            raise ValueError(
                f"camera path '{self.name}': {self.width}x{self.height} at {self.fps} fps; all must be positive"
            )

    def __len__(self) -> int:
        return self.c2w.shape[0]

    @property
    def viewmats(self) -> Tensor:
        """World-to-camera matrices [F, 4, 4]."""
        return torch.linalg.inv(self.c2w)

    def to(self, *args: torch.device | torch.dtype | str) -> "CameraTrajectory":
        """Move or cast the tensors, as ``Tensor.to``."""
        return replace(self, c2w=self.c2w.to(*args), K=self.K.to(*args))

    def __getitem__(self, frames: Tensor | slice) -> "CameraTrajectory":
        """Keep some frames: a slice or an index [M]."""
        return replace(self, c2w=self.c2w[frames], K=self.K[frames])

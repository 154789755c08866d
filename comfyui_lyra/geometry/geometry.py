"""What a picture or a clip shows: frames, depth, validity and the cameras that saw them."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..cameras.path import CameraTrajectory, relative_to
from ..shapes import check_shapes, plural

log = logging.getLogger("lyra")

Scale = Literal["auto", "as_is"]
SCALES = get_args(Scale)
Fit = Literal["crop", "reference"]  # see ``fit.fit``
FITS = get_args(Fit)
MOST_POINTS = 1 << 20  # of a drawing

STILL_SHIFT = 0.02  # camera motion, as a share of the scene's depth, ...
STILL_TURN = 1.0  # ... and in degrees, that a clip from a tripod may show


@dataclass(frozen=True)
class Fitting:
    """The pictures that a geometry is meant for: its paths and previews have this size, it keeps its own itself."""

    height: int  # pixels
    width: int
    how: Fit = "crop"

    def __post_init__(self) -> None:
        if self.how not in FITS:
            raise ValueError(f"picture fit '{self.how}' is neither {' nor '.join(map(repr, FITS))}")
        if min(self.height, self.width) < 1:
            raise ValueError(f"no pictures of {self.width}x{self.height}: sizes must be positive")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


@dataclass(frozen=True, eq=False, kw_only=True)
class Geometry:
    """Pictures with depth and cameras, F = 1 for a picture. World axes: the camera of frame 0, once ``normalized``.

    They keep the size that their source has. What a model takes is made of them once, by ``fit.fitted``.
    """

    frames: Tensor  # [F, H, W, 3] in [0, 1]
    depth: Tensor  # [F, H, W] along the camera's z axis; inf is background, such as sky
    valid: Tensor  # [F, H, W] bool: where depth was measured; of the rest only background is ever drawn
    cameras: CameraTrajectory  # F poses and intrinsics for H x W pictures
    scale: float = 1.0  # what depth and translations were divided by; multiply to get the source's unit back
    metric: bool = True  # whether that unit is the metre, as far as the source knows; else lengths are relative
    fitting: Fitting | None = None  # None: meant for pictures of its own size

    def __post_init__(self) -> None:
        check_shapes(self, frames="F H W 3", depth="F H W", valid="F H W")
        frames, height, width = self.depth.shape
        if (len(self.cameras), self.cameras.height, self.cameras.width) != (frames, height, width):
            raise ValueError(
                f"Geometry: {plural(frames, 'frame')} of {width}x{height}, but "
                f"{plural(len(self.cameras), 'camera')} of {self.cameras.width}x{self.cameras.height}"
            )
        if self.valid.dtype != torch.bool:
            raise ValueError(f"Geometry.valid: expected bool, got {self.valid.dtype}")

    def to(self, device: torch.device | str) -> "Geometry":
        """Move to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("frames", "depth", "valid", "cameras")}
        return replace(self, **moved)

    def __getitem__(self, frames: Tensor | slice) -> "Geometry":
        """Keep some frames, a slice or an index [M]; the world stays."""
        kept = {name: getattr(self, name)[frames] for name in ("frames", "depth", "valid", "cameras")}
        return replace(self, **kept)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its pictures."""
        return self.cameras.height, self.cameras.width

    @property
    def is_clip(self) -> bool:
        """Whether it has several frames."""
        return len(self.frames) > 1

    @property
    def center_depth(self) -> float:
        """Median of frame 0's valid depth."""
        depth = self.depth[0][self.valid[0] & self.depth[0].isfinite()].sort().values
        if not len(depth):
            raise ValueError(
                "geometry: frame 0 has no pixel with a valid depth (finite and above 0); "
                "check the depth source, or start the clip at another frame"
            )
        return float((depth[(len(depth) - 1) // 2] + depth[len(depth) // 2]) / 2)

    def normalized(self, scale: Scale = "auto") -> "Geometry":
        """The world of frame 0's camera; ``auto`` divides depth and translations by frame 0's median depth.

        The camera moves are made for a scene at depth 1; ``as_is`` keeps the source's unit, as the reference does.
        """
        if scale not in SCALES:
            raise ValueError(f"geometry: scale '{scale}' is neither {' nor '.join(map(repr, SCALES))}")
        center = self.center_depth
        divisor = center if scale == "auto" else 1.0
        cameras = relative_to((self.cameras,), self.cameras.c2w[0])[0]
        c2w = cameras.c2w.clone()
        c2w[0] = torch.eye(4).to(c2w)
        _warn_if_moving(c2w, center)
        c2w[:, :3, 3] /= divisor
        return replace(self, depth=self.depth / divisor, cameras=replace(cameras, c2w=c2w), scale=self.scale * divisor)


def _warn_if_moving(c2w: Tensor, depth: float) -> None:
    """Say so if the cameras [F, 4, 4] of a clip leave the first one, at the identity."""
    shift = float(c2w[:, :3, 3].norm(dim=-1).max()) / depth
    cosine = (c2w[:, :3, :3].diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    turn = math.degrees(math.acos(min(1.0, max(-1.0, float(cosine.min())))))
    if shift > STILL_SHIFT or turn > STILL_TURN:
        log.warning(
            "the source camera moves by %.0f %% of the scene's depth and turns by %.1f degrees; the dynamic model was "
            "trained on clips from a still camera, so expect ghosts: prefer a clip from a tripod",
            100 * shift,
            turn,
        )


def transform(matrix: Tensor, points: Sequence[Tensor]) -> list[Tensor]:
    """Matrices [I, 3, 3] or [I, 4, 4] times x, y, z, each [I or 1, ...]; plain sums, whatever a host sets matmul to."""
    x, y, z = points
    m = matrix.view(*matrix.shape, *[1] * (x.ndim - 1))
    rows = [m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] * z for i in range(3)]
    return [row + m[:, i, 3] for i, row in enumerate(rows)] if matrix.shape[1] == 4 else rows


def pixel_rays(K: Tensor, height: int, width: int) -> Tensor:
    """Points [I, H, W, 3] at depth 1 behind each pixel of cameras K [I, 3, 3]; integers are pixel centres."""
    v = torch.arange(height, dtype=K.dtype, device=K.device)[None, :, None].expand(1, height, width)
    u = torch.arange(width, dtype=K.dtype, device=K.device).expand(1, height, width)
    return torch.stack(transform(torch.linalg.inv(K), (u, v, torch.ones_like(u))), -1)


def unproject(depth: Tensor, K: Tensor, c2w: Tensor) -> Tensor:
    """World points [I, H, W, 3] of depth [I, H, W]; where depth is not positive, the origin (teacher.md 3.1)."""
    points = (pixel_rays(K, *depth.shape[1:]) * depth[..., None]).unbind(-1)
    return torch.stack(transform(c2w, points), -1).masked_fill_(~(depth > 0)[..., None], 0)


def point_cloud(geometry: Geometry, most: int = MOST_POINTS) -> tuple[Tensor, Tensor]:
    """World points [N, 3] and colours [N, 3] of what frame 0 measured; of a large picture a grid of at most so many."""
    cameras = geometry.cameras[:1].to(geometry.depth.device)
    every = math.ceil((geometry.depth[0].numel() / most) ** 0.5)
    part = (slice(None, None, every), slice(None, None, every))
    seen = (geometry.valid[0] & geometry.depth[0].isfinite())[part]
    points = unproject(torch.where(geometry.depth[:1].isfinite(), geometry.depth[:1], 0.0), cameras.K, cameras.c2w)
    return points[0][part][seen], geometry.frames[0][part][seen]

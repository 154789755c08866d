"""What can be seen before and while latents are made: the cache along a path, and latents as colours."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..callbacks import OnStep, no_progress
from ..cameras.path import CameraTrajectory
from ..geometry.fit import fit
from ..geometry.geometry import Geometry
from .cache.cache3d import Cache3D

RIDGE = 1e-3  # of the mean square of the latents: a picture of one colour must not make wild weights


def preview_cache(
    geometry: Geometry,
    path: CameraTrajectory,
    every: int = 1,
    foreground_masking: bool = True,
    on_step: OnStep = no_progress,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Every nth frame of what the teacher is shown along a path, [M, H, W, 3] in [0, 1], and where it is, [M, H, W].

    The geometry is brought to the path's size first, and drawn on the device, its own by default.

    Black and 0 where the teacher invents. Frames drawn with other neighbours than in a whole clip differ a little: two
    at a time share the range of their depth weights (teacher.md 5, step 4).
    """
    if len(geometry.frames) not in (1, len(path)):
        raise ValueError(
            f"a clip of {len(geometry.frames)} frames for camera path '{path.name}' of {len(path)}; make the path "
            "from this geometry"
        )
    chosen, size = slice(None, None, every), (path.height, path.width)
    seen = geometry[chosen] if geometry.is_clip else geometry
    if geometry.fitting and geometry.fitting.size == size:
        seen = fit(seen, *size, is_clip=geometry.is_clip)
    drawn = Cache3D.of(seen.to(device or seen.depth.device)).render(path[chosen], foreground_masking, on_step=on_step)
    return (drawn.pixels[:, 0].movedim(1, -1) + 1) / 2, drawn.masks[:, 0, 0]


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentColors:
    """The linear map from latents to colours that fits one known picture best; good for any tokenizer."""

    weights: Tensor  # [C + 1, 3] float64, the last row is the offset

    @classmethod
    def of(cls, latents: Tensor, picture: Tensor) -> "LatentColors":
        """Least squares over the cells of a latent frame [C, h, w] and its picture [H, W, 3] in [0, 1]."""
        cells = with_offset(latents)
        wanted = F.interpolate(picture.cpu().double().permute(2, 0, 1)[None], latents.shape[1:], mode="area")[0]
        products = cells.T @ cells
        ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products), dtype=products.dtype)
        return cls(weights=torch.linalg.solve(products + ridge, cells.T @ wanted.flatten(1).T))

    def __call__(self, latents: Tensor) -> Tensor:
        """Colours [h, w, 3] in [0, 1] of a latent frame [C, h, w], on the CPU."""
        return (with_offset(latents) @ self.weights).unflatten(0, latents.shape[1:]).clamp(0, 1).float()


def with_offset(latents: Tensor) -> Tensor:
    """Cells [h w, C + 1] of a latent frame [C, h, w], a one behind each."""
    return F.pad(latents.detach().cpu().double().flatten(1).T, (0, 1), value=1)

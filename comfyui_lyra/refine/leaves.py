"""Splats as the optimiser moves them: no constraints, every number free."""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from ..cameras.path import CameraTrajectory
from ..splats.gaussians import Gaussians
from .schedule import Rates

LEAST_SCALE = 1e-7  # of a splat in scene units; a flat one has no logarithm
OPAQUE = 1e-4  # how near to 0 and 1 an opacity begins


@dataclass(frozen=True, eq=False, kw_only=True)
class Leaves:
    """The numbers of N splats that gradients flow to; harmonics above band 0 stay as they are."""

    means: Tensor  # [N, 3]
    scales: Tensor  # [N, 3] logarithms
    quats: Tensor  # [N, 4] of any length
    opacities: Tensor  # [N] logits
    colors: Tensor  # [N, 3]
    sh_rest: Tensor | None = None  # [N, K-1, 3]

    @classmethod
    def of(cls, splats: Gaussians) -> "Leaves":
        """Copies of the splats' numbers, which want gradients."""
        found = {
            "means": splats.means,
            "scales": splats.scales.clamp_min(LEAST_SCALE).log(),
            "quats": splats.quats,
            "opacities": splats.opacities.clamp(OPAQUE, 1 - OPAQUE).logit(),
            "colors": splats.colors,
        }
        free = {name: tensor.detach().float().clone().requires_grad_() for name, tensor in found.items()}
        return cls(**free, sh_rest=None if splats.sh_rest is None else splats.sh_rest.detach().clone())

    def splats(self) -> Gaussians:
        """The splats that the numbers stand for, differentiable in them."""
        return Gaussians(
            means=self.means,
            scales=self.scales.exp(),
            quats=F.normalize(self.quats, dim=-1),
            opacities=self.opacities.sigmoid(),
            colors=self.colors,
            sh_rest=self.sh_rest,
        )

    def finished(self) -> Gaussians:
        """The splats that the numbers stand for, without a graph."""
        splats = self.splats()
        return replace(splats, **{name: t.detach() for name, t in vars(splats).items() if t is not None})

    def groups(self, rates: Rates, pixel: float) -> list[dict]:
        """Parameter groups of an optimiser; ``pixel`` is what a pixel covers of the scene, in scene units."""
        units = vars(rates) | {"means": rates.means * pixel}
        return [{"params": [getattr(self, name)], "lr": rate, "first": rate} for name, rate in units.items()]


def pixel_size(splats: Gaussians, camera: CameraTrajectory) -> float:
    """What a pixel covers, in scene units, at the median depth of the splats before the first camera of a path."""
    viewmat = camera.viewmats[0].to(splats.means)
    depth = splats.means @ viewmat[2, :3] + viewmat[2, 3]
    before = depth[depth > 0]
    if not len(before):
        raise ValueError(
            f"refine: no splat lies before camera '{camera.name}'; splats and cameras must be of one world: connect "
            "the cameras that Reconstruct Splats made, or name the cameras.json beside the PLY"
        )
    return float(before.median() / camera.K[0, 0, 0])

"""Gaussians and their sequences: select, prune, scale, turn, concatenate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ...kernels_glue.devices import doubled
from ..shapes import check_shapes
from .harmonics import turned_rest
from .pruning import most_opaque


@dataclass(frozen=True, eq=False, kw_only=True)
class Gaussians:
    """Splats in OpenCV world axes, activated: nothing here is a logit or a logarithm."""

    means: Tensor  # [N, 3]
    scales: Tensor  # [N, 3] standard deviations, linear
    quats: Tensor  # [N, 4] wxyz, unit length
    opacities: Tensor  # [N] in [0, 1]
    colors: Tensor  # [N, 3] RGB, 0..1 in general (files may hold more)
    sh_rest: Tensor | None = None  # [N, K-1, 3] spherical harmonics of bands 1.., when a file brought them

    def __post_init__(self) -> None:
        check_shapes(self, means="N 3", scales="N 3", quats="N 4", opacities="N", colors="N 3", sh_rest="N R 3")
        if self.sh_rest is not None and self.sh_rest.shape[1] not in (3, 8, 15):
            found = self.sh_rest.shape[1]
            raise ValueError(f"Gaussians.sh_rest: {found} coefficients a colour; bands 1..3 have 3, 8 or 15")

    def __len__(self) -> int:
        return self.means.shape[0]

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Gaussians":
        """Apply one function to every tensor."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})

    def to(self, *args: Any) -> "Gaussians":
        """Move or cast every tensor, as ``Tensor.to``."""
        return self._map(lambda tensor: tensor.to(*args))

    def __getitem__(self, rows: Tensor | slice) -> "Gaussians":
        """Keep the rows of a boolean mask [N], an index [M] or a slice."""
        return self._map(lambda tensor: tensor[rows])

    def check_finite(self) -> "Gaussians":
        """Return self; raise ValueError naming the field with NaN, infinity, a zero quaternion or a negative scale."""
        for field in fields(self):
            tensor = getattr(self, field.name)
            if tensor is not None and not torch.isfinite(tensor).all():
                bad = (~torch.isfinite(tensor)).flatten(1 if tensor.ndim > 1 else 0)
                rows = int((bad.any(1) if bad.ndim > 1 else bad).sum())
                raise ValueError(f"Gaussians.{field.name}: {rows} of {len(self)} splats hold NaN or infinity")
        if len(self) and not (self.quats.square().sum(-1) > 0).all():
            raise ValueError("Gaussians.quats: a quaternion of length zero has no rotation; prune such splats")
        if len(self) and not (self.scales >= 0).all():
            raise ValueError("Gaussians.scales: a negative standard deviation; scales are linear here, not logarithms")
        return self

    def scaled(self, factor: float) -> "Gaussians":
        """Scale the world by a positive factor: means and sizes."""
        if not factor > 0:
            raise ValueError(f"scale factor {factor} must be positive")
        return replace(self, means=self.means * factor, scales=self.scales * factor)

    def transformed(self, matrix: Tensor) -> "Gaussians":
        """Move the splats by a rotation, translation and uniform scale, ``matrix`` [4, 4].

        Spherical harmonics turn with them. Raises ValueError for mirrored or sheared matrices.
        """
        if tuple(matrix.shape) != (4, 4):
            raise ValueError(f"splats move by one matrix: expected [4 4], got {tuple(matrix.shape)}")
        matrix = matrix.to(self.means)
        linear = matrix[:3, :3]
        factor = torch.linalg.det(linear).clamp_min(0) ** (1 / 3)
        rotation = linear / factor
        eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
        if not torch.allclose(rotation @ rotation.T, eye, atol=1e-4):
            raise ValueError(
                "splats move by a rotation and a positive uniform scale only; the matrix mirrors or shears"
            )
        turns = not torch.allclose(rotation, eye, atol=1e-5)
        return replace(
            self,
            means=self.means @ linear.T + matrix[:3, 3],
            scales=self.scales * factor,
            quats=turned(self.quats, rotation),
            sh_rest=turned_rest(self.sh_rest, rotation) if self.sh_rest is not None and turns else self.sh_rest,
        )

    def most_opaque(self, keep: float) -> "Gaussians":
        """The ``int(N * keep)`` most opaque splats, most opaque first (decoder.md 3.7).

        ``keep`` is a share in [0, 1]. The released ratio is ``1 - 0.8``, which truncates to one splat fewer than 0.2.
        """
        return self[most_opaque(self.opacities, keep)]


def concatenate(parts: Sequence[Gaussians]) -> Gaussians:
    """One set of splats from several; spherical harmonics are padded with zeros to the highest band present."""
    if not parts:
        raise ValueError("no splats to concatenate")
    bands = max(0 if part.sh_rest is None else part.sh_rest.shape[1] for part in parts)

    def rest(part: Gaussians) -> Tensor:
        found = part.means.new_zeros(len(part), bands, 3)
        if part.sh_rest is not None:
            found[:, : part.sh_rest.shape[1]] = part.sh_rest
        return found

    names = ("means", "scales", "quats", "opacities", "colors")
    return Gaussians(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names},
        sh_rest=torch.cat([rest(part) for part in parts]) if bands else None,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianSequence:
    """One set of Gaussians a bullet time, in one world."""

    frames: tuple[Gaussians, ...]
    times: tuple[int, ...]  # frame indices of the source clip

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.times) or not self.frames:
            raise ValueError(f"GaussianSequence: {len(self.frames)} splat sets for {len(self.times)} times; one each")

    def __len__(self) -> int:
        return len(self.frames)

    def to(self, *args: Any) -> "GaussianSequence":
        """Move or cast every tensor, as ``Tensor.to``."""
        return replace(self, frames=tuple(frame.to(*args) for frame in self.frames))


def turned(quats: Tensor, rotation: Tensor) -> Tensor:
    """Quaternions wxyz [N, 4] that turn by ``quats`` [N, 4] first and by a matrix [3, 3] then."""
    first = Rotation.from_quat(doubled(quats)[:, [1, 2, 3, 0]].cpu().numpy())  # scipy's are xyzw
    both = Rotation.from_matrix(doubled(rotation).cpu().numpy()) * first
    return torch.from_numpy(both.as_quat()[:, [3, 0, 1, 2]]).to(quats)

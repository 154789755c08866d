"""Scenes of simple bodies in a room: what the ray tracer draws and the seeds are turned into (training.md 13.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ...shapes import check_shapes

SHAPES = ("ball",) * 4 + ("box",) * 5 + ("drum",) * 2  # of each place; the last box is the wall
WALL = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Scenes:
    """S scenes in their rooms; N places for objects, of the kinds in SHAPES. Looks count the ground as the last."""

    seeds: tuple[int, ...]
    present: Tensor  # [S, N] bool
    centers: Tensor  # [S, N, 3] at time 0
    turns: Tensor  # [S, N, 3, 3] room from object, at time 0
    sizes: Tensor  # [S, N, 3] half extents
    velocities: Tensor  # [S, N, 3] a clip
    swings: Tensor  # [S, N, 3] of a sine on top
    rates: Tensor  # [S, N] radians of that sine a clip
    spins: Tensor  # [S, N] radians a clip about the vertical
    colors: Tensor  # [S, M, 2, 3] that the pattern mixes, M = N + 1
    waves: Tensor  # [S, M, 3, 3] wave vectors of the pattern, radians a room unit
    phases: Tensor  # [S, M, 3]
    weights: Tensor  # [S, M, 4] of the three sines and of the product of the first two
    ground: Tensor  # [S] its y
    sun: Tensor  # [S, 3] unit, towards it
    sky: Tensor  # [S, 2, 3] colours of horizon and zenith
    room: Tensor  # [S, 3, 3] room from world: a turn times the room's units a world unit; they share the origin

    def __post_init__(self) -> None:
        check_shapes(
            self, present="S N", centers="S N 3", turns="S N 3 3", sizes="S N 3", velocities="S N 3", swings="S N 3",
            rates="S N", spins="S N", colors="S M 2 3", waves="S M 3 3", phases="S M 3", weights="S M 4", ground="S",
            sun="S 3", sky="S 2 3", room="S 3 3",
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: slice | Sequence[int]) -> "Scenes":
        """Some scenes; one may be named several times."""
        rows = range(len(self))[rows] if isinstance(rows, slice) else rows
        return replace(
            self, seeds=tuple(self.seeds[row] for row in rows), **{n: t[list(rows)] for n, t in self._tensors().items()}
        )

    def to(self, device: torch.device | str) -> "Scenes":
        """Move to a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "seeds"}

    def poses(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Centres [S, F, N, 3] and turns [S, F, N, 3, 3] of the objects at times [F], 0 the first frame, 1 the last."""
        t = times.to(self.centers)[:, None, None]  # [F, 1, 1]
        swing = torch.sin(self.rates[:, None, :, None] * t)
        centers = self.centers[:, None] + self.velocities[:, None] * t + self.swings[:, None] * swing
        angle = self.spins[:, None] * t[..., 0]
        turns = (
            about_vertical(angle)[..., None] * self.turns[:, None, :, None]
        )  # no matrix product: see raytrace.turned
        return centers, turns.sum(-2)


def about_vertical(angles: Tensor) -> Tensor:
    """Rotations [..., 3, 3] about the y axis."""
    c, s, zero, one = angles.cos(), angles.sin(), torch.zeros_like(angles), torch.ones_like(angles)
    return torch.stack((c, zero, s, zero, one, zero, -s, zero, c), -1).unflatten(-1, (3, 3))


def join(parts: Sequence[Scenes]) -> Scenes:
    """Several sets of scenes as one."""
    names = [f.name for f in fields(Scenes) if f.name != "seeds"]
    return Scenes(
        seeds=tuple(seed for part in parts for seed in part.seeds),
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names},
    )

"""Rotary position tables of GEN3C: time in seconds, two image axes, in the bfloat16 the network was trained with."""

import torch
from torch import Tensor, nn

Grid = tuple[int, int, int]  # tokens along T, h, w

BASE = 10000.0
STRETCH = (2.0, 1.0, 1.0)  # extrapolation ratio of T, h, w (teacher.md 6.1)
BASE_FPS = 24.0  # one latent frame advances the time angle by BASE_FPS / fps


def axis_angles(grid: Grid, head_dim: int, fps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Angles [T, dT/2], [h, dh/2], [w, dw/2] in radians, float32, of each axis (teacher.md 6.4).

    angle = position * (10000 ratio^(d / (d - 2)))^(-2j/d), every operation rounded to ``dtype``. With bfloat16 the
    result is up to 0.15 rad from the exact one: that is what the released network was trained and is run with.
    """
    side = head_dim // 6 * 2
    angles = []
    for axis, (count, dim, ratio) in enumerate(zip(grid, (head_dim - 2 * side, side, side), STRETCH, strict=True)):
        positions = torch.arange(count, dtype=dtype)
        if axis == 0:
            positions = positions / fps * BASE_FPS
        theta = BASE * ratio ** (dim / (dim - 2))
        frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=dtype) / dim)
        angles.append(torch.outer(positions, frequencies).float())
    return angles[0], angles[1], angles[2]


def grid_angles(grid: Grid, head_dim: int, fps: float, dtype: torch.dtype) -> Tensor:
    """Angles [T h w, head_dim/2] of every token, tokens in (T, h, w) order."""
    t, h, w = axis_angles(grid, head_dim, fps, dtype)
    parts = (t[:, None, None], h[None, :, None], w[None, None])
    return torch.cat([part.expand(*grid, -1) for part in parts], dim=-1).flatten(0, 2)


class RotaryTables(nn.Module):
    """Cosines and sines for the grid last asked for; no parameters, no buffers."""

    def __init__(self, head_dim: int, dtype: torch.dtype):
        super().__init__()
        self.head_dim, self.dtype = head_dim, dtype
        self._key: tuple | None = None
        self._tables: tuple[Tensor, Tensor] | None = None

    def forward(self, grid: Grid, fps: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos, sin [1, T h w, 1, head_dim/2] float32. Angles are made on the CPU: equal on every device."""
        key = (grid, fps, device)
        if self._tables is None or key != self._key:
            with torch.inference_mode(False):  # a table made while sampling must also serve training
                angles = grid_angles(grid, self.head_dim, fps, self.dtype).to(device)[None, :, None]
                self._key, self._tables = key, (angles.cos(), angles.sin())
        return self._tables

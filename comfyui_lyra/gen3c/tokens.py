"""What both networks of GEN3C, the shell's and ComfyUI's, do with tokens; imports nothing heavy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .rope import Grid

ROWS = 8192  # tokens that a token-wise layer takes at a time
TILE = (4, 16)  # h, w of the 64 tokens that sparse attention takes as one block


def by_rows(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function`` of tensors [B or 1, L, ...] in slices of the tokens: same values, bounded temporaries.

    A compiler fuses the temporaries away, so it gets one piece.
    """
    if tensors[0].shape[1] <= ROWS or torch.compiler.is_compiling():
        return function(*tensors)
    slices = zip(*(tensor.split(ROWS, dim=1) for tensor in tensors), strict=True)
    return torch.cat([function(*rows) for rows in slices], dim=1)


def can_tile(grid: Grid) -> bool:
    """Whether the tokens of a frame fall into whole tiles."""
    return not (grid[1] % TILE[0] or grid[2] % TILE[1])


def in_tiles(x: Tensor, grid: Grid) -> Tensor:
    """Tokens [B, T h w, ...] reordered so that each tile's stand one after another."""
    t, h, w = grid
    parts = x.unflatten(1, (t, h // TILE[0], TILE[0], w // TILE[1], TILE[1]))
    return parts.transpose(3, 4).flatten(1, 5)


def in_rows(x: Tensor, grid: Grid) -> Tensor:
    """``in_tiles`` undone."""
    t, h, w = grid
    parts = x.unflatten(1, (t, h // TILE[0], w // TILE[1], *TILE))
    return parts.transpose(3, 4).flatten(1, 5)


def weight_of(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """A norm's weight, wherever a host keeps it: what the norm makes of a constant far above its epsilon."""
    return norm(x.new_full(norm.normalized_shape, 1024.0))

"""SuperSplat's compressed PLY: 16 bytes a splat, quantised inside the bounds of chunks of 256.

Element ``chunk`` holds bounds, ``vertex`` four 32-bit words, ``sh`` (optional) a byte a coefficient. PlayCanvas' engine
is the reference for what the bits mean.
"""

import numpy as np
import torch
from torch import Tensor

from ...splats.gaussians import Gaussians
from .ply_elements import Columns, stack

CHUNK = 256  # splats that share their bounds
WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def unpack_splats(chunk: Columns, vertex: Columns) -> Gaussians:
    """Splats, without their spherical harmonics, from the columns of a compressed file."""
    position, rotation, scale, color = (vertex[word].astype(np.uint32) for word in WORDS)
    rgba = split(color, 8, 8, 8, 8)
    colors = rgba[:, :3]
    if "min_r" in chunk:  # files of 2024 and later quantise colours inside bounds as well
        colors = within(chunk, ("r", "g", "b"), colors)
    return Gaussians(
        means=within(chunk, ("x", "y", "z"), split(position, 11, 10, 11)),
        scales=within(chunk, ("scale_x", "scale_y", "scale_z"), split(scale, 11, 10, 11)).exp(),
        quats=unpack_quats(rotation),
        opacities=rgba[:, 3],
        colors=colors,
    )


def split(words: np.ndarray, *bits: int) -> Tensor:
    """Fields of words [N], highest bits first, each as a share of its largest value: [N, fields]."""
    fields, shift = [], 32
    for width in bits:
        shift -= width
        largest = (1 << width) - 1
        fields.append(((words >> np.uint32(shift)) & np.uint32(largest)).astype(np.float32) / np.float32(largest))
    return torch.from_numpy(np.stack(fields, 1))


def within(chunk: Columns, names: tuple[str, ...], share: Tensor) -> Tensor:
    """Values [N, 3] at ``share`` [N, 3] of the way from ``min_<name>`` to ``max_<name>`` of each splat's chunk."""
    bounds = []
    for side in ("min", "max"):
        columns = [f"{side}_{name}" for name in names]
        if missing := [name for name in columns if name not in chunk]:
            raise ValueError(f"compressed splats whose chunks lack {' '.join(missing)}")
        some = {name: chunk[name][: -(-len(share) // CHUNK)] for name in columns}  # a file may hold many more
        bounds.append(stack(some, columns).repeat_interleave(CHUNK, 0)[: len(share)])
    if len(bounds[0]) < len(share):
        needed, found = -(-len(share) // CHUNK), len(chunk[columns[0]])
        raise ValueError(f"{len(share)} compressed splats need {needed} chunks of {CHUNK}, got {found}")
    return torch.lerp(bounds[0], bounds[1], share)


def unpack_quats(words: np.ndarray) -> Tensor:
    """Unit quaternions wxyz [N, 4]: two bits name the largest component, thirty hold the other three."""
    others = (split(words, 2, 10, 10, 10)[:, 1:] - 0.5) * 2**0.5  # each within +-1/sqrt(2)
    largest = (1 - others.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    which = torch.from_numpy((words >> np.uint32(30)).astype(np.int64))
    order = torch.tensor([[3, 0, 1, 2], [0, 3, 1, 2], [0, 1, 3, 2], [0, 1, 2, 3]])  # 3 stands for the largest
    return torch.cat((others, largest), 1).gather(1, order[which])


def unpack_sh(values: Tensor) -> Tensor:
    """Spherical harmonics, of any shape, from bytes that span -4..4."""
    return values * (8 / 255) - 4

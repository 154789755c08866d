"""Splats as a file takes them: chosen, scaled, and turned so that up is where other programs expect it."""

import torch
from torch import Tensor

from ..files.splats.formats import Up
from .gaussians import Gaussians

ROTATIONS: dict[Up, tuple[tuple[float, ...], ...]] = {  # from ours: x right, y down, z ahead
    "y_down": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "y_up": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),  # x right, y up, z back
    "z_up": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),  # x right, y ahead, z up
}


def rotation(up: Up) -> Tensor:
    """The rotation [3, 3] from our axes to those with ``up``."""
    if up not in ROTATIONS:
        raise ValueError(f"up '{up}' is none of {', '.join(ROTATIONS)}")
    return torch.tensor(ROTATIONS[up], dtype=torch.float32)


def turned(splats: Gaussians, up: Up, *, back: bool = False) -> Gaussians:
    """Splats in axes with ``up``, or ``back`` from there in ours; the same object where nothing turns."""
    if up == "y_down":
        return splats
    matrix = torch.eye(4)
    matrix[:3, :3] = rotation(up).T if back else rotation(up)
    return splats.transformed(matrix)


def prepared(splats: Gaussians, *, scale: float = 1.0, min_opacity: float = 0.0, up: Up = "y_down") -> Gaussians:
    """What a file gets, in float32 on the CPU: the splats of at least ``min_opacity``, scaled and turned.

    Raises ValueError where none is left, and for numbers that are not finite.
    """
    kept = splats.to("cpu").to(torch.float32)
    if min_opacity > 0:
        kept = kept[kept.opacities >= min_opacity]
    if not len(kept):
        raise ValueError(f"no splats to save: of {len(splats)}, none has an opacity of {min_opacity} or more")
    return turned(kept.check_finite().scaled(scale), up)

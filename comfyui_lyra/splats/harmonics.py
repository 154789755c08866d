"""Real spherical harmonics with the Condon-Shortley phase, bands 1 to 3, as 3DGS, glTF and USD have them."""

from functools import cache

import torch
from torch import Tensor

C0 = 0.28209479177387814  # SH band 0, 1 / (2 sqrt(pi))
BANDS = {0: 0, 3: 1, 8: 2, 15: 3}  # coefficients a colour above band 0 -> the highest band


def harmonics(directions: Tensor, count: int) -> Tensor:
    """The first ``count`` (3, 8 or 15) functions of bands 1.., at unit ``directions`` [N, 3]: [count, N]."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    # the numbers are normalisation constants
    basis = [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if count >= 8:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if count >= 15:
        basis += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(basis)


def band_of(rest: Tensor | None) -> int:
    """The highest band of coefficients [N, R, 3]; 0 where there are none."""
    return 0 if rest is None else BANDS[rest.shape[1]]


def turned_rest(rest: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients [N, R, 3] of splats that a ``rotation`` [3, 3] turns: what was seen along d is seen along R d."""
    return torch.einsum("jk,nkc->njc", turning(rest.shape[1], rotation.double().cpu()).to(rest), rest)


def turning(count: int, rotation: Tensor) -> Tensor:
    """The matrix [count, count] that turns coefficients, in float64; bands do not mix.

    It is solved from many directions: ``harmonics`` at d, of the old coefficients, equals that at R d of the new.
    """
    directions = sphere()
    before, after = harmonics(directions, count).T, harmonics(directions @ rotation.T, count).T
    return torch.linalg.lstsq(after, before).solution


@cache
def sphere() -> Tensor:
    """Unit directions [64, 3], spread evenly, in float64."""
    i = torch.arange(64, dtype=torch.float64) + 0.5
    z = 1 - i / 32
    angle = torch.pi * (1 + 5**0.5) * i
    return torch.stack((torch.cos(angle) * (1 - z * z).sqrt(), torch.sin(angle) * (1 - z * z).sqrt(), z), 1)

"""Splats as the viewer page takes them: 16 bytes a splat, and 32 for each chunk of 256 neighbours, deflated.

All numbers are little-endian. A moment, before it is deflated:

    8 words     number of splats (u32), origin x y z (f32), unit (f32), three zeros
    chunks      f32 [C, 8]: lowest x y z and logarithm of the scale, then highest
    bytes       u8 [16, N]: the first bytes of all splats, then the second ones, and so on

The sixteen bytes are four words, lowest bits first: x 15, y 15, largest component of the quaternion 2; z 16, first and
second of its other components 8 each; the third 8, scales 8 each; red, green, blue, opacity 8 each. Positions are
logarithms of the distance from the first camera, ``sign(d) log(1 + |d| / unit)`` along each axis, so that what is near
is kept finely where a chunk reaches far. Errors are half a step of each: 1/65534 of the chunk in x and y, half of that
in z, 0.0028 in a component of the quaternion (1.1 degrees at most), 1.8 % of a scale, 1/510 of a colour or opacity.
Splats that are too faint to be drawn are left out, and so are harmonics above band 0.
"""

import zlib

import numpy as np
import torch
from torch import Tensor

from ...kernels_glue.rasterizer.projection import ALPHA_MIN
from ..splats.gaussians import Gaussians

CHUNK = 256  # splats that share their bounds
SPLAT_BYTES, CHUNK_BYTES = 16, 32
LOG_SCALES = 9.0  # scales below e^-9 of the chunk's largest are taken as that
LEVEL = 6  # of deflate


@torch.inference_mode()
def pack(splats: Gaussians, eye: Tensor) -> bytes:
    """One moment, deflated; ``eye`` [3] is where the first camera stands."""
    splats = splats.to("cpu").to(torch.float32).check_finite()
    splats = splats[splats.opacities >= ALPHA_MIN]
    away = splats.means - eye.to(splats.means)
    unit = float(away.norm(dim=1).median().clamp_min(1e-6)) / 4 if len(splats) else 1.0
    order = along_a_curve(away)
    splats, away = splats[order], away[order]
    contracted = away.sign() * (away.abs() / unit).log1p()
    places, low, high = in_chunks(contracted, contracted)
    sizes = splats.scales.clamp_min(1e-12).log()
    shares, smallest, largest = in_chunks(sizes, sizes.flatten()[:, None], LOG_SCALES)
    bounds = torch.cat((low, smallest, high, largest), dim=1).numpy().astype("<f4")
    header = np.zeros(8, "<u4")
    header[0] = len(splats)
    header[1:5] = np.array([*eye.tolist(), unit], "<f4").view("<u4")
    words = words_of(places, shares, splats)
    planes = np.ascontiguousarray(words.view(np.uint8).reshape(len(splats), SPLAT_BYTES).T)
    return zlib.compress(b"".join((header.tobytes(), bounds.tobytes(), planes.tobytes())), LEVEL)


def along_a_curve(points: Tensor) -> Tensor:
    """Order [N] in which neighbours follow each other: Morton's, over each axis' ranks, whatever lies far out."""
    code = torch.zeros(len(points), dtype=torch.int64)
    for axis, values in enumerate(points.T):
        rank = values.argsort().argsort() * 1024 // max(1, len(points))
        for bit in range(10):
            code |= ((rank >> bit) & 1) << (3 * bit + axis)
    return code.argsort()


def in_chunks(values: Tensor, bounded: Tensor, most: float = float("inf")) -> tuple[Tensor, Tensor, Tensor]:
    """Values [N, 3] as shares of their chunk's range, and the ranges' ends [C, B] for columns of ``bounded``.

    ``bounded`` holds the values as [N, 3], or as [3 N, 1] where all three share a range. None is wider than ``most``.
    """
    rows = CHUNK * len(bounded) // max(1, len(values))
    parts = bounded.split(rows) if len(bounded) else ()
    low = torch.stack([part.amin(0) for part in parts]) if parts else bounded.new_zeros(0, bounded.shape[1])
    high = torch.stack([part.amax(0) for part in parts]) if parts else low
    low = torch.maximum(low, high - most)
    index = torch.arange(len(values)) // CHUNK
    span = (high - low).clamp_min(1e-12)
    return ((values - low[index]) / span[index]).clamp(0, 1), low, high


def words_of(places: Tensor, sizes: Tensor, splats: Gaussians) -> np.ndarray:
    """The four words of each splat, [N, 4]; ``places`` and ``sizes`` [N, 3] are shares of their chunks' ranges."""
    x, y, z = whole(places, (32767, 32767, 65535))
    largest, others = smallest_three(splats.quats)
    first, second, third = whole(others, (255,) * 3)
    scales = whole(sizes, (255,) * 3)
    red, green, blue = whole(splats.colors.clamp(0, 1), (255,) * 3)
    opacity = whole(splats.opacities.clamp(0, 1)[:, None], (255,))[0].maximum(torch.tensor(1))
    words = (
        x | y << 15 | largest << 30,
        z | first << 16 | second << 24,
        third | scales[0] << 8 | scales[1] << 16 | scales[2] << 24,
        red | green << 8 | blue << 16 | opacity << 24,
    )
    return torch.stack(words, dim=1).numpy().astype("<u4")


def whole(shares: Tensor, steps: tuple[int, ...]) -> list[Tensor]:
    """Columns of shares [N, S] as the nearest of so many steps, int64 [N] each."""
    return [(column * count).round().long() for column, count in zip(shares.T, steps, strict=True)]


def smallest_three(quats: Tensor) -> tuple[Tensor, Tensor]:
    """Which component of each quaternion is largest [N], and the others [N, 3] as shares of -1/sqrt(2)..1/sqrt(2)."""
    quats = quats / quats.norm(dim=1, keepdim=True)
    largest = quats.abs().argmax(1)
    quats = quats * quats.gather(1, largest[:, None]).sign()
    others = torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    return largest, (quats.gather(1, others) / 2**0.5 + 0.5).clamp(0, 1)

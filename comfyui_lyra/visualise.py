"""The reference's own pictures of a result: a wave that sweeps through the scene's depth, and coloured depth."""

from collections.abc import Iterator

import torch
from torch import Tensor

HOLD, SWEEP = 24, 25  # frames of the picture as it is, then frames of the wave
WAVE_WIDTH = 0.4  # half width of the wave, in units of depth
NEAR_COLOR, FAR_COLOR = (255.0, 230.0, 200.0), (200.0, 220.0, 255.0)
PERCENTILES = (0.01, 0.99)
MAX_SAMPLE = 2**24  # values that torch.quantile takes


def wave(picture: Tensor, depth: Tensor) -> Iterator[Tensor]:
    """Frames [H, W, 3] of a clip: a picture [H, W, 3] held still, then lit by a wave from near to far.

    ``depth`` [H, W] is the picture's. The light is cos^2 of the distance to the wave's crest, in a colour from warm
    (near) to cold (far). Values in [0, 1] are those of 8 bits, truncated (decoder.md 5.2).
    """
    near, far = depth.min(), depth.max()
    if far - near < 1e-5:
        far = near + 1
    share = ((depth - near) / (far - near))[..., None]
    color = torch.lerp(picture.new_tensor(NEAR_COLOR), picture.new_tensor(FAR_COLOR), share) / 255
    for _ in range(HOLD):
        yield _to_8_bits(picture)
    for step in range(SWEEP):
        crest = near + (far - near) * step / (SWEEP - 1)
        phase = (depth - crest) / WAVE_WIDTH
        light = torch.where(phase.abs() <= 1, torch.cos(torch.pi / 2 * phase).square(), 0)[..., None]
        yield _to_8_bits(picture * (1 - light) + color * light)


def depth_in_jet(depth: Tensor) -> Tensor:
    """Depth [F, H, W] as pictures [F, H, W, 3] in [0, 1], red near to blue far.

    Linear between the nearest and farthest percent of all frames (of every nth value, when there are more than 16
    million), in 8 bits, coloured by OpenCV's JET with red and blue exchanged as the reference shows it.
    """
    sample = depth.flatten().float()
    sample = sample[:: -(-sample.numel() // MAX_SAMPLE)]
    low, high = torch.quantile(sample, sample.new_tensor(PERCENTILES))
    level = ((depth.clamp(low, high) - low) / (high - low).clamp_min(1e-12) * 255).long()
    return jet(depth.device)[level]


def jet(device: torch.device | str = "cpu") -> Tensor:
    """OpenCV's JET map [256, 3] in [0, 1], blue first, by its formula."""
    i = 4 * torch.arange(256, device=device)
    ramps = ((128 + i, 638 - i), (i - 128, 892 - i), (i - 382, 1148 - i))  # rise and fall of blue, green, red
    table = torch.stack([torch.minimum(rise.clamp(0, 255), fall.clamp(0, 255)) for rise, fall in ramps], -1)
    table[159, 0] = 1  # OpenCV's table departs from the formula here
    return table / 255


def _to_8_bits(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).floor() / 255

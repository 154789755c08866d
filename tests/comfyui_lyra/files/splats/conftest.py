"""A scene that cannot be mistaken for its mirror image, or for itself on its head."""

import pytest
import torch
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians

LETTER = ("1111", "1000", "1110", "1000", "1000")  # F, which no turn and no mirror leaves alone
SIDES = {  # our axes (x right, y down, z ahead) -> colour
    (1, 0, 0): (0.9, 0.1, 0.1), (-1, 0, 0): (0.1, 0.9, 0.9), (0, -1, 0): (0.1, 0.9, 0.1),
    (0, 1, 0): (0.9, 0.1, 0.9), (0, 0, 1): (0.1, 0.1, 0.9), (0, 0, -1): (0.9, 0.9, 0.1),
}  # fmt: skip
SPIKE = (0.3, 0.02, 0.02)


@pytest.fixture(scope="session")
def signpost() -> Gaussians:
    """A letter before the camera, and on each side a colour and a spike that points outwards; harmonics of degree 1.

    The spikes are the last six, in the order of SIDES. Along d their harmonics add 0.2 d to red, green and blue.
    """
    dots = [(x, y) for y, row in enumerate(LETTER) for x, on in enumerate(row) if on == "1"]
    letter = [(0.1 * x - 0.2, 0.1 * y - 0.2, 1.0) for x, y in dots]
    sides = torch.tensor(list(SIDES), dtype=torch.float32)
    count = len(letter) + len(sides)
    means = torch.cat((torch.tensor(letter), 2 * sides))
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
    half = 0.5**0.5
    about = {0: (1.0, 0, 0, 0), 1: (half, 0, 0, half), 2: (half, 0, -half, 0)}  # of x: to itself, y, z
    for row, side in enumerate(sides, len(letter)):
        quats[row] = torch.tensor(about[int(side.abs().argmax())])
    rest = torch.zeros(count, 3, 3)
    for color, coefficient in ((0, 2), (1, 0), (2, 1)):  # of x, y, z
        rest[:, coefficient, color] = 0.2 / 0.4886025119029199 * (1 if color == 2 else -1)
    return Gaussians(
        means=means,
        scales=torch.tensor([(0.05, 0.05, 0.05)] * len(letter) + [SPIKE] * len(sides)),
        quats=quats,
        opacities=torch.full((count,), 0.8),
        colors=torch.tensor([(1.0, 1.0, 1.0)] * len(letter) + list(SIDES.values())),
        sh_rest=rest,
    )

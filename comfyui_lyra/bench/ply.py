"""How long two million splats take to write and to read."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from ..cost.timing import measure
from ..files.splats.ply import load_ply, save_ply
from ..splats.gaussians import Gaussians

COUNT = 2_044_415  # what a full-size scene keeps


def rows(device: torch.device, repeats: int = 5) -> Iterator[str]:
    """Seconds to a temporary folder and back."""
    splats = random_splats(COUNT)
    yield f"{COUNT} splats as PLY"
    yield ""
    yield "| what | s |"
    yield "|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "splats.ply")
        yield f"| write | {measure(lambda: save_ply(path, splats), device, repeats)[0]:.2f} |"
        yield f"| read | {measure(lambda: load_ply(path), device, repeats)[0]:.2f} |"


def random_splats(count: int) -> Gaussians:
    """Splats of any size and place, the same ones each time."""
    random = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(count, 3, generator=random),
        scales=torch.rand(count, 3, generator=random) * 0.1,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=random), dim=-1),
        opacities=torch.rand(count, generator=random),
        colors=torch.rand(count, 3, generator=random),
    )

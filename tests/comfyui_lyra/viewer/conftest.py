"""A small scene for the viewer: splats of all shapes, near and far."""

import sys
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians

sys.path.append(str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def splats() -> Gaussians:
    """700 splats, some a hundred times as far as others, of random turns and colours."""
    generator = torch.Generator().manual_seed(3)
    count = 700
    away = torch.randn(count, 3, generator=generator) * torch.logspace(-1, 2, count)[:, None]
    quats = torch.randn(count, 4, generator=generator)
    return Gaussians(
        means=away + torch.tensor([1.0, -2.0, 3.0]),
        scales=torch.rand(count, 3, generator=generator) * 0.2 + 1e-3,
        quats=quats / quats.norm(dim=1, keepdim=True),
        opacities=torch.rand(count, generator=generator) * 0.99 + 0.005,
        colors=torch.rand(count, 3, generator=generator),
    )

import pytest
import torch
from lyra_pack.comfyui_lyra.splats.crop import crop
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians


@pytest.fixture
def row() -> Gaussians:
    """Splats at x = 0, 1, 2, 3, y = -x, z = 5; fainter and larger to the right."""
    steps = torch.arange(4.0)
    scales = torch.full((4, 3), 0.1)
    scales[:, 1] = 0.1 + steps / 10
    return Gaussians(
        means=torch.stack((steps, -steps, torch.full((4,), 5.0)), dim=-1),
        scales=scales,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(4, 1),
        opacities=torch.tensor([0.9, 0.6, 0.3, 0.001]),
        colors=torch.rand(4, 3, generator=torch.Generator().manual_seed(0)),
        sh_rest=torch.arange(36.0).reshape(4, 3, 3),
    )


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"min_opacity": 0.3}, [0, 1, 2]),
        ({"max_scale": 0.25}, [0, 1]),
        ({"center": (2, 0, 0), "box": (2.0, 0.0, 0.0)}, [1, 2, 3]),
        ({"center": (0, -3, 5), "box": (0.0, 2.1, 1.0)}, [2, 3]),
        ({"center": (0, 0, 0), "box": (0.0, 0.0, 10.0)}, [0, 1, 2, 3]),
        ({"center": (1, -1, 5), "max_distance": 1.42}, [0, 1, 2]),
        ({"center": (1, -1, 5), "max_distance": 1.42, "min_opacity": 0.5}, [0, 1]),
    ],
)
def test_each_limit_keeps_its_splats(row, limits, kept):
    left = crop(row, **limits)
    assert torch.equal(left.means, row.means[kept])
    assert torch.equal(left.sh_rest, row.sh_rest[kept])


def test_nothing_left_and_impossible_limits_are_refused(row):
    with pytest.raises(ValueError, match="none of 4 splats is left"):
        crop(row, center=(0, 0, -9), max_distance=1)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1"):
        crop(row, min_opacity=2)
    with pytest.raises(ValueError, match="sizes cannot be negative"):
        crop(row, box=(1, -1, 1))

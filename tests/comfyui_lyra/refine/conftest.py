import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.refine.footage import Picture, Target
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians
from lyra_pack.comfyui_lyra.splats.render import render


@pytest.fixture
def true_splats() -> Gaussians:
    """Ninety round splats about two units before the origin."""
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(90, 3, generator=generator) * torch.tensor([0.7, 0.5, 0.2]) + torch.tensor([0, 0, 2.0]),
        scales=0.08 + 0.05 * torch.rand(90, 3, generator=generator),
        quats=torch.nn.functional.normalize(torch.randn(90, 4, generator=generator), dim=-1),
        opacities=0.3 + 0.6 * torch.rand(90, generator=generator),
        colors=torch.rand(90, 3, generator=generator),
    )


@pytest.fixture
def blurred_splats(true_splats) -> Gaussians:
    """The same as a decoder might make them: paler, larger, a little off."""
    generator = torch.Generator().manual_seed(1)
    return Gaussians(
        means=true_splats.means + 0.02 * torch.randn(90, 3, generator=generator),
        scales=true_splats.scales * 1.3,
        quats=true_splats.quats,
        opacities=true_splats.opacities * 0.8,
        colors=0.5 + 0.6 * (true_splats.colors - 0.5),
    )


@pytest.fixture
def paths() -> tuple[CameraTrajectory, ...]:
    """Two paths of five cameras of 32x24 pixels."""
    return camera_paths(pinhole_camera(32, 24, 50), PathSettings("six_paths", 5))[:2]


@pytest.fixture
def target(true_splats, paths) -> Target:
    """What the true splats show along the paths, and from the first camera exactly."""
    path = paths[0].at(torch.cat([p.c2w for p in paths]), torch.cat([p.K for p in paths]))
    frames = render(true_splats, path).rgb.clamp(0, 1)
    return Target(
        frames=(frames * 255).round().byte(), cameras=path, weights=torch.ones(10),
        picture=Picture(pixels=frames[0], camera=path[:1]),
    )  # fmt: skip

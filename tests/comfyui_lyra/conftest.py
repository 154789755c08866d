"""A whole family of tiny models with random weights, and what they are shown."""

import math
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.files.scenes.sample import save_sample
from lyra_pack.comfyui_lyra.gen3c.dit import GEN3C
from lyra_pack.comfyui_lyra.gen3c.load import Teacher, save_teacher
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry
from lyra_pack.comfyui_lyra.quality.perceptual import CONVOLUTIONS, WIDTHS, load_lpips
from lyra_pack.comfyui_lyra.recon.load import save_recon
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder, save_tokenizer
from lyra_pack.comfyui_lyra.weights import shipped

HEIGHT, WIDTH, FRAMES = 32, 48, 9


def shaken(model: torch.nn.Module, seed: int, std: float) -> torch.nn.Module:
    """Weights that matter everywhere, also those that start at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += std * torch.randn(weight.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="session")
def small_teacher() -> Teacher:
    """Two blocks of width 32 for clips of 9 frames of 32x48."""
    config = TeacherConfig(
        family="small", trained_size=(HEIGHT, WIDTH), trained_frames=FRAMES, heads=2, head_dim=16, blocks=2,
        adaln_rank=8, text_dim=12, text_rows=5, max_grid=(8, 16, 16), bf16_angles=False,
    )  # fmt: skip
    torch.manual_seed(0)
    network = shaken(GEN3C(config), 0, 0.05)
    return Teacher(network=network, config=config, fingerprint="random", dtype=torch.float32)


@pytest.fixture(scope="session")
def small_tokenizer() -> CosmosTokenizer:
    """A tokenizer of 16 channels with statistics of two latent frames."""
    config = TokenizerConfig(family="small", channels=8, multipliers=(1, 2, 2), layers=1)
    torch.manual_seed(1)
    autoencoder = shaken(build_autoencoder(config), 1, 0.05)
    generator = torch.Generator().manual_seed(2)
    mean = 0.1 * torch.randn(16, 2, generator=generator)
    return CosmosTokenizer(config, autoencoder, mean, torch.rand(16, 2, generator=generator) + 0.5)


@pytest.fixture(scope="session")
def small_recon() -> Recon:
    """A dynamic splat decoder of two blocks."""
    config = ReconConfig(
        family="small", dynamic=True, trained_size=(HEIGHT, WIDTH), trained_frames=FRAMES, width=32, blocks=2,
        attention_every=2, heads=2, head_size=16, state=8, keep=0.3,
    )  # fmt: skip
    torch.manual_seed(2)
    return shaken(Recon(config), 2, 0.05)


def geometry_of(frames: int) -> Geometry:
    """A near box that moves to the right before a far wall, with sky above."""
    depth = torch.full((frames, HEIGHT, WIDTH), 2.0)
    for frame in range(frames):
        depth[frame, 12:24, 14 + frame : 30 + frame] = 1.0
    depth[:, :5] = torch.inf
    camera = pinhole_camera(WIDTH, HEIGHT, 50)
    return Geometry(
        frames=torch.rand(frames, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(3)),
        depth=depth,
        valid=depth.isfinite(),
        cameras=replace(camera, c2w=camera.c2w.repeat(frames, 1, 1), K=camera.K.repeat(frames, 1, 1), name="source"),
        scale=2.5,
    )


@pytest.fixture
def picture() -> Geometry:
    """One picture with depth."""
    return geometry_of(1)


@pytest.fixture
def clip() -> Geometry:
    """A clip of the trained length with depth."""
    return geometry_of(FRAMES)


@pytest.fixture
def two_moves(picture) -> tuple[CameraTrajectory, ...]:
    """The first two of the six paths around the picture's camera."""
    return camera_paths(picture.cameras, PathSettings("six_paths", FRAMES))[:2]


@pytest.fixture
def cloud() -> Gaussians:
    """Eighty grey splats at about the depth of the picture's wall: something that refining can improve."""
    generator = torch.Generator().manual_seed(6)
    return Gaussians(
        means=torch.randn(80, 3, generator=generator) * torch.tensor([0.4, 0.3, 0.1]) + torch.tensor([0, 0, 1.0]),
        scales=torch.full((80, 3), 0.08),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(80, 1),
        opacities=torch.full((80,), 0.5),
        colors=torch.full((80, 3), 0.5),
    )


@pytest.fixture
def mini(tmp_path, monkeypatch, small_teacher, small_tokenizer, small_recon, picture, clip):
    """A folder as the shipped one."""
    folder = tmp_path / "mini"
    monkeypatch.setattr(shipped, "MINI", folder)
    static = Recon(replace(small_recon.config, dynamic=False))
    static.load_state_dict(small_recon.state_dict())
    save_teacher(small_teacher, folder / "mini_teacher.safetensors")
    save_tokenizer(small_tokenizer, folder / "mini_tokenizer.safetensors")
    save_recon(static, folder / "mini_recon_static.safetensors")
    save_recon(small_recon, folder / "mini_recon_dynamic.safetensors")
    save_sample(folder, picture)
    save_sample(folder, clip)
    return folder


def wave(shape, rate: float, phase: float) -> torch.Tensor:
    """sin(rate * i + phase) over the flat index i, in float64."""
    return torch.sin(rate * torch.arange(math.prod(shape), dtype=torch.float64) + phase).view(shape)


def formula_vgg() -> dict[str, torch.Tensor]:
    """VGG16 as torchvision names it, with the weights of losses.json: vgg_formula, and a classifier to pass over."""
    state, channels, number = {"classifier.0.weight": torch.zeros(4, 4)}, 3, 0
    order = [width for width, count in zip(WIDTHS, CONVOLUTIONS, strict=True) for _ in range(count)]
    places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    for width, place in zip(order, places, strict=True):
        scale = math.sqrt(6 / (9 * channels))
        weight = scale * wave((width, channels, 3, 3), 0.7 + 0.013 * number, 0.3 * number)
        state[f"features.{place}.weight"] = weight.float()
        state[f"features.{place}.bias"] = (0.05 * wave((width,), 0.31, 0.2 * number)).float()
        channels, number = width, number + 1
    return state


def formula_heads() -> dict[str, torch.Tensor]:
    """The heads of losses.json: vgg_formula, as the lpips package names them."""
    return {
        f"lin{k}.model.1.weight": ((0.05 * wave((1, width, 1, 1), 0.9, 0.5 * k)).abs() + 0.01).float()
        for k, width in enumerate(WIDTHS)
    }


@pytest.fixture(scope="session")
def lpips_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpips")
    torch.save(formula_vgg(), folder / "vgg16.pth")
    torch.save(formula_heads(), folder / "vgg.pth")
    return folder / "vgg16.pth", folder / "vgg.pth"


@pytest.fixture(scope="session")
def lpips(lpips_files):
    return load_lpips(*lpips_files)

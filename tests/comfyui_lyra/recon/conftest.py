import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory
from lyra_pack.comfyui_lyra.configs import ReconConfig
from lyra_pack.comfyui_lyra.recon.inputs import ReconInputs
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.weights.load import load_weights


@pytest.fixture
def tiny() -> ReconConfig:
    """Two Mamba blocks around one of attention, for clips of 9 frames of 32x48."""
    return ReconConfig(
        dynamic=True, trained_size=(32, 48), trained_frames=9, width=16, blocks=3, attention_every=2, heads=2,
        head_size=8, state=8, latent_channels=4, keep=0.3,
    )  # fmt: skip


@pytest.fixture
def tiny_model(tiny) -> Recon:
    return random_model(tiny)


@pytest.fixture(name="random_model")
def random_model_fixture():
    return random_model


def random_model(config: ReconConfig) -> Recon:
    """Seeded weights that matter everywhere, also in the branches that start at zero."""
    model, gen = Recon(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            center = 1.0 if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "D", "A_log")) else 0.0
            weight.copy_(center + 0.2 * torch.randn(weight.shape, generator=gen))
    return model.eval()


class PoolTokenizer:
    """A tokenizer that averages: blocks of 8x8 pixels, the first frame alone and then 8 at a time."""

    family, identity = "lyra", "pool"
    latent_channels, time_compression, space_compression = 4, 8, 8

    def __init__(self):
        self.mean, self.std = torch.linspace(-1, 1, 12).view(4, 3), torch.linspace(1, 2, 12).view(4, 3)
        self.encodes = 0

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        self.encodes += 1
        cells = torch.nn.functional.avg_pool3d(video.float(), (1, 8, 8))
        later = cells[:, :, 1:].unflatten(2, (-1, 8)).mean(3)
        cells = torch.cat((cells[:, :, :1], later), 2)
        return torch.cat((cells, cells.mean(1, keepdim=True)), 1).to(video.dtype)

    def decode(self, latents: torch.Tensor, at_once: int = 2) -> torch.Tensor:
        frames = torch.cat((latents[:, :3, :1], latents[:, :3, 1:].repeat_interleave(8, 2)), 2)
        return torch.nn.functional.interpolate(frames, scale_factor=(1, 8, 8))


@pytest.fixture
def pool() -> PoolTokenizer:
    return PoolTokenizer()


@pytest.fixture
def two_paths() -> tuple[CameraTrajectory, ...]:
    """Two paths of 9 frames of 32x48 that start apart, turned and far from the origin."""
    gen, paths = torch.Generator().manual_seed(0), []
    for name in ("left", "clockwise"):
        skew = 0.2 * torch.randn(9, 3, 3, generator=gen)
        c2w = torch.eye(4).repeat(9, 1, 1)
        c2w[:, :3, :3] = torch.linalg.matrix_exp(skew - skew.mT)
        c2w[:, :3, 3] = 3 + torch.randn(9, 3, generator=gen)
        K = torch.tensor([[40.0, 0, 24], [0, 41, 16], [0, 0, 1]]).repeat(9, 1, 1)
        paths.append(CameraTrajectory(c2w=c2w, K=K, height=32, width=48, name=name))
    return tuple(paths)


@pytest.fixture
def random_inputs():
    def make(config: ReconConfig, views: int, batch: int = 1) -> ReconInputs:
        gen = torch.Generator().manual_seed(views)
        (height, width), channels = config.trained_size, config.latent_channels
        frames = (config.trained_frames - 1) // 8 + 1
        cells, step = (height // 8, width // 8), config.pixels_per_splat

        def normal(*shape):
            return torch.randn(*shape, generator=gen)

        directions = normal(batch, views, config.trained_frames, 3, height // step, width // step)
        return ReconInputs(
            latents=normal(batch, views, channels, frames, *cells),
            plucker=normal(batch, views, 2 * channels, frames, *cells),
            origins=normal(batch, views, config.trained_frames, 3),
            directions=torch.nn.functional.normalize(directions, dim=3),
            time_source=normal(1, channels, frames, *cells),
            time_target=normal(batch, channels, 1, *cells),
        )

    return make


@pytest.fixture
def load():
    """Fill a module, built on meta, with the weights that a golden holds under the reference's names."""

    def fill(build, golden):
        with torch.device("meta"):
            module = build()
        state = {key.removeprefix("w."): golden[key] for key in golden if key.startswith("w.")}
        return load_weights(module, state, (), golden.name).requires_grad_(False)

    return fill


@pytest.fixture
def columns():
    """Gaussians as the reference's rows: xyz, opacity, scale, rotation, rgb."""

    def join(gaussians):
        parts = gaussians.means, gaussians.opacities[:, None], gaussians.scales, gaussians.quats, gaussians.colors
        return torch.cat(parts, -1)

    return join

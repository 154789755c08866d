import gc
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("comfy_api")

from comfy.ldm.cosmos.vae import CausalContinuousVideoTokenizer  # noqa: E402
from lyra_pack.comfyui_lyra.configs import TokenizerConfig  # noqa: E402
from lyra_pack.nodes.comfy import tokenizers  # noqa: E402
from lyra_pack.nodes.comfy.tokenizers import encoded_by, from_core, tokenizer_of  # noqa: E402


@pytest.fixture(scope="module")
def core() -> CausalContinuousVideoTokenizer:
    """ComfyUI's Cosmos network, narrow, with random weights and statistics."""
    torch.manual_seed(0)
    network = CausalContinuousVideoTokenizer(
        z_channels=16, z_factor=1, latent_channels=16, resolution=1024, in_channels=3, out_channels=3, channels=8,
        channels_mult=[2, 4, 4], num_res_blocks=2, attn_resolutions=[32], dropout=0.0, patch_size=4, num_groups=1,
        temporal_compression=8, spacial_compression=8,
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1)
            if "norm" in name and name.endswith("weight"):
                weight.fill_(1)
        network.latent_mean.copy_(torch.randn(256))
        network.latent_std.copy_(torch.rand(256) + 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def ours(core):
    return from_core(core, TokenizerConfig(channels=8))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * max(1.0, expected.abs().max().item()))


@torch.inference_mode()
def test_cores_network_and_ours_are_one(core, ours):
    video = torch.rand(1, 3, 17, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    normalised = core.encode(video)
    mean, std = (value.view(16, 16)[:, :3, None, None] for value in (core.latent_mean, core.latent_std))
    raw = ours.encode(video)
    assert raw.var(dim=(2, 3, 4)).min() > 1e-3  # the video shows
    close((raw - mean) / std * 0.5, normalised)
    close(ours.decode(raw), core.decode(normalised))
    assert torch.equal(ours.mean, core.latent_mean.view(16, 16)) and torch.equal(ours.std, core.latent_std.view(16, 16))


@torch.inference_mode()
def test_pluecker_videos_are_not_clipped(ours):
    video = 5 * torch.randn(1, 3, 9, 16, 16, generator=torch.Generator().manual_seed(2))
    assert (ours.encode(video) - ours.encode(video.clamp(-1, 1))).abs().max() > 0.1


def vae(core) -> SimpleNamespace:
    """What our nodes see of a VAE object, whose own constructor knows the full size only."""
    return SimpleNamespace(first_stage_model=core, vae_dtype=torch.float32)


def test_a_vae_becomes_one_tokenizer_for_as_long_as_it_lives(core, monkeypatch):
    monkeypatch.setattr(tokenizers, "TOKENIZER_PRESETS", {"lyra": TokenizerConfig(channels=8)})
    model = tokenizer_of(vae(core))
    assert tokenizer_of(vae(core)) is model and tokenizer_of(model) is model
    assert model.network.family == model.config.family == "lyra"
    assert encoded_by(model) is encoded_by(model)
    shared = {weight.data_ptr() for weight in core.parameters()}
    assert all(weight.data_ptr() in shared for weight in model.network.parameters())  # no second copy in RAM
    held = len(tokenizers._encoded)
    tokenizers._of_vae.clear()
    del model
    gc.collect()
    assert len(tokenizers._encoded) == held - 1


def test_another_vae_is_refused_by_name():
    with pytest.raises(ValueError, match="this VAE is Linear; .* choose cosmos_cv8x8x8_1.0.safetensors in Load VAE"):
        tokenizer_of(SimpleNamespace(first_stage_model=torch.nn.Linear(1, 1)))

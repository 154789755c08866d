"""Clips through the tokenizer together, with gradients."""

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TokenizerConfig
from lyra_pack.comfyui_lyra.tokenizer.clips import decode_clip, encode_clip
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder
from lyra_pack.comfyui_lyra.training.data.clips import decode_clips, encode_clips, to_frames, to_latents, to_video

CONFIG = TokenizerConfig(family="mini", channels=8, multipliers=(1, 2, 2), layers=1, latent_channels=4)


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    mean, std = torch.randn(4, 3), torch.rand(4, 3) + 0.5
    return CosmosTokenizer(CONFIG, build_autoencoder(CONFIG), mean, std)


@pytest.fixture
def video():
    return torch.randn(3, 3, 17, 16, 24, generator=torch.Generator().manual_seed(1))


def test_clips_together_are_what_diffusers_makes_of_each(tokenizer, video):
    raw = encode_clips(tokenizer.autoencoder, video)
    torch.testing.assert_close(raw, tokenizer.autoencoder.encode(video).latent_dist.mode(), rtol=1e-4, atol=1e-5)
    found = decode_clips(tokenizer.autoencoder, raw)
    torch.testing.assert_close(found, tokenizer.autoencoder.decode(raw).sample, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_diffusers(tokenizer, video):
    autoencoder = tokenizer.autoencoder

    def gradients(encode, decode):
        autoencoder.zero_grad()
        decode(encode(video)).square().mean().backward()
        return {name: weight.grad.clone() for name, weight in autoencoder.named_parameters()}

    ours = gradients(lambda x: encode_clips(autoencoder, x), lambda z: decode_clips(autoencoder, z))
    theirs = gradients(lambda x: autoencoder.encode(x).latent_dist.mode(), lambda z: autoencoder.decode(z).sample)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-3, atol=1e-5 * max(1, expected.abs().max().item()))


def test_latents_and_frames_are_those_of_one_clip_at_a_time(tokenizer, video):
    latents = to_latents(tokenizer, video)
    torch.testing.assert_close(latents[1:2], encode_clip(tokenizer, video[1:2]), rtol=1e-4, atol=1e-5)
    alone = decode_clip(tokenizer, latents[2]).permute(1, 2, 3, 0)
    torch.testing.assert_close(to_frames(tokenizer, latents)[2], (alone.clamp(-1, 1) + 1) / 2, rtol=1e-4, atol=1e-4)


def test_bytes_become_pictures_between_minus_one_and_one():
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1, 1).expand(1, 2, 4, 5, 3)
    video = to_video(frames)
    assert video.shape == (1, 3, 2, 4, 5)
    assert (video[:, :, 0] == -1).all()
    assert (video[:, :, 1] == 1).all()

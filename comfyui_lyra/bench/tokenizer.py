"""Time and memory of the tokenizer: diffusers' pass over the whole clip against ours, a few frames at a time."""

from collections.abc import Iterator

import torch

from ..configs import TokenizerConfig
from ..cost.timing import measure
from ..tokenizer.model import CosmosTokenizer, build_autoencoder

FRAMES, HEIGHT, WIDTH = 121, 704, 1280


@torch.no_grad()
def rows(
    device: torch.device, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH, repeats: int = 3
) -> Iterator[str]:
    """Encoding and decoding one clip in bfloat16 with random weights; the difference is rms over rms."""
    torch.manual_seed(0)
    config = TokenizerConfig()
    ones = torch.ones(config.latent_channels, 1)
    tokenizer = CosmosTokenizer(config, build_autoencoder(config), ones, ones).to(device, torch.bfloat16)
    whole = tokenizer.autoencoder
    video = (torch.rand(1, 3, frames, height, width) * 2 - 1).to(device, torch.bfloat16)
    latents = tokenizer.encode(video)
    yield f"{frames} frames of {width}x{height}; GB above weights and input"
    yield ""
    yield "| what | s | GB | difference |"
    yield "|---|---|---|---|"
    for verb, before, after, given in (
        ("encode", lambda x: whole.encode(x).latent_dist.mode(), tokenizer.encode, video),
        ("decode", lambda x: whole.decode(x).sample, tokenizer.decode, latents),
    ):
        seconds, peak = measure(lambda run=before, x=given: run(x), device, repeats)
        expected = before(given).cpu().float()
        yield f"| {verb}, whole clip (diffusers) | {seconds:.2f} | {peak:.1f} | |"
        seconds, peak = measure(lambda run=after, x=given: run(x), device, repeats)
        error = (after(given).cpu().float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        yield f"| {verb}, streamed | {seconds:.2f} | {peak:.1f} | {error:.1e} |"

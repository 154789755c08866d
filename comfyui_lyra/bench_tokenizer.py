"""Time and memory of the tokenizer: diffusers' pass over the whole clip against ours, a few frames at a time."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from .configs import TokenizerConfig
from .tokenizer.model import CosmosTokenizer, build_autoencoder


def time_tokenizer(
    device: torch.device | str = "cuda",
    height: int = 704,
    width: int = 1280,
    frames: int = 121,
    dtype: torch.dtype = torch.bfloat16,
    repeats: int = 3,
) -> dict[str, dict[str, float]]:
    """Encoding and decoding one clip at the released size with random weights, before and after streaming.

    Each entry holds the median seconds after one warm-up, the peak GPU memory in GB (10^9 bytes; weights, input and
    result included; 0 on CPU) and, of the streamed result, the rms difference from the whole clip's in its rms.
    """
    device = torch.device(device)
    torch.manual_seed(0)
    config = TokenizerConfig()
    ones = torch.ones(config.latent_channels, 1)
    tokenizer = CosmosTokenizer(config, build_autoencoder(config), ones, ones).to(device, dtype)
    whole = tokenizer.autoencoder
    video = (torch.rand(1, 3, frames, height, width) * 2 - 1).to(device, dtype)
    latents = tokenizer.encode(video)
    found = {}
    for verb, before, after, given in (
        ("encode", lambda x: whole.encode(x).latent_dist.mode(), tokenizer.encode, video),
        ("decode", lambda x: whole.decode(x).sample, tokenizer.decode, latents),
    ):
        expected, found[f"{verb}, whole clip"] = measure(before, given, repeats)
        result, found[f"{verb}, streamed"] = measure(after, given, repeats)
        error = (result.float() - expected.float()).square().mean().sqrt() / expected.float().square().mean().sqrt()
        found[f"{verb}, streamed"]["difference"] = error.item()
    return found


@torch.no_grad()
def measure(run: Callable[[Tensor], Tensor], given: Tensor, repeats: int) -> tuple[Tensor, dict[str, float]]:
    """The result of ``run(given)`` on the CPU, its median seconds after one warm-up and its peak GPU memory."""
    cuda, seconds = given.device.type == "cuda", []
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(given.device)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = run(given).cpu()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(given.device) / 1e9 if cuda else 0.0
    return result, {"seconds": median(seconds[1:]), "peak_gb": peak}

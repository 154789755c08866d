"""Time and memory of the splat decoder with random weights, beside what the plan expects."""

import time
from statistics import median

import torch
from torch import Tensor

from .configs import COMPRESSION, RECON_PRESETS, ReconConfig
from .recon.inputs import ReconInputs
from .recon.model import Recon
from .recon.plan import bytes_needed, count_flops, count_tokens
from .recon.schedule import Schedule


@torch.inference_mode()
def time_recon(
    config: ReconConfig = RECON_PRESETS["lyra_dynamic"],
    views: int = 6,
    schedule: Schedule = Schedule(),  # noqa: B008  (frozen)
    device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    repeats: int = 3,
) -> dict[str, float]:
    """One scene of the config's size, tokenizer left out.

    Median and least seconds after one warm-up; peak GPU memory in GiB (weights and inputs included; 0 on CPU) and
    the plan's upper estimate of it; TFLOP, and TFLOP a second.
    """
    device = torch.device(device)
    model = Recon(config).to(device, dtype).eval()
    inputs = random_inputs(config, views, device, dtype)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model(inputs, schedule=schedule)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    tokens, splats = count_tokens(config, views, config.trained_frames, *config.trained_size)
    tflop = count_flops(config, tokens) / 1e12
    return {
        "median_s": median(seconds[1:]),
        "least_s": min(seconds[1:]),
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0,
        "expected_gib": bytes_needed(config, views, tokens, splats, schedule.segment, dtype) / 2**30,
        "tflop": tflop,
        "tflop_a_second": tflop / median(seconds[1:]),
    }


def random_inputs(config: ReconConfig, views: int, device: torch.device, dtype: torch.dtype) -> ReconInputs:
    """Normal latents and rays of the config's size."""
    frames, (height, width) = config.trained_frames, config.trained_size
    latent = (frames - 1) // COMPRESSION + 1, height // COMPRESSION, width // COMPRESSION
    rays = torch.bfloat16 if config.bf16_rays else torch.float32
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float32).to(device, dtype)

    channels, step = config.latent_channels, config.pixels_per_splat
    times = {"time_source": normal(1, channels, *latent), "time_target": normal(1, channels, 1, *latent[1:])}
    return ReconInputs(
        latents=normal(1, views, channels, *latent),
        plucker=normal(1, views, 2 * channels, *latent),
        origins=normal(1, views, frames, 3, dtype=rays),
        directions=normal(1, views, frames, 3, height // step, width // step, dtype=rays),
        **(times if config.dynamic else {}),
    )

"""Time and memory of the splat decoder with random weights, by number of paths, segment size and kernels."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..configs import COMPRESSION, RECON_PRESETS, ReconConfig
from ..cost.recon import bytes_needed, count_flops, count_tokens
from ..cost.timing import measure
from ..recon.inputs import ReconInputs
from ..recon.model import Recon
from ..recon.schedule import Schedule

PLAIN = Schedule(scan="torch", conv="torch", attention="torch")
CASES = (  # paths, schedule
    (6, PLAIN), (6, Schedule()), (6, Schedule(segment=2**12)), (6, Schedule(segment=2**17)),
    (3, Schedule()), (2, Schedule()), (1, Schedule()),
)  # fmt: skip


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


@torch.inference_mode()
def bench_recon(config: ReconConfig, device: torch.device, dtype: torch.dtype, repeats: int) -> Iterator[str]:
    """Lines of a Markdown table: one forward pass a row, the tokenizer left out."""
    model = Recon(config).to(device, dtype).eval()
    frames, (height, width) = config.trained_frames, config.trained_size
    yield f"{frames} frames of {width}x{height} a path, {str(dtype).removeprefix('torch.')}"
    yield ""
    yield "| paths | kernels | segment | s | TFLOP | TFLOP/s | GB above weights and inputs | GB planned in all |"
    yield "|---|---|---|---|---|---|---|---|"
    for views, schedule in CASES:
        inputs = random_inputs(config, views, device, dtype)
        seconds, peak = measure(partial(model, inputs, schedule=schedule), device, repeats)
        tokens, splats = count_tokens(config, views, frames, height, width)
        tflop = count_flops(config, tokens) / 1e12
        planned = bytes_needed(config, views, tokens, splats, schedule.segment, dtype) / 1e9
        yield (
            f"| {views} | {schedule.scan} | {schedule.segment} | {seconds:.3g} | {tflop:.3g} | {tflop / seconds:.3g} | "
            f"{peak:.2f} | {planned:.2f} |"
        )


def rows(device: torch.device) -> Iterator[str]:
    """The table of the released size."""
    return bench_recon(RECON_PRESETS["lyra_dynamic"], device, torch.bfloat16, repeats=3)

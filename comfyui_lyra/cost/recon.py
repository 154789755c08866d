"""What reconstructing a scene will need, and the segment size that fits a memory budget."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch

from ..configs import COMPRESSION, PATCH, ReconConfig
from ..recon.heads import RAW
from ..recon.model import Recon
from ..recon.schedule import Schedule

CHUNK = 128  # tokens a chunk of the scans
SCAN_BYTES = 2**26  # decay matrices that the plain scan holds at once
LEAST, MOST = 2**9, 2**17  # tokens a segment that a plan chooses from: less is slow, more gains nothing


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to run a scene, and what it takes. Without the tokenizer."""

    schedule: Schedule
    bytes: int  # peak memory of one forward pass without gradients, weights and inputs included, at most
    flops: float  # of one bullet time; a multiplication and an addition are two
    splats: int  # before pruning
    kept: int


def plan(
    config: ReconConfig,
    views: int,
    frames: int,
    height: int,
    width: int,
    budget: int,
    dtype: torch.dtype = torch.bfloat16,
) -> Plan:
    """The largest segments whose peak memory stays within ``budget`` bytes; they never change the result.

    Raises ValueError when even the smallest do not fit.
    """
    tokens, splats = count_tokens(config, views, frames, height, width)
    sizes = [2**n for n in range(LEAST.bit_length() - 1, MOST.bit_length())]
    needed = {size: bytes_needed(config, views, tokens, splats, size, dtype) for size in sizes}
    fitting = [size for size in sizes if needed[size] <= budget]
    if not fitting:
        raise ValueError(
            f"{views} paths of {frames} frames of {width}x{height} need {needed[LEAST] / 2**30:.2f} GiB at least, the "
            f"budget is {budget / 2**30:.2f} GiB; use fewer paths, a smaller family or a lower precision"
        )
    return Plan(
        schedule=Schedule(segment=fitting[-1]),
        bytes=needed[fitting[-1]],
        flops=count_flops(config, tokens),
        splats=splats,
        kept=splats if config.keep == 1 else int(splats * config.keep),
    )


def schedules(
    config: ReconConfig,
    views: int,
    frames: int,
    height: int,
    width: int,
    budget: int,
    dtype: torch.dtype = torch.bfloat16,
) -> Iterator[Schedule]:
    """What to try one after another when memory may run out: what ``plan`` chooses, or the least, and ever smaller."""
    try:
        segment = plan(config, views, frames, height, width, budget, dtype).schedule.segment
    except ValueError:
        segment = LEAST
    while segment >= LEAST:
        yield Schedule(segment=segment)
        segment //= 2


def count_tokens(config: ReconConfig, views: int, frames: int, height: int, width: int) -> tuple[int, int]:
    """Tokens of the joint sequence, and Gaussians before pruning."""
    cell, step = PATCH * COMPRESSION, config.pixels_per_splat
    latent_frames = (frames - 1) // COMPRESSION + 1
    tokens = views * latent_frames * (height // cell) * (width // cell)
    return tokens, views * frames * (height // step) * (width // step)


def count_flops(config: ReconConfig, tokens: int) -> float:
    """Operations of one forward pass: attention grows with the square of the tokens, all else in proportion."""
    width, inner, state = config.width, config.expand * config.width, config.state
    attending = config.blocks // config.attention_every
    attention = 4 * tokens**2 * width + 2 * tokens * (4 + 2 * config.mlp_ratio) * width**2
    projections = width * (2 * inner + 2 * state + inner // config.head_size) + inner * width
    scan = CHUNK * (state + inner) + 2 * inner * state + 4 * (inner + 2 * state)
    mamba = 2 * tokens * (projections + 2 * scan)
    patches = (3 + 2 * config.dynamic) * PATCH**2 * config.latent_channels * width
    return (
        attending * attention + (config.blocks - attending) * mamba + 2 * tokens * (patches + width * columns(config))
    )


def columns(config: ReconConfig) -> int:
    """Numbers that the output head makes of a token."""
    return RAW * (COMPRESSION + 1) * (PATCH * COMPRESSION // config.pixels_per_splat) ** 2


@cache
def count_weights(config: ReconConfig) -> int:
    """Numbers in the weights."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in Recon(config).parameters())


def bytes_needed(
    config: ReconConfig, views: int, tokens: int, splats: int, segment: int, dtype: torch.dtype = torch.bfloat16
) -> int:
    """Peak memory of a forward pass without gradients, of the plain torch kernels, counted tensor by tensor."""
    size, exact = dtype.itemsize, max(4, dtype.itemsize)
    width, inner = config.width, config.expand * config.width
    heads, filtered = inner // config.head_size, inner + 2 * config.state
    some = min(segment, tokens)
    in_group = min(some, SCAN_BYTES // (heads * CHUNK * exact))
    inputs = 3 * tokens * PATCH**2 * config.latent_channels * size + 3 * splats * (2 if config.bf16_rays else 4)
    x = tokens * width * size
    # each stage: what it holds of all tokens besides x, and of those of a segment
    projected = tokens * inner * size + some * (2 * inner + 2 * config.state + heads) * size
    convolving = projected + some * filtered * (size + 2 * exact)
    scanning = projected + some * (filtered + inner) * size
    scanning += in_group * exact * (2 * heads * CHUNK + 3 * inner * config.state // CHUNK + 5 * inner)
    attending = 3 * x + some * size * max(4, 2 * config.mlp_ratio + 3) * width
    a_view = tokens // views
    at_once = a_view * max(1, min(views, segment // a_view))
    deciding = splats * (2 * size + 24)  # opacities, sorted, with their indices
    emitting = at_once * (width + 2 * columns(config)) * size + int(splats * config.keep) * (24 + 2 * 14 * size)
    stages = [2 * x, deciding, emitting]
    stages += [attending] if config.blocks >= config.attention_every else []
    stages += [convolving, scanning] if config.blocks and config.attention_every > 1 else []
    return int(1.1 * (count_weights(config) * size + inputs + x + max(stages)))  # a tenth for what is too small to list

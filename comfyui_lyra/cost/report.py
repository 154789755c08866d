"""What a scene will take before it is made: work, time, memory and disk, stage by stage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..cameras.path import CameraTrajectory
from ..configs import CHANNELS, COMPRESSION, ReconConfig, TeacherConfig, TokenizerConfig
from ..files.splats.sequence import SPLAT_BYTES
from ..gen3c.cache.cache3d import BATCH_BYTES, BYTES_A_PIXEL
from ..recon.schedule import DEFAULT
from ..tokenizer.model import build_autoencoder
from .flops import flops
from .recon import bytes_needed, count_flops, count_tokens
from .timing import measure

# Shares of a matrix product's speed that the stages reach: of an H200, from dev/benchmarks.md (567, 127, 342 TFLOP/s)
# over the 700 TFLOP/s that such a product is assumed to reach there.
TEACHER_SHARE, TOKENIZER_SHARE, RECON_SHARE = 0.8, 0.2, 0.5
# Peaks measured there in bfloat16, without weights and clip: numbers a pixel of one frame for the tokenizer, whose
# largest level has 256 channels; numbers a token and channel for the teacher.
ENCODE_NUMBERS, DECODE_NUMBERS, LEVEL, TEACHER_NUMBERS = 1060, 1250, 256, 9.2
# Beside a pass: float32 clips of latents that the sampler holds, conditions among them, counted on the meta device; the
# largest layers that are copied ahead where weights are streamed; and what an allocator takes for each byte in use. The
# last is from an H200 on 2026-11-29: with all weights streamed 6.6 GiB of the card were used, 0.7 GB of them by CUDA
# and the tokenizer, for 4.8 GB of tensors at most.
SAMPLER_NUMBERS, LAYERS_AHEAD, ALLOCATED = 18, 2, 1.3
LATENT_BYTES = 4  # a number, on disk
# A pixel: a remembered picture with depth, points and masks; a drawn one with its mask.
CACHED_BYTES, DRAWN_BYTES = 46, 16
CACHED_STATES = 6  # hidden states that the step cache keeps


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of the work."""

    name: str
    flops: float  # a multiplication and an addition are two
    share: float  # of a matrix product's speed that it reaches
    bytes: int  # on the device at its peak, weights included
    disk: int = 0  # bytes that it can leave there

    def seconds(self, speed: float) -> float:
        """Expected time where a matrix product does ``speed`` operations a second."""
        return self.flops / (self.share * speed)


def stages(
    cameras: Sequence[CameraTrajectory],
    *,
    teacher: TeacherConfig | None = None,
    tokenizer: TokenizerConfig | None = None,
    recon: ReconConfig | None = None,
    times: int = 1,
    steps: int = 35,
    guidance: float = 1.0,
    dtype: torch.dtype = torch.bfloat16,
) -> list[Stage]:
    """The stages that the models given can do for a set of paths; a guided step is two passes of the teacher."""
    views, frames, height, width = len(cameras), len(cameras[0]), cameras[0].height, cameras[0].width
    clip, found = (frames, height, width), []
    if teacher:
        chunks = max(1, (frames - 1) // (teacher.trained_frames - 1))
        numbers = CHANNELS * ((frames - 1) // COMPRESSION + chunks) * height * width // COMPRESSION**2
        passes = (2 if guidance else 1) * steps * chunks * views
        work, memory = teacher_costs(teacher, dtype)
        disk = LATENT_BYTES * numbers * views
        found.append(Stage(name="generate latents", flops=passes * work, share=TEACHER_SHARE, bytes=memory, disk=disk))
    if tokenizer and recon:
        moving = (encode_flops(tokenizer, *clip) + times * encode_flops(tokenizer, 1, height, width)) * recon.dynamic
        work, memory = 2 * views * encode_flops(tokenizer, *clip) + moving, encode_bytes(tokenizer, *clip, dtype)
        found.append(Stage(name="encode cameras", flops=work, share=TOKENIZER_SHARE, bytes=memory))
    if recon:
        tokens, splats = count_tokens(recon, views, *clip)
        sets = times if recon.dynamic else 1
        memory = bytes_needed(recon, views, tokens, splats, DEFAULT.segment, dtype)
        disk, work = sets * int(splats * recon.keep) * SPLAT_BYTES, sets * count_flops(recon, tokens)
        found.append(Stage(name="reconstruct splats", flops=work, share=RECON_SHARE, bytes=memory, disk=disk))
    return found


@cache
def teacher_costs(config: TeacherConfig, dtype: torch.dtype) -> tuple[float, int]:
    """Operations of one pass of the teacher, and its peak memory with all weights on the device."""
    numbers = teacher_weights(config) + TEACHER_NUMBERS * hidden_numbers(config)
    return flops(config)[1], int(numbers * dtype.itemsize)


def hidden_numbers(config: TeacherConfig) -> int:
    """Numbers in the teacher's hidden state of one clip."""
    _, frames, height, width = config.latent_shape
    return frames * height * width // 4 * config.heads * config.head_dim


def sample_bytes(config: TeacherConfig, step_cache: bool, dtype: torch.dtype) -> int:
    """Peak memory of sampling one clip, without the teacher's weights: a pass, and what is kept from pass to pass."""
    states = (TEACHER_NUMBERS + CACHED_STATES * step_cache) * hidden_numbers(config) * dtype.itemsize
    return int(states + 4 * SAMPLER_NUMBERS * math.prod(config.latent_shape))


def generate_bytes(
    config: TeacherConfig, tokenizer: TokenizerConfig, pictures: int, step_cache: bool, dtype: torch.dtype
) -> int:
    """Peak memory of generating along one path, without the teacher's weights, which may be streamed.

    The 3D cache of ``pictures`` stays. Beside it a clip is drawn and encoded, then sampled. It is what to keep free,
    and so more than what tensors take.
    """
    (height, width), frames = config.trained_size, config.trained_frames
    drawn = DRAWN_BYTES * frames * height * width
    warp = min(BATCH_BYTES, BYTES_A_PIXEL * frames * height * width)
    encode = encode_bytes(tokenizer, frames, height, width, dtype)
    sample = sample_bytes(config, step_cache, dtype)
    layers = LAYERS_AHEAD * 4 * (config.heads * config.head_dim) ** 2 * dtype.itemsize
    tensors = CACHED_BYTES * pictures * height * width + max(drawn + max(warp, encode), sample) + layers
    return int(ALLOCATED * tensors)


@cache
def teacher_weights(config: TeacherConfig) -> int:
    """Numbers in a teacher's weights."""
    from ..gen3c.dit import build  # deferred, as its import takes seconds

    return sum(weight.numel() for weight in build(config).parameters())


def teacher_bytes(config: TeacherConfig, dtype: torch.dtype, exact: bool = True) -> int:
    """Memory of a teacher's weights; where they are not exact, the blocks' large layers in 8 bits."""
    layers = 0 if exact else config.blocks * 14 * (config.heads * config.head_dim) ** 2
    return teacher_weights(config) * dtype.itemsize - layers * (dtype.itemsize - 1)


@cache
def encode_flops(config: TokenizerConfig, frames: int, height: int, width: int) -> float:
    """Operations of encoding one clip, counted on a network without weights."""
    network: Any = build_autoencoder(config, "meta").to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.encode(torch.empty(1, 3, frames, height, width, device="meta"))
    return float(counter.get_total_flops())


def encode_bytes(
    config: TokenizerConfig, frames: int, height: int, width: int, dtype: torch.dtype = torch.bfloat16
) -> int:
    """Peak memory of encoding one clip that lies on the device, weights and clip included."""
    numbers = ENCODE_NUMBERS * config.channels * config.multipliers[0] / LEVEL + 3 * frames
    return int((count_weights(config) + numbers * height * width) * dtype.itemsize)


def decode_bytes(config: TokenizerConfig, height: int, width: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Peak memory of decoding one clip whose frames go to RAM, weights included."""
    numbers = DECODE_NUMBERS * config.channels * config.multipliers[0] / LEVEL
    return int((count_weights(config) + numbers * height * width) * dtype.itemsize)


@cache
def count_weights(config: TokenizerConfig) -> int:
    """Numbers in a tokenizer's weights."""
    return sum(weight.numel() for weight in build_autoencoder(config, "meta").parameters())


def matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a matrix product here, measured in a tenth of a second or less."""
    size = 8192
    if device.type == "cpu":
        size = 1024 if dtype == torch.float32 else 256  # some processors multiply half precision number by number
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    seconds, _ = measure(partial(torch.matmul, matrix, matrix), device, repeats=3)
    return 2 * size**3 / seconds


def report(
    cameras: Sequence[CameraTrajectory],
    found: Sequence[Stage],
    *,
    speed: float,
    precision: str,
    memory: int,
    disk: int,
) -> str:
    """The plan as text: ``speed`` in operations a second, ``memory`` and ``disk`` are the free bytes there are."""
    if not found:
        raise ValueError("nothing to plan: connect a splat decoder, with a tokenizer, or a teacher")
    path, lines = cameras[0], []
    lines.append(f"{len(cameras)} paths of {len(path)} frames of {path.width}x{path.height}\n")
    lines += [
        f"{stage.name}: {stage.flops / 1e12:,.3g} TFLOP, {duration(stage.seconds(speed))}, "
        f"{stage.bytes / 1e9:.1f} GB of memory" + (f", {stage.disk / 1e9:.2f} GB on disk" if stage.disk else "")
        for stage in found
    ]
    most, total = max(found, key=lambda stage: stage.bytes), sum(stage.disk for stage in found)
    lines.append(f"all: {duration(sum(stage.seconds(speed) for stage in found))}\n")
    lines.append(f"Memory: {memory / 1e9:.1f} GB free. " + (
        f"'{most.name}' wants more: other models are unloaded first, then the splat decoder works in smaller pieces."
        if most.bytes > memory else "Enough for every stage."
    ))  # fmt: skip
    lines.append(f"Disk: {disk / 1e9:.1f} GB free. " + ("Too little to save it all." if total > disk else "Enough."))
    shares = ", ".join(f"{stage.name} {stage.share:.0%}" for stage in found)
    lines.append(
        f"Time is rough. Measured here: {speed / 1e12:.3g} TFLOP/s of a matrix product in {precision}. Assumed, from "
        f"runs on an H200: the share of it that each stage reaches ({shares})."
    )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time to read: "0.4 s", "12 min", "3.1 h"."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"

"""A whole scene at the released sizes with random weights: six paths generated in two steps, then splats and frames."""

import time
from collections.abc import Iterator

import torch

from ..configs import RECON_PRESETS, TEACHER_PRESETS, ReconConfig, TeacherConfig, TokenizerConfig
from ..gen3c.generate import GenerateSettings, generate
from ..gen3c.load import Teacher
from ..pipeline import paths_for
from ..recon.inputs import EncodeCache
from ..recon.model import Recon
from ..recon.reconstruct import reconstruct
from ..splats.render import render
from ..tokenizer.model import CosmosTokenizer, build_autoencoder
from .teacher import random_teacher
from .warp import benchmark_geometry

STEPS = 2  # of sampling; time is in proportion
SEEN = 24  # every so many cameras are drawn
CACHE_BYTES = 2**31


class Stopwatch:
    """Seconds and peak memory since the last look."""

    def __init__(self, device: torch.device):
        self.device, self.start = device, time.perf_counter()

    def row(self, name: str) -> str:
        """A line of the table; starts anew."""
        peak = 0.0
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            peak = torch.cuda.max_memory_allocated(self.device) / 1e9
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds, self.start = time.perf_counter() - self.start, time.perf_counter()
        return f"| {name} | {seconds:.1f} | {peak:.1f} |"


def rows(
    device: torch.device,
    teacher_config: TeacherConfig = TEACHER_PRESETS["gen3c"],
    recon_config: ReconConfig = RECON_PRESETS["lyra_dynamic"],
    tokenizer_config: TokenizerConfig = TokenizerConfig(),  # noqa: B008 (frozen)
) -> Iterator[str]:
    """One pass a step (guidance 0); the teacher leaves the device before the splats are made."""
    torch.manual_seed(0)
    latent_frames, last = teacher_config.latent_shape[1], teacher_config.trained_frames - 1
    statistics = torch.zeros(16, latent_frames), torch.ones(16, latent_frames)
    teacher = Teacher(
        network=random_teacher(teacher_config, device),
        config=teacher_config,
        fingerprint="random",
        dtype=torch.bfloat16,
    )
    tokenizer = CosmosTokenizer(tokenizer_config, build_autoencoder(tokenizer_config), *statistics)
    tokenizer = tokenizer.to(device, torch.bfloat16)
    recon = Recon(recon_config).to(device, torch.bfloat16).eval()
    geometry = benchmark_geometry(1, *teacher_config.trained_size).normalized("auto")
    paths = paths_for(geometry, teacher_config)
    yield "| what | s | GB, weights included |"
    yield "|---|---|---|"
    watch = Stopwatch(device)
    settings = GenerateSettings(steps=STEPS, guidance=0.0)
    latents = generate(teacher, tokenizer, geometry, paths, settings=settings)
    yield watch.row(f"generate {len(paths)} paths in {STEPS} steps")
    del teacher
    cache, times = EncodeCache(max_bytes=CACHE_BYTES), (0, last // 2, last)
    watch.row("")
    reconstruct(recon, tokenizer, latents, times[:1], cache=cache)
    yield watch.row("splats of one bullet time, tokenizer included")
    splats, cameras = reconstruct(recon, tokenizer, latents, times, cache=cache)
    yield watch.row("splats of three bullet times, cameras encoded before")
    seen = cameras[-1][::SEEN].to(device)
    render(splats.frames[0], seen[:1])  # gsplat compiles at its first call
    watch.row("")
    frames = render(splats.frames[0], seen, store="cpu")
    yield watch.row(f"{len(frames.rgb)} frames of {len(splats.frames[0])} splats")

"""A whole scene, from the start of the process to splats and a film: where every second goes.

On a CPU with the models that come with the pack, on a GPU at the released sizes with random weights or files given.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ...kernels_glue.devices import by_device
from ..callbacks import part
from ..cameras.path import CameraTrajectory
from ..configs import RECON_PRESETS, TEACHER_PRESETS, ReconConfig, TeacherConfig, TokenizerConfig
from ..cost.timing import Part, Timeline, process_seconds
from ..files.media.images import to_bytes
from ..files.media.video import save_video
from ..files.scenes.sample import shipped_sample
from ..files.scenes.sdg_writer import PathStore
from ..files.splats.ply import save_ply
from ..gen3c.dit import build
from ..gen3c.generate import GenerateSettings, OnPreview, generate
from ..gen3c.load import Teacher, load_teacher
from ..gen3c.modes import MODES, Mode, as_possible, in_mode
from ..gen3c.preview import LatentColors
from ..geometry.fit import fitted
from ..geometry.geometry import Geometry
from ..pipeline import paths_for, refine
from ..recon.load import load_recon
from ..recon.model import Recon
from ..recon.reconstruct import reconstruct
from ..refine.schedule import settings_for
from ..splats.render import render
from ..tokenizer.model import CosmosTokenizer, build_autoencoder, load_tokenizer
from ..weights.checkpoints.quantising import Lazy
from ..weights.checkpoints.writing import stream_safetensors
from ..weights.shipped import shipped_model
from .teacher import random_teacher
from .warp import benchmark_geometry

STEPS = GenerateSettings(steps=2, guidance=0.0)  # at full size; time is in proportion
MINI_STEPS = GenerateSettings(steps=12, solver="dpmpp_2m", guidance=0.0)
EVERY = 3  # steps from one preview picture to the next, as the node has it
REFINING = {"cpu": 10.0, "cuda": 20.0}  # seconds


@dataclass(frozen=True, kw_only=True)
class Configs:
    """Sizes of models without a file."""

    teacher: TeacherConfig = TEACHER_PRESETS["gen3c"]
    tokenizer: TokenizerConfig = TokenizerConfig()
    recon: ReconConfig = RECON_PRESETS["lyra_static"]


@dataclass(frozen=True, kw_only=True)
class Files:
    """Weights on the disk."""

    teacher: Path | None = None
    tokenizer: Path | None = None
    recon: Path | None = None

    def or_shipped(self) -> "Files":
        """The small models where there is none."""
        return Files(
            teacher=self.teacher or shipped_model("teacher"),
            tokenizer=self.tokenizer or shipped_model("tokenizer"),
            recon=self.recon or shipped_model("recon_static"),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Models:
    """What a scene is made with, where it computes."""

    teacher: Teacher
    tokenizer: CosmosTokenizer
    recon: Recon


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
    teacher: Path | None = None,
    tokenizer: Path | None = None,
    recon: Path | None = None,
    size: str = "",
    stored: str = "",
    mode: Mode = MODES[0],
    refining: float | None = None,
    configs: Configs = Configs(),  # noqa: B008 (frozen)
) -> Iterator[str]:
    """Lines of a Markdown table, each as soon as its stage is over.

    ``size`` is mini or full, by default mini on a CPU. At full size weights without a file are random: made on the
    device beforehand, or read from a file of ``stored`` precision that was written and forgotten beforehand. Without a
    ``mode`` there are two steps of one pass; the mini models take twelve.
    """
    imported = process_seconds()
    small = (size or by_device({"cpu": "mini", "cuda": "full"}, device)) == "mini"
    files = Files(teacher=teacher, tokenizer=tokenizer, recon=recon)
    if stored and (small or teacher):
        raise ValueError("--stored: writes a random teacher of full size; give no --teacher, and --size full on a CPU")
    files = files.or_shipped() if small else files
    dtype = torch.float32 if small and device.type == "cpu" else torch.bfloat16
    yield from Timeline.HEAD
    yield Part(name="start: Python, torch and this pack", times=1, seconds=imported, first=imported).row()
    with TemporaryDirectory() as folder:
        with Timeline(device).stage("not of the scene") as lines:
            if stored and not files.teacher:
                file = random_file(Path(folder, "teacher.safetensors"), configs.teacher, getattr(torch, stored), device)
                forget(file)
                load_teacher(file, dtype=dtype, device=device)  # the first time, which names the weights
                forget(file)
                files = replace(files, teacher=file)
            models = Drawn(configs, files, device)
        yield from lines
        timeline = Timeline(device, imported)
        with timeline.stage("load") as lines:
            models = load(files, models, dtype, device)
        yield from lines
        config = models.teacher.config
        with timeline.stage("paths") as lines, part("picture and paths"):
            shown = shipped_sample("picture") if small else benchmark_geometry(1, *config.trained_size)
            shown = shown.normalized("auto")
            geometry, paths = fitted(shown, paths_for(shown, config), *config.trained_size)
            settings = as_possible(in_mode(MINI_STEPS if small else STEPS, mode), config, dtype, device)
        yield from lines
        seconds = by_device(REFINING, device) if refining is None else refining
        yield from scene(timeline, models, geometry, paths, settings, seconds, Path(folder, "scene"))
        yield from timeline.summary()


def scene(
    timeline: Timeline,
    models: Models,
    geometry: Geometry,
    paths: Sequence[CameraTrajectory],
    settings: GenerateSettings,
    refining: float,
    out: Path,
) -> Iterator[str]:
    """From paths to files; the teacher leaves the device before splats are made."""
    device, begun = models.teacher.device, Began(timeline)
    with timeline.stage("generate") as lines:
        latents = generate(
            models.teacher, models.tokenizer, geometry, paths, settings=settings,
            store=PathStore(out, "scene"), on_step=begun, on_preview=previews(geometry.frames[0]),
        )  # fmt: skip
    yield begun.row
    yield from lines
    models.teacher.to("meta")
    with timeline.stage("reconstruct") as lines:
        splats, cameras = reconstruct(models.recon, models.tokenizer, latents)
    yield from lines
    if refining:
        with timeline.stage("refine") as lines:
            chosen = settings_for(device, paths[0].height * paths[0].width, seconds=refining)
            (after,) = refine(splats.frames, cameras, latents, models.tokenizer, geometry, settings=chosen).splats
            splats = replace(splats, frames=(after,))
        yield from lines
    with timeline.stage("finish") as lines:
        with part("draw a path"), torch.inference_mode():
            frames = render(splats.frames[0], cameras[-1].to(device), store="cpu").rgb
        save_video(out / "film.mp4", frames, cameras[-1].fps)
        with part("save splats"):
            save_ply(out / "splats.ply", splats.frames[0].to("cpu"))
    yield from lines


class Began:
    """An on_step that keeps when the first step was done."""

    def __init__(self, timeline: Timeline):
        self.timeline, self.row = timeline, ""

    def __call__(self, done: int, total: int) -> None:
        """A step is done."""
        self.row = self.row or f"| cold start to the first of {total} steps | | {self.timeline.seconds:.2f} | | | |"


def previews(picture: Tensor, every: int = EVERY) -> OnPreview:
    """What the node shows while it works, made and thrown away; ``picture`` [H, W, 3] begins every path."""
    colors: list[LatentColors] = []
    seen = 0

    def on_preview(path: int, x0: Tensor) -> None:
        nonlocal seen
        with part("preview"):
            if not colors:
                colors.append(LatentColors.of(x0[:, 0], picture))
            if seen % every == 0:
                to_bytes(colors[0](x0[:, -1]))
        seen += 1

    return on_preview


class Drawn:
    """Random models for those without a file, on the device."""

    def __init__(self, configs: Configs, files: Files, device: torch.device):
        torch.manual_seed(0)
        self.teacher = self.tokenizer = self.recon = None
        if not files.teacher:
            network, config = random_teacher(configs.teacher, device), configs.teacher
            self.teacher = Teacher(network=network, config=config, fingerprint="random", dtype=torch.bfloat16)
        if not files.tokenizer:
            frames = configs.teacher.latent_shape[1]
            statistics = torch.zeros(16, frames), torch.ones(16, frames)
            autoencoder = build_autoencoder(configs.tokenizer)
            self.tokenizer = CosmosTokenizer(configs.tokenizer, autoencoder, *statistics)
        if not files.recon:
            self.recon = Recon(configs.recon).eval()


def load(files: Files, drawn: Drawn, dtype: torch.dtype, device: torch.device) -> Models:
    """The models of files, and those without one."""
    teacher, tokenizer, recon = drawn.teacher, drawn.tokenizer, drawn.recon
    if files.teacher:
        with part("open the teacher"):
            teacher = load_teacher(files.teacher, dtype=dtype, device=device)
    if files.tokenizer:
        with part("open the tokenizer"):
            tokenizer = load_tokenizer(files.tokenizer)
    if files.recon:
        with part("open the splat decoder"):
            recon = load_recon(files.recon)
    assert teacher and tokenizer and recon
    with part("to the device"):
        return Models(
            teacher=teacher.to(device), tokenizer=tokenizer.to(device, dtype), recon=recon.to(device, dtype).eval()
        )


def random_file(file: Path, config: TeacherConfig, dtype: torch.dtype, device: torch.device) -> Path:
    """A teacher of small normal weights, written one tensor at a time."""
    generator = torch.Generator(device).manual_seed(0)

    def drawn(shape: torch.Size) -> Callable[[], Tensor]:
        return lambda: torch.empty(shape, device=device, dtype=dtype).normal_(std=0.02, generator=generator)

    with part("write random weights"):
        about = {"family": config.family, "config": json.dumps(asdict(config))}
        weights = {name: Lazy(dtype, w.shape, drawn(w.shape)) for name, w in build(config).state_dict().items()}
        stream_safetensors(file, weights, about)
    return file


def forget(file: Path) -> None:
    """Let the system read a file from the disk again, where it can be told to."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

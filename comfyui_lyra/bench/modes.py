"""What each way to film saves and how far it strays: one path at the trained size, against exact.

With random weights the error guards against regressions and says nothing about pictures. With a teacher's file, and a
folder to write to, the clips stand side by side in a video, for eyes. The folder keeps latents too: variants that it
has are not made again, so a run that was stopped goes on.
"""

import gc
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from ..configs import TEACHER_PRESETS, TeacherConfig, TokenizerConfig
from ..files.media.video import save_video
from ..files.scenes.latents import load_latents, save_latents
from ..files.scenes.sample import shipped_sample
from ..gen3c.generate import GenerateSettings, frames_of, generate
from ..gen3c.load import Teacher, load_teacher
from ..gen3c.modes import GUIDED, SPARSE_BELOW, as_possible, in_mode, told
from ..geometry.fit import fitted
from ..latents import MultiViewLatents
from ..pipeline import paths_for
from ..tokenizer.model import CosmosTokenizer, build_autoencoder, load_tokenizer
from .scene import Stopwatch
from .teacher import random_teacher
from .warp import benchmark_geometry

EXACT = in_mode(GenerateSettings(), "exact")
ORDER = replace(EXACT, solver="dpmpp_2m", steps=16)  # that each ingredient is added to
VARIANTS = {
    "exact": EXACT,
    "second order, 16 steps": ORDER,
    "+ guidance in the middle": replace(ORDER, guidance_range=GUIDED),
    "+ sparse attention": replace(ORDER, late_attention="sol-1.0", late_below=SPARSE_BELOW),
    "+ sparser attention": replace(ORDER, late_attention="sol-1.5", late_below=SPARSE_BELOW),
    "+ step cache": replace(ORDER, step_cache=0.05),
    "balanced": in_mode(GenerateSettings(), "balanced"),
    "+ int8 linears": replace(ORDER, linears="int8"),
    "+ fp8 linears": replace(ORDER, linears="fp8"),
    "fast": in_mode(GenerateSettings(), "fast"),
}


def rows(
    device: torch.device,
    teacher: Path | None = None,
    tokenizer: Path | None = None,
    out: Path | None = None,
    config: TeacherConfig = TEACHER_PRESETS["gen3c"],
    tokenizer_config: TokenizerConfig = TokenizerConfig(),  # noqa: B008 (frozen)
) -> Iterator[str]:
    """A line a variant, of the files given or of random weights; ``out`` keeps latents, and of files also videos."""
    torch.manual_seed(0)

    def fresh() -> Teacher:
        return on_device(load_teacher(teacher, dtype=torch.bfloat16), device) if teacher else randomly(config, device)

    model: Teacher = fresh()
    eyes = load_tokenizer(tokenizer) if tokenizer else random_tokenizer(tokenizer_config, model.config)
    eyes = eyes.to(device, torch.bfloat16)
    geometry = shipped_sample("picture") if teacher else benchmark_geometry(1, *model.config.trained_size)
    paths = paths_for(geometry.normalized("auto"), model.config)[:1]
    geometry, paths = fitted(geometry.normalized("auto"), paths, *model.config.trained_size)
    warm: set[tuple] = set()  # kinds of passes whose kernels are compiled and proven
    yield "| variant | s | GB, weights included | relative error | how |"
    yield "|---|---|---|---|---|"
    watch, exact = Stopwatch(device), None
    for name, wanted in VARIANTS.items():
        settings = as_possible(wanted, model.config, model.dtype, device)
        file = out and out / f"{name.removeprefix('+ ').replace(', ', ' ').replace(' ', '_')}.safetensors"
        made = known(file, model, settings)
        if made is None:
            if model.network.linears not in ("exact", settings.linears):  # quantised for good
                del model
                gc.collect()  # a step cache's hooks hold it in circles, and its memory on the card
                model = fresh()
            if kinds(settings) not in warm:
                generate(model, eyes, geometry, paths, settings=replace(settings, steps=2, late_below=inf))
                warm.add(kinds(settings))
            watch.row("")
            made = generate(model, eyes, geometry, paths, settings=settings)
            made = replace(made, provenance=made.provenance | {"bench": key(model, settings), "row": watch.row(name)})
            if file:
                save_latents(file, made)
        exact = made if exact is None else exact
        error = relative(made.latents.values, exact.latents.values)
        yield f"{made.provenance['row']} {error:.2g} | {told(settings)} |"
        if file and teacher:
            pair = [frames_of(eyes, scene, device) for scene in (exact, made)]
            save_video(file.with_suffix(".mp4"), torch.cat(pair, dim=2), paths[0].fps)


def kinds(settings: GenerateSettings) -> tuple:
    """What tells which kernels run."""
    return settings.attention, settings.late_attention, settings.linears, bool(settings.guidance)


def key(teacher: Teacher, settings: GenerateSettings) -> str:
    """What a variant depends on."""
    return f"{teacher.fingerprint}, {teacher.config.trained_size}; {told(settings)}"


def known(file: Path | None, teacher: Teacher, settings: GenerateSettings) -> MultiViewLatents | None:
    """What a stopped run made of a variant, or None."""
    if file is None or not file.is_file():
        return None
    made = load_latents(file)
    return made if made.provenance.get("bench") == key(teacher, settings) else None


def relative(found: Tensor, exact: Tensor) -> float:
    """|found - exact| / |exact| of the frames that were generated."""
    found, exact = found[:, :, 1:].double(), exact[:, :, 1:].double()
    return float((found - exact).norm() / exact.norm())


def on_device(teacher: Teacher, device: torch.device) -> Teacher:
    """The same teacher, its network moved."""
    teacher.to(device)
    return teacher


def randomly(config: TeacherConfig, device: torch.device) -> Teacher:
    """A teacher of small normal weights in bfloat16."""
    return Teacher(network=random_teacher(config, device), config=config, fingerprint="random", dtype=torch.bfloat16)


def random_tokenizer(config: TokenizerConfig, teacher: TeacherConfig) -> CosmosTokenizer:
    """A tokenizer without training, for clips of the teacher's length."""
    statistics = torch.zeros(16, teacher.latent_shape[1]), torch.ones(16, teacher.latent_shape[1])
    return CosmosTokenizer(config, build_autoencoder(config), *statistics)

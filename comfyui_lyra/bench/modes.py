"""What each way to film saves and how far it strays: one path at the trained size, against exact.

With random weights the error guards against regressions and says nothing about pictures. With a teacher's file, and a
folder to write to, the clips stand side by side in a video, for eyes. The folder keeps latents too: variants that it
has are not made again, so a run that was stopped goes on. The mini world has a truth to compare with
(``judging.modes``).
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from ...kernels_glue.devices import by_device
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
from ..weights.shipped import shipped_model
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
    "+ sparse attention, first frame exact": replace(ORDER, late_attention="sol-1.0-first", late_below=SPARSE_BELOW),
    "+ sparser attention": replace(ORDER, late_attention="sol-1.5", late_below=SPARSE_BELOW),
    "+ step cache": replace(ORDER, step_cache=0.05),
    "balanced": in_mode(GenerateSettings(), "balanced"),
    "+ int8 linears": replace(ORDER, linears="int8"),
    "+ fp8 linears": replace(ORDER, linears="fp8"),
    "fast": in_mode(GenerateSettings(), "fast"),
}


class Renewed:
    """A teacher that is made anew where its products are in 8 bits for good, and others are asked for."""

    def __init__(self, make: Callable[[], Teacher]):
        self._make, self.now = make, make()

    def able(self, settings: GenerateSettings) -> Teacher:
        """The teacher for these settings."""
        if self.now.network.linears not in ("exact", settings.linears):
            del self.now
            gc.collect()  # hooks that were taken off hold it in circles, and its memory on the card
            self.now = self._make()
        return self.now


def rows(
    device: torch.device,
    teacher: Path | None = None,
    tokenizer: Path | None = None,
    out: Path | None = None,
    size: str = "",
    config: TeacherConfig = TEACHER_PRESETS["gen3c"],
    tokenizer_config: TokenizerConfig = TokenizerConfig(),  # noqa: B008 (frozen)
) -> Iterator[str]:
    """A line a variant, of the files given or of random weights; ``out`` keeps latents, and of files also videos.

    ``size`` mini, without files the default on a CPU, judges small models by the truth of their world instead.
    """
    if (size or ("full" if teacher else by_device({"cpu": "mini", "cuda": "full"}, device))) == "mini":
        from .judging import modes as judging  # deferred: loads every model's code

        if out:
            raise ValueError("--out: latents and videos are kept of the full size; leave it out, or use --size full")
        yield from judging.rows(*small_models(teacher, tokenizer, device), VARIANTS)
        return
    torch.manual_seed(0)
    dtype = torch.bfloat16
    model = Renewed(lambda: load_teacher(teacher, dtype=dtype, device=device) if teacher else randomly(config, device))
    eyes = load_tokenizer(tokenizer) if tokenizer else random_tokenizer(tokenizer_config, model.now.config)
    yield "| variant | s | GB, weights included | relative error | how |"
    yield "|---|---|---|---|---|"
    yield from compared(model, eyes.to(device, dtype), device, bool(teacher), out)


def compared(
    model: Renewed, tokenizer: CosmosTokenizer, device: torch.device, trained: bool, out: Path | None
) -> Iterator[str]:
    """The rows of all variants; ``trained`` weights film a picture, and are worth a video."""
    config = model.now.config
    geometry = shipped_sample("picture") if trained else benchmark_geometry(1, *config.trained_size)
    paths = paths_for(geometry.normalized("auto"), config)[:1]
    geometry, paths = fitted(geometry.normalized("auto"), paths, *config.trained_size)
    warm: set[tuple] = set()  # kinds of passes whose kernels are compiled and proven
    watch, exact = Stopwatch(device), None
    for name, wanted in VARIANTS.items():
        settings = as_possible(wanted, config, model.now.dtype, device)
        file = out and out / f"{name.removeprefix('+ ').replace(', ', ' ').replace(' ', '_')}.safetensors"
        key = f"{model.now.fingerprint}, {tokenizer.identity}, {config.trained_size}; {told(settings)}"
        made = known(file, key)
        if made is None:
            teacher = model.able(settings)
            if kinds(settings) not in warm:
                brief = replace(settings, steps=2, late_below=inf)
                generate(teacher, tokenizer, geometry, paths, settings=brief)
                warm.add(kinds(settings))
            watch.row("")
            made = generate(teacher, tokenizer, geometry, paths, settings=settings)
            del teacher  # two do not fit beside each other
            made = replace(made, provenance=made.provenance | {"bench": key, "row": watch.row(name)})
            if file:
                save_latents(file, made)
        exact = made if exact is None else exact
        error = relative(made.latents.values, exact.latents.values)
        yield f"{made.provenance['row']} {error:.2g} | {told(settings)} |"
        if file and trained:
            pair = [frames_of(tokenizer, scene, device) for scene in (exact, made)]
            save_video(file.with_suffix(".mp4"), torch.cat(pair, dim=2), paths[0].fps)


def small_models(teacher: Path | None, tokenizer: Path | None, device: torch.device) -> tuple[Renewed, CosmosTokenizer]:
    """The mini models, or others of their size, in the precision that is usual on a device."""
    dtype = by_device({"cpu": torch.float32, "cuda": torch.bfloat16}, device)
    file = teacher or shipped_model("teacher")
    eyes = load_tokenizer(tokenizer or shipped_model("tokenizer")).to(device, dtype)
    return Renewed(lambda: load_teacher(file, dtype=dtype, device=device)), eyes


def kinds(settings: GenerateSettings) -> tuple:
    """What tells which kernels run."""
    return settings.attention, settings.late_attention, settings.linears, bool(settings.guidance)


def known(file: Path | None, key: str) -> MultiViewLatents | None:
    """What a stopped run made of a variant by models and settings of that ``key``, or None."""
    if file is None or not file.is_file():
        return None
    made = load_latents(file)
    return made if made.provenance.get("bench") == key else None


def relative(found: Tensor, exact: Tensor) -> float:
    """|found - exact| / |exact| of the frames that were generated."""
    found, exact = found[:, :, 1:].double(), exact[:, :, 1:].double()
    return float((found - exact).norm() / exact.norm())


def randomly(config: TeacherConfig, device: torch.device) -> Teacher:
    """A teacher of small normal weights in bfloat16."""
    return Teacher(network=random_teacher(config, device), config=config, fingerprint="random", dtype=torch.bfloat16)


def random_tokenizer(config: TokenizerConfig, teacher: TeacherConfig) -> CosmosTokenizer:
    """A tokenizer without training, for clips of the teacher's length."""
    statistics = torch.zeros(16, teacher.latent_shape[1]), torch.ones(16, teacher.latent_shape[1])
    return CosmosTokenizer(config, build_autoencoder(config), *statistics)

"""How ways to film look in the mini world, where the truth is known: means over scenes that no model has seen.

Of each scene one path is filmed, each time another of the six. Warped points decide nearly everything there; what the
teacher invents shows in the holes between them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from time import perf_counter

import torch
from torch import Tensor

from ....kernels_glue.devices import by_device
from ...cameras.path import CameraTrajectory
from ...configs import TeacherConfig
from ...gen3c.generate import GenerateSettings, frames_of, generate
from ...gen3c.load import Teacher
from ...gen3c.modes import as_possible, told
from ...geometry.geometry import Geometry
from ...latents import MultiViewLatents
from ...quality.perceptual import Perceptual
from ...quality.scores import BEST
from ...quality.tpips import tokenizer_tpips
from ...tokenizer.model import CosmosTokenizer
from ...training.data.sdg_memory import draw_sources
from ...training.evaluate import measures
from ...training.world.draw_scenes import SPLITS, draw_scenes
from ...training.world.filming import to_bytes
from ...training.world.raytrace import seen_from, trace
from ..modes import Renewed, relative

SCENES = {"cpu": 8, "cuda": 32}  # of the split for validation
LENGTHS = "large"  # of the paths: more holes
COLUMNS = {"psnr": "PSNR, dB", "psnr_hole": "in holes", "ssim": "SSIM", "tpips": "TPIPS", "sharpness": "sharpness"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Shot:
    """One path of a scene, and what is truly seen along it."""

    seed: int
    geometry: Geometry  # of the first picture
    path: CameraTrajectory
    truth: Tensor  # [F, H, W, 3] bytes
    visible: Tensor  # [F, H, W] what the first picture shows (bool)

    @classmethod
    def of(cls, seed: int, number: int, config: TeacherConfig, device: torch.device) -> "Shot":
        """The ``number``-th path of a seed's scene; they begin anew after the last."""
        shape = {"size": config.trained_size, "frames": config.trained_frames, "device": device}
        (source,) = draw_sources([seed], lengths=LENGTHS, **shape)
        path, room = source.paths[number % len(source.paths)], draw_scenes([seed], False).to(device)
        times = torch.linspace(0, 1, config.trained_frames, device=device)
        seen = trace(room, [path], times)
        visible = seen_from(room, seen.depth, [path], source.geometry.cameras[:1], times)
        return cls(seed=seed, geometry=source.geometry, path=path, truth=to_bytes(seen.rgb)[0], visible=visible[0])


@torch.no_grad()
def rows(
    teacher: Renewed,
    tokenizer: CosmosTokenizer,
    variants: Mapping[str, GenerateSettings],
    seeds: Sequence[int] = (),
) -> Iterator[str]:
    """Lines of a Markdown table; the first of the ``variants`` is what the others are compared with.

    Variants that turn out as one before, since what makes them faster cannot run here, are left out.
    """
    config, device = teacher.now.config, teacher.now.device
    seeds = seeds or SPLITS["validation"][: by_device(SCENES, device)]
    shots = [Shot.of(seed, number, config, device) for number, seed in enumerate(seeds)]
    tpips, exact = tokenizer_tpips(tokenizer.requires_grad_(False)), None
    yield f"{len(shots)} scenes of the mini world, a path each; sharpness is a share of the truth's"
    yield ""
    yield f"| variant | s a path | relative error | {' | '.join(COLUMNS.values())} | how |"
    yield "|---" * (len(COLUMNS) + 4) + "|"
    done = set()
    for name, wanted in variants.items():
        settings = as_possible(wanted, config, teacher.now.dtype, device)
        if settings in done:
            continue
        done.add(settings)
        filmed(teacher.able(settings), tokenizer, shots[0], replace(settings, steps=2, late_below=inf))  # warms up
        start = perf_counter()
        made = [filmed(teacher.able(settings), tokenizer, shot, settings) for shot in shots]
        seconds, exact = (perf_counter() - start) / len(shots), made if exact is None else exact
        scores = [judged(scene, shot, tokenizer, tpips) for scene, shot in zip(made, shots, strict=True)]
        pairs = zip(made, exact, strict=True)
        error = sum(relative(one.latents.values, other.latents.values) for one, other in pairs) / len(shots)
        cells = (f"{torch.tensor([score[column] for score in scores]).nanmean():.4g}" for column in COLUMNS)
        yield f"| {name} | {seconds:.2f} | {error:.2g} | {' | '.join(cells)} | {told(settings)} |"


def filmed(teacher: Teacher, tokenizer: CosmosTokenizer, shot: Shot, settings: GenerateSettings) -> MultiViewLatents:
    """Latents along a shot's path; its seed is that of the noise too."""
    return generate(teacher, tokenizer, shot.geometry, [shot.path], settings=replace(settings, seed=shot.seed))


def judged(scene: MultiViewLatents, shot: Shot, tokenizer: CosmosTokenizer, tpips: Perceptual) -> dict[str, float]:
    """Means over frames."""
    device = shot.truth.device
    frames, truth = frames_of(tokenizer, scene, device).to(device).float() / 255, shot.truth.float() / 255
    found = measures(frames, truth, shot.visible, tpips)
    return {name: float(values.clamp_max(BEST).nanmean()) for name, values in found.items()}

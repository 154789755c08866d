"""How good refined splats are, by named settings, over scenes of a range of seeds: ``lyra bench refine --scenes``."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...cameras.path import CameraTrajectory
from ...demo import Models
from ...files.reading import parse_json
from ...quality.perceptual import Perceptual
from ...quality.scores import BEST, flicker, psnr, sharpness, ssim
from ...quality.tpips import tokenizer_tpips
from ...refine.corrections import Corrections
from ...refine.footage import Target, targets
from ...refine.leaves import pixel_size
from ...refine.optimise import optimise
from ...refine.schedule import ON_A_CPU, RefineSettings, needs_source, settings_for
from ...splats.gaussians import Gaussians
from ...splats.render import draw_colors
from ...training.world.draw_scenes import SPLITS
from .scenes import Judged, load, make, save

DECODER = "decoder"  # the name of what was not refined
NEEDLE = 5  # a splat whose longest axis is so many times its middle one
DRAWN = 17  # frames at once
VARIANTS: Mapping[str, Callable[[RefineSettings], RefineSettings]] = {
    "default": lambda given: given,
    "ssim 0.5": lambda given: replace(given, similarity=0.5),
    "no ssim": lambda given: replace(given, similarity=0.0),
    "invented 0.3": lambda given: replace(given, invented=0.3),
    "invented 0.1": lambda given: replace(given, invented=0.1),
    "depth 0.1": lambda given: replace(given, depth=0.1),
    "needles 0.1": lambda given: replace(given, needles=0.1),
    "affine": lambda given: replace(given, affine=2e-3),
    "poses": lambda given: replace(given, poses=0.1),
    "poses 0.3": lambda given: replace(given, poses=0.3),
    "picture x 3": lambda given: replace(given, picture_weight=3 * given.picture_weight),
    "picture / 3": lambda given: replace(given, picture_weight=given.picture_weight / 3),
    "rates x 2": lambda given: replace(given, rates=given.rates * 2),
    "rates / 2": lambda given: replace(given, rates=given.rates * 0.5),
    "steps x 3": lambda given: replace(given, steps=3 * given.steps),
    "steps / 3": lambda given: replace(given, steps=max(1, given.steps // 3)),
    "batch x 2": lambda given: replace(given, batch=2 * given.batch),
    "as on a GPU": lambda given: replace(RefineSettings(), steps=given.steps),
    "as on a CPU": lambda given: replace(given, **ON_A_CPU),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Which scenes are refined, how, and where what is made is kept."""

    seeds: tuple[int, ...]
    folder: Path  # of scenes and results
    lengths: str = "large"  # of the paths
    moving: bool = False
    variants: tuple[str, ...] = ("default",)
    steps: int = 0  # 0: as many as suit the device
    stride: int = 2  # every so many frames are judged
    disturbed: float = 0.0  # pixels by which frames' cameras are wrong, on purpose
    minutes: float = math.inf  # no run begins after so many

    def __post_init__(self) -> None:
        if wrong := [name for name in self.variants if name not in VARIANTS]:
            raise ValueError(f"unknown settings {', '.join(wrong)}; use some of: {', '.join(VARIANTS)}")

    @property
    def kind(self) -> str:
        """A word for files and tables."""
        moving = "moving" if self.moving else "still"
        return f"{moving}-{self.lengths}" + (f"-disturbed{self.disturbed:g}" if self.disturbed else "")


def seeds_of(text: str, split: str) -> tuple[int, ...]:
    """Seeds ``LO:HI`` of a split, counted from its first."""
    first, _, end = text.partition(":")
    if not (first.isdigit() and end.isdigit()) or not 0 <= int(first) < int(end) <= len(SPLITS[split]):
        raise ValueError(f"scenes '{text}' of {split}: expected LO:HI within 0:{len(SPLITS[split])}, as 0:16")
    return tuple(SPLITS[split][int(first) : int(end)])


def run(trial: Trial, device: torch.device, models: Models | None = None) -> Iterator[str]:
    """Lines as they come, then the tables of all that the folder holds of this kind. What is there is not made again.

    Results are lines of JSON, so that several processes, or days, may share a folder.
    """
    end = time.perf_counter() + 60 * trial.minutes
    models = models or Models.load(device)
    results, tpips = trial.folder / f"{trial.kind}.jsonl", tokenizer_tpips(models.tokenizer.requires_grad_(False))
    last = -1 if trial.moving else 0  # a run that was stopped before its last row is made again
    done = {(row["seed"], row["name"], row["steps"]) for row in rows_of(results) if row["time"] == last}
    for seed in trial.seeds:
        scene = None
        for name in (DECODER, *trial.variants):
            settings = settings_of(trial, name, device)
            if (seed, name, settings.steps if name != DECODER else 0) in done:
                continue
            if time.perf_counter() > end:
                yield f"{trial.minutes:g} minutes are over at seed {seed}, {name}"
                yield from tables(results)
                return
            scene = scene or kept(trial, seed, models)
            for row in judged(scene, name, settings, trial, device, tpips):
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                yield f"{seed} {name}: " + ", ".join(f"{k} {row[k]:.2f}" for k in ("between psnr", "s") if k in row)
    yield from tables(results)


def settings_of(trial: Trial, name: str, device: torch.device) -> RefineSettings:
    """What a name stands for on a device."""
    pixels = 160 * 96  # of the mini models, small on any device
    given = settings_for(device, pixels, steps=trial.steps)
    return given if name == DECODER else VARIANTS[name](given)


def kept(trial: Trial, seed: int, models: Models) -> Judged:
    """A scene from the folder, or made now and kept there."""
    file = trial.folder / f"{trial.kind.split('-disturbed')[0]}-{seed}.safetensors"
    if not file.is_file():
        frames = models.teacher.config.trained_frames
        middle = frames // 2
        times = (0, middle - 1, middle, middle + 1, frames - 1) if trial.moving else (0,)
        save(file, make(models, seed, times, trial.lengths, trial.moving))
    return load(file)


def judged(
    scene: Judged, name: str, settings: RefineSettings, trial: Trial, device: torch.device, tpips: Perceptual
) -> Iterator[dict]:
    """One row of numbers for each bullet time, and of a moving scene one of its flicker."""
    paths, source = scene.paths, device if needs_source(settings) else None
    wanted = targets(scene.films, paths, scene.told(), scene.geometry, scene.times, source)
    made = []
    for place, (before, target) in enumerate(zip(scene.splats, wanted, strict=True)):
        start, splats = time.perf_counter(), before.to(device)
        if name != DECODER:
            splats = optimise(splats, disturbed(target, splats, trial.disturbed, scene.seed), settings)[0]
        row = scores(splats, scene, place, trial.stride, tpips, target) | {"s": time.perf_counter() - start}
        about = {"seed": scene.seed, "name": name, "time": scene.times[place]}
        yield about | {"steps": settings.steps if name != DECODER else 0} | row
        made.append(splats)
    if scene.moving:
        near = slice(1, -1)  # the three neighbours in the middle
        shown, cameras = scene.truth_between[near, :, :: trial.stride], scene.between
        seen = torch.stack([draw(splats, [p[:: trial.stride] for p in cameras]).cpu() for splats in made[near]])
        shaking = flicker(seen.movedim(0, 1), shown.flatten(1, 2).movedim(0, 1).float() / 255)
        about = {"seed": scene.seed, "name": name, "time": -1, "steps": settings.steps if name != DECODER else 0}
        yield about | {"flicker": float(shaking.mean()) * 255}


def disturbed(target: Target, splats: Gaussians, pixels: float, seed: int) -> Target:
    """The frames with cameras that are wrong by so many pixels, each in its own way; the picture stays right."""
    if not pixels:
        return target
    pixel = pixel_size(splats, target.cameras[:1])
    wrong = Corrections(target, RefineSettings(poses=1.0), pixel, torch.device("cpu"))
    with torch.no_grad():
        wrong.poses.copy_(pixels * torch.randn(wrong.poses.shape, generator=torch.Generator().manual_seed(seed)))
    return replace(target, cameras=wrong.cameras(target.cameras))


@torch.no_grad()
def draw(splats: Gaussians, paths: Sequence[CameraTrajectory]) -> Tensor:
    """Frames [P F, H, W, 3] along some paths, in [0, 1]."""
    cameras = paths[0].at(torch.cat([p.c2w for p in paths]), torch.cat([p.K for p in paths])).to(splats.means.device)
    parts = (cameras[start : start + DRAWN] for start in range(0, len(cameras), DRAWN))
    return torch.cat([draw_colors(splats, part) for part in parts]).clamp(0, 1)


@torch.no_grad()
def scores(
    splats: Gaussians, scene: Judged, place: int, stride: int, tpips: Perceptual, target: Target
) -> dict[str, float]:
    """Means over frames: PSNR and SSIM along the paths, between and beyond them; TPIPS and sharpness; holes apart."""
    found, device = {}, splats.means.device

    def put(name: str, frames: Tensor, truth: Tensor, closely: bool = False) -> None:
        truth = truth.to(device).float() / 255
        found[f"{name} psnr"] = mean(psnr(frames, truth))
        found[f"{name} ssim"] = mean(ssim(frames, truth))
        if closely:
            found[f"{name} tpips"] = mean(tpips(frames[None], truth[None], DRAWN)[0])
            found[f"{name} sharpness"] = mean(sharpness(frames) / sharpness(truth).clamp_min(1e-6))

    shown = slice(None, None, stride)
    frames = draw(splats, [path[shown] for path in scene.paths])
    truth = scene.truth[place][:, shown].flatten(0, 1)
    put("paths", frames, truth, closely=True)
    seen = scene.visible[:, shown].flatten(0, 1).to(device)
    if not scene.moving:
        found["visible psnr"], found["hole psnr"] = (
            mean(psnr(frames, truth.to(device).float() / 255, mask)) for mask in (seen, ~seen)
        )
    put("between", draw(splats, [p[shown] for p in scene.between]), scene.truth_between[place][:, shown].flatten(0, 1))
    put("beyond", draw(splats, [scene.beyond]), scene.truth_beyond[place])
    rows = target.judged(len(target.frames))[::stride]
    put("teacher", draw(splats, [target.cameras[rows]]), target.frames[rows])
    if target.picture is not None:
        picture = (target.picture.pixels[None].clamp(0, 1) * 255).round()
        put("picture", draw(splats, [target.picture.camera]), picture)
    ratio = splats.scales.sort(dim=1).values
    found["needles"] = float((ratio[:, 2] > NEEDLE * ratio[:, 1]).float().mean())
    return found


def mean(values: Tensor) -> float:
    """Over frames; an exact copy counts as BEST, a frame without a number does not."""
    return float(values.clamp_max(BEST).nanmean())


def rows_of(file: Path) -> list[dict]:
    """The results that a file holds; of two of the same run the later one."""
    rows = map(parse_json, file.read_text("utf-8").splitlines()) if file.is_file() else ()
    return list({tuple(row[name] for name in ("seed", "name", "steps", "time")): row for row in rows}.values())


COLUMNS = ("paths psnr", "between psnr", "beyond psnr", "teacher psnr", "picture psnr", "visible psnr", "hole psnr",
           "paths ssim", "between ssim", "paths tpips", "paths sharpness", "needles", "flicker", "s")  # fmt: skip


def tables(file: Path) -> Iterator[str]:
    """Means over scenes and bullet times by settings, their gain over the decoder, and the scene that gained least."""
    rows = rows_of(file)
    plain = {(row["seed"], row["time"]): row for row in rows if row["name"] == DECODER}
    columns = [name for name in COLUMNS if any(name in row for row in rows)]
    yield ""
    yield f"{file.stem}, {len({row['seed'] for row in rows})} scenes"
    yield ""
    yield "| settings | steps | scenes | " + " | ".join(columns) + " | least gain between, on the paths |"
    yield "|---" * (len(columns) + 4) + "|"
    for name, steps in dict.fromkeys((row["name"], row["steps"]) for row in rows):
        mine = [row for row in rows if (row["name"], row["steps"]) == (name, steps)]
        cells = [average([row[column] for row in mine if column in row]) for column in columns]
        known = [(row, plain[key]) for row in mine if (key := (row["seed"], row["time"])) in plain]
        gains = [min((a[c] - b[c] for a, b in known if c in a), default=0.0) for c in ("between psnr", "paths psnr")]
        count = len({row["seed"] for row in mine})
        yield f"| {name} | {steps} | {count} | {' | '.join(cells)} | {gains[0]:+.2f}, {gains[1]:+.2f} |"


def average(values: Sequence[float]) -> str:
    """A mean as a cell, or a dash."""
    return f"{sum(values) / len(values):.3f}" if values else "-"

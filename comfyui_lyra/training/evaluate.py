"""What proves that self-distillation works: rows (a) to (g) of training.md 13.7, and the moving scenes' measures.

Every number is a mean over the frames of a scene, then mean and deviation over scenes. Rows ending in ``_teacher`` are
against the teacher's frames, all others against the truth.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..cameras.path import CameraTrajectory
from ..configs import told
from ..files.atomic import replacing
from ..gen3c.cache.cache3d import FARTHEST
from ..gen3c.generate import GenerateSettings
from ..gen3c.load import Teacher
from ..geometry.geometry import unproject
from ..latents import MultiViewLatents, VideoLatents
from ..quality.perceptual import Perceptual
from ..quality.scores import BEST, compare, depth_error, flicker, sharpness
from ..quality.tpips import tokenizer_tpips
from ..recon.inputs import EncodeCache, view_order
from ..recon.model import Recon
from ..recon.reconstruct import reconstruct
from ..splats.gaussians import Gaussians, concatenate
from ..splats.render import draw_view
from ..tokenizer.model import CosmosTokenizer
from ..versions import pack_version
from .data.claims import Table, dynamic_claims, markdown_claims, static_claims
from .data.clips import to_frames, to_latents, to_video
from .data.samples import ClipScene
from .data.sdg_memory import SDG_SETTINGS, Source, as_scene, draw_sources, generate_many, source_caches
from .run.processes import Processes
from .world.draw_scenes import LENGTHS, SPLITS
from .world.filming import film
from .world.raytrace import trace

log = logging.getLogger("lyra")

SPLAT_PIXELS = 0.6  # deviation of the splats of rows d, in pixels of the picture they come from
SOLID = 0.99  # their opacity
EARLY = 0.2  # of the clip: the times whose far cameras a decoder without flips neglects
FAR_CAMERAS = 1 / 3  # of a path, its last
Scores = dict[str, Tensor]  # numbers of one scene by name, one a frame


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Which scenes are looked at, and how closely."""

    seeds: tuple[int, ...] = tuple(SPLITS["test"])
    lengths: tuple[str, ...] = tuple(LENGTHS)  # of the paths: a table each
    stride: int = told(1, "every so many frames of each path; by default all")
    views: tuple[int, ...] = told((1, 3), "numbers of input paths beside all six, such as 1,3")
    fusion: bool = told(True, "decode each path alone and join the splats")
    settings: GenerateSettings = SDG_SETTINGS  # of the teacher


def evaluate(
    out: Path | str,
    tokenizer: CosmosTokenizer,
    teacher: Teacher,
    static: Recon | None,
    dynamic: Recon | None = None,
    evaluation: Evaluation = Evaluation(),  # noqa: B008  (frozen)
) -> dict[str, Table]:
    """Tables by name, rows by name, (mean, deviation) over scenes; as JSON and Markdown in folder ``out``.

    Everything is computed where the teacher's weights are; the models must be there too. Several processes share the
    scenes. Scenes of any seeds may be looked at; those of the test split were seen by no training.
    """
    tables, processes = {}, Processes(teacher.device)
    for lengths in evaluation.lengths:
        for kind, model, measure in (("static", static, measure_static), ("dynamic", dynamic, measure_dynamic)):
            if model is None:
                continue
            scenes, seeds = [], processes.own(evaluation.seeds)
            for number, seed in enumerate(seeds, start=1):
                scores = measure(seed, lengths, tokenizer, teacher, model, evaluation)
                scenes.append({name: values.cpu() for name, values in scores.items()})
                log.info("evaluation, %s, %s paths: scene %d of %d", kind, lengths, number, len(seeds))
            tables[f"{kind}, {lengths} paths"] = summary(processes.joined(scenes))
            if processes.is_first:
                write_report(Path(out), tables, evaluation)  # what is measured so far
    return tables


@torch.no_grad()
def measure_static(
    seed: int, lengths: str, tokenizer: CosmosTokenizer, teacher: Teacher, model: Recon, evaluation: Evaluation
) -> Scores:
    """Rows (a) to (g) of one scene at rest."""
    config, device, tpips = teacher.config, teacher.device, tokenizer_tpips(tokenizer)
    filmed = film([seed], size=config.trained_size, frames=config.trained_frames, lengths=lengths, device=device)
    (source,) = sources = draw_sources(
        [seed], size=config.trained_size, frames=config.trained_frames, lengths=lengths, device=device
    )
    (generated,) = generate_many(teacher, tokenizer, sources, evaluation.settings)
    scene = as_scene(generated)
    shown = slice(None, None, evaluation.stride)
    truth = (filmed.rgb[0].float() / 255)[:, shown]  # [P, F, H, W, 3]
    visible, depth = filmed.visible()[0][:, shown], filmed.depth[0][:, shown]
    paths = tuple(path[shown] for path in source.paths)
    made = torch.stack([clip.frames[shown] for clip in scene.clips]).float() / 255
    scores: Scores = {}

    def row(name: str, frames: Tensor, wanted: Tensor = truth, some: Sequence[int] | None = None) -> None:
        some = list(range(len(frames)) if some is None else some)
        parts = (t[some].flatten(0, 1) for t in (frames, wanted, visible))
        scores.update({f"{name} {what}": values for what, values in measures(*parts, tpips).items()})

    row("a tokenizer", to_frames(tokenizer, to_latents(tokenizer, to_video(filmed.rgb[0])))[:, shown])
    row("b teacher", made)
    drawn = source_caches(sources, evaluation.settings)
    warp = drawn.image.movedim(1, -1).unflatten(0, (len(paths), -1))[:, shown] / 2 + 0.5
    hole = (drawn.mask[:, 0] == 0).unflatten(0, (len(paths), -1))[:, shown]
    mean = source.geometry.frames.mean((0, 1, 2))
    row("c warp, holes black", warp)
    row("c warp, holes mean", torch.where(hole[..., None], mean, warp))
    row("d depth splats", drawn_along(depth_splats(source), paths).rgb)
    row("d' depth splats of first and six ends", drawn_along(end_splats(scene, source), paths).rgb)
    cache = EncodeCache()
    order = view_order(len(paths))
    for count in sorted({*evaluation.views, len(paths)}, reverse=True):
        for keep in (None, 1.0) if count == len(paths) and model.config.keep < 1 else (None,):
            splats = decode_views(model, tokenizer, scene, order[:count], keep, evaluation.fusion, cache)
            frames = drawn_along(splats, paths)
            if count < len(paths):
                row(f"g {count} views", frames.rgb)
                row(f"g {count} views, unseen paths", frames.rgb, some=order[count:])
                continue
            suffix = "" if keep is None else ", all splats kept"
            row(f"e student{suffix}", frames.rgb)
            row(f"f student_teacher{suffix}", frames.rgb, made)
            error = depth_error(frames.depth.flatten(0, 1), torch.where(depth.isfinite(), depth, 0).flatten(0, 1))
            scores[f"e student{suffix} depth_error"] = error
            if keep is None:
                whole = frames.rgb
                for fewer in evaluation.views:  # what fewer views are compared with on the paths they did not get
                    row(f"e student, unseen by {fewer}", whole, some=order[fewer:])
    for one in order if 1 in evaluation.views else ():  # each path as the only one
        name, others = paths[one].name, [view for view in order if view != one]
        splats = decode_views(model, tokenizer, scene, [one], None, evaluation.fusion, cache)
        row(f"g {name} alone, unseen paths", drawn_along(splats, paths).rgb, some=others)
        row(f"e student, unseen by {name}", whole, some=others)
    return scores


@torch.no_grad()
def measure_dynamic(
    seed: int, lengths: str, tokenizer: CosmosTokenizer, teacher: Teacher, model: Recon, evaluation: Evaluation
) -> Scores:
    """A moving scene at its first, middle and last time, and how solid early times look from far cameras."""
    config, device, tpips = teacher.config, teacher.device, tokenizer_tpips(tokenizer)
    shape = {"size": config.trained_size, "frames": config.trained_frames, "device": device}
    sources = draw_sources([seed], moving=True, lengths=lengths, **shape)
    twins = [source.flipped() for source in sources]
    scene = as_scene(*(generate_many(teacher, tokenizer, some, evaluation.settings)[0] for some in (sources, twins)))
    filmed, paths, last = (
        film([seed], moving=True, lengths=lengths, **shape),
        sources[0].paths,
        config.trained_frames - 1,
    )
    early = [time for time in range(config.trained_frames) if time < EARLY * last]
    times, cache = sorted({0, last // 2, last, *early}), EncodeCache()
    order = view_order(len(paths))
    far = [path[round(len(path) * (1 - FAR_CAMERAS)) :] for path in paths]
    scores: Scores = {}
    solid, seen_early, true_early = {}, [], []
    ends = [path[-1:] for path in paths]
    for time in times:
        splats = decode_views(model, tokenizer, scene, order, None, evaluation.fusion, cache, time)
        solid[time] = drawn_along(splats, far).alpha.mean((1, 2, 3))
        if time in early:
            moment = torch.tensor([time / last], device=device)
            seen_early.append(drawn_along(splats, ends).rgb[:, 0].clamp(0, 1))
            true_early.append(trace(filmed.scenes[[0] * len(paths)], ends, moment).rgb[:, 0])
        if time not in (0, last // 2, last):
            continue
        here = torch.tensor([time])
        for part, clips in (("forward", scene.clips[: len(paths)]), ("flipped", scene.clips[len(paths) :])):
            seen = drawn_along(splats, [clip.cameras[here] for clip in clips]).rgb[:, 0]
            wanted = torch.stack([clip.frames[time] for clip in clips]).float() / 255
            found = measures(seen, wanted, None, tpips)
            scores |= {f"student_teacher, {part}, time {time} {name}": values for name, values in found.items()}
        shown = [path[:: evaluation.stride] for path in paths]
        moment = torch.full((len(shown[0]),), time / last, device=device)
        truth = trace(filmed.scenes[[0] * len(paths)], shown, moment).rgb.flatten(0, 1)
        rgb = drawn_along(splats, shown).rgb.flatten(0, 1)
        scores |= {f"student, time {time} {name}": v for name, v in measures(rgb, truth, None, tpips).items()}
    made = torch.stack([clip.frames for clip in scene.clips[: len(paths)]]).flatten(0, 1).float() / 255
    found = measures(made, filmed.rgb[0].flatten(0, 1).float() / 255, filmed.visible()[0].flatten(0, 1), tpips)
    scores |= {f"teacher {name}": values for name, values in found.items()}
    if len(early) > 1:
        shaking = flicker(torch.stack(seen_early, dim=1), torch.stack(true_early, dim=1))  # [P, times - 1]
        scores["far cameras, early flicker"] = 255 * shaking.flatten()
    begun = torch.stack([solid[time] for time in early]).mean()
    return scores | {
        "far cameras, early alpha": begun[None],
        "far cameras, last time alpha": solid[last].mean()[None],
        "far cameras, early over last alpha": (begun / solid[last].mean())[None],
    }


def measures(frames: Tensor, wanted: Tensor, visible: Tensor | None, tpips: Perceptual) -> Scores:
    """PSNR, SSIM, TPIPS and share of the sharpness of frames [F, H, W, 3], with visible pixels and holes apart."""
    frames = frames.clamp(0, 1)
    return compare(frames, wanted, visible, tpips) | {
        "sharpness": sharpness(frames) / sharpness(wanted).clamp_min(1e-6)
    }


def decode_views(
    model: Recon,
    tokenizer: CosmosTokenizer,
    scene: ClipScene,
    views: Sequence[int],
    keep: float | None,
    fusion: bool,
    cache: EncodeCache,
    time: int = 0,
) -> Gaussians:
    """Splats of some of a scene's views, those the decoder reads first, in the world of the scene's cameras."""
    order = view_order(len(views))
    placed = [views[order.index(place)] for place in range(len(views))]  # so that ``views`` is the order of reading
    if not fusion and len(views) > 1:
        alone = (decode_views(model, tokenizer, scene, [view], keep, True, cache, time) for view in views)
        return concatenate(list(alone))
    latents = torch.stack([scene.clips[view].latents for view in placed]).float()
    cameras = tuple(scene.clips[view].cameras for view in placed)
    told = MultiViewLatents(
        latents=VideoLatents(values=latents), cameras=cameras, family=model.config.family, dynamic=model.config.dynamic
    )
    sequence, _ = reconstruct(model, tokenizer, told, (time,), keep=keep, cache=cache)
    return sequence.frames[0].transformed(cameras[order[0]].c2w[0])


def depth_splats(source: Source) -> Gaussians:
    """A splat a pixel of the first picture, where its depth puts it; the sky far away."""
    geometry = source.geometry[:1]
    camera = geometry.cameras.to(geometry.depth.device)
    return unprojected(geometry.frames, geometry.depth.nan_to_num(FARTHEST).clamp(max=FARTHEST), camera)


def end_splats(scene: ClipScene, source: Source) -> Gaussians:
    """The same, and a splat a pixel of the teacher's last frame along each path where the cache has depth for it."""
    parts = []
    for clip in scene.clips[: scene.paths]:
        frames = clip.frames[-1:].float() / 255
        parts.append(unprojected(frames, clip.depth[-1:].float(), clip.cameras[-1:].to(frames.device)))
    return concatenate([depth_splats(source), *parts])


def unprojected(frames: Tensor, depth: Tensor, camera: CameraTrajectory) -> Gaussians:
    """Round splats of the known pixels of pictures [1, H, W, 3] with depth [1, H, W], 0 where it is unknown."""
    known = depth > 0
    K = camera.K.clone()
    K[:, :2, 2] -= 0.5  # unproject counts pixels from their centres, the rasteriser from their corners
    means, deviation = unproject(depth, K, camera.c2w)[known], SPLAT_PIXELS * depth[known] / camera.K[0, 0, 0]
    return Gaussians(
        means=means,
        scales=deviation[:, None].expand(-1, 3).contiguous(),
        quats=torch.eye(4, device=means.device)[:1].expand(len(means), -1).contiguous(),
        opacities=torch.full_like(deviation, SOLID),
        colors=frames[known],
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class PathFrames:
    """Renders along several paths."""

    rgb: Tensor  # [P, F, H, W, 3]
    alpha: Tensor  # [P, F, H, W]
    depth: Tensor  # [P, F, H, W]


def drawn_along(splats: Gaussians, paths: Sequence[CameraTrajectory]) -> PathFrames:
    """Renders along P paths of one length."""
    parts = [draw_view(splats, path.to(splats.means.device)) for path in paths]
    return PathFrames(
        **{name: torch.stack([getattr(part, name) for part in parts]) for name in ("rgb", "alpha", "depth")}
    )


def summary(scenes: Sequence[Mapping[str, Tensor]]) -> Table:
    """Mean and deviation over scenes of each number's mean over frames; frames without a number are left out.

    Beside each ``psnr`` is ``psnr_pooled``, of all pixels of a scene together: in the mean over frames those that show
    the first picture again, which some methods copy, weigh as much as the hard ones.
    """
    found = {}
    for name in scenes[0]:
        frames = [scene[name].cpu().double().clamp_max(BEST) for scene in scenes]
        found[name] = over_scenes([values.nanmean() for values in frames])
        if name.endswith(" psnr"):
            found[f"{name}_pooled"] = over_scenes([-10 * (10 ** (-values / 10)).nanmean().log10() for values in frames])
    return found


def over_scenes(numbers: Sequence[Tensor]) -> tuple[float, float]:
    """Mean and deviation of one number a scene, of those that there are."""
    each = torch.stack(list(numbers))
    each = each[each.isfinite()]
    return each.mean().item() if len(each) else math.nan, each.std().item() if len(each) > 1 else 0.0


def write_report(out: Path, tables: Mapping[str, Table], evaluation: Evaluation) -> None:
    """``evaluation.json`` with every number and target, ``evaluation.md`` with tables."""
    claims = {}
    for lengths in evaluation.lengths:
        static, dynamic = (tables.get(f"{kind}, {lengths} paths") for kind in ("static", "dynamic"))
        claims[f"static, {lengths} paths"] = [] if static is None else static_claims(static)
        claims[f"dynamic, {lengths} paths"] = [] if dynamic is None else dynamic_claims(dynamic, static)
    found = {name: [asdict(claim) | {"holds": claim.holds} for claim in claims[name]] for name in tables}
    pages = [line for name, rows in tables.items() for line in markdown(name, rows) + markdown_claims(claims[name])]
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "evaluation.json") as temporary:
        about = {"pack": pack_version(), "evaluation": asdict(evaluation), "tables": tables, "claims": found}
        Path(temporary).write_text(json.dumps(about, indent=1))
    with replacing(out / "evaluation.md") as temporary:
        Path(temporary).write_text("\n".join(pages), encoding="utf-8")


def markdown(title: str, numbers: Table) -> list[str]:
    """A table of one line a row, one column a measure."""
    rows: dict[str, dict[str, str]] = {}
    for name, (mean, spread) in numbers.items():
        row, _, what = name.rpartition(" ")
        rows.setdefault(row, {})[what] = f"{mean:.3f} ± {spread:.3f}"
    columns = list(dict.fromkeys(what for row in rows.values() for what in row))
    lines = [f"### {title}", "", "| row | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return (
        lines
        + [f"| {row} | " + " | ".join(cells.get(c, "") for c in columns) + " |" for row, cells in rows.items()]
        + [""]
    )

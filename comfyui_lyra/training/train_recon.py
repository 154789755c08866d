"""Training the mini splat decoder by self-distillation: stages m1 to m7 on the teacher's clips (training.md 13.5)."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..callbacks import OnPicture, OnStep, no_picture, no_progress
from ..configs import RECON_PRESETS, ReconConfig, told
from ..gen3c.generate import GenerateSettings
from ..gen3c.load import Teacher, load_teacher
from ..quality.perceptual import Tpips
from ..quality.scores import compare, sharpness
from ..quality.tpips import tokenizer_tpips
from ..recon.heads import OPACITY_SHIFT, RAW
from ..recon.inputs import ReconInputs
from ..recon.load import save_recon
from ..recon.model import Recon
from ..splats.gaussians import Gaussians, concatenate
from ..splats.render import Frames
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..versions import RESULTS
from .data.clips import plain_attention
from .data.dataset import plain_name
from .data.recon_batches import (
    VALIDATION_SEED,
    Batches,
    Encoder,
    FromDisk,
    HeldOut,
    by_views,
    each_alone,
    from_memory,
    held_out_of,
)
from .data.samples import Sample
from .data.sdg_memory import SDG_SETTINGS, film_scenes, make_scenes
from .data.staged import StagedRun, at_pace
from .data.streams import Streams
from .deferred import FIELDS, render_deferred
from .losses import LossWeights, total_loss
from .run.checkpoint import Snapshot, latest
from .run.graphs import ReplayedByShape, recordable
from .run.loop import Rows, Run
from .run.optimizer import MINI_OPTIM, OptimConfig
from .run.processes import Processes
from .stages import MINI_STAGES, Stage
from .world.draw_scenes import SPLITS

log = logging.getLogger("lyra")

Data = Literal["teacher", "renders"]  # what is learnt from; renders: the scenes as they are
LICENCE = "Apache-2.0"
DATA_SHARE = 0.4  # most of the time that making data may take
RESERVE = 20.0  # seconds kept for files
RENDERS_AT_ONCE = 32  # cameras a graph covers
PICTURED = 4  # samples that validation shows
NEW_OPACITY = 0.25  # of all splats before the first step
NEW_WEIGHTS = 0.01  # deviation of the output layer's weights before the first step


@dataclass(frozen=True, kw_only=True)
class ReconTraining:
    """How the splat decoder is trained; the defaults, but for the pace, are those of the shipped ones."""

    seed: int = 0
    scenes: int = told(2000, "how many to learn from")  # of the split "sdg"
    moving_scenes: int = 600  # of the same split, for the dynamic stages
    validation: int = 8  # scenes
    pace: float | None = 1.0  # of the stages' numbers of steps; None: each takes its share of the time instead
    batch: int | None = told(None, "scenes a step; by default the stage's")
    data: Data = told("teacher", "renders: the scenes as they are")
    fusion: bool = told(True, "decode each path alone and join the splats")
    perceptual: float = told(0.2, "weight of the perceptual term")  # the reference's LPIPS has 0.5
    depth: float = told(0.05, "weight of the depth term")
    pruning: bool = told(True, "keep all splats, and no opacity term")  # in the stages that have them
    flipped: bool = told(True, "no time-flipped twins for dynamic stages")

    def stage(self, name: str) -> Stage:
        """A mini stage as this training takes it."""
        if name not in MINI_STAGES:
            raise ValueError(f"unknown stage '{name}'; use some of {', '.join(MINI_STAGES)}")
        stage = MINI_STAGES[name]
        stop = stage.stop if self.pace is None else max(1, round(stage.stop * self.pace))
        stage = replace(stage, stop=stop, flipped=self.flipped)
        stage = stage if self.pruning else replace(stage, keep=1.0, opacity_weight=0.0)
        return stage if self.batch is None else replace(stage, batch=self.batch)


def train_recon(
    out: Path | str,
    tokenizer: Path | str,
    teacher: Path | str | None = None,
    *,
    stages: Sequence[str | Stage],
    roots: Sequence[Path | str] = (),
    after: Path | str | None = None,
    config: ReconConfig | None = None,
    training: ReconTraining = ReconTraining(),  # noqa: B008  (frozen)
    optim: OptimConfig = MINI_OPTIM,
    settings: GenerateSettings = SDG_SETTINGS,
    max_seconds: float | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    on_step: OnStep = no_progress,
    on_picture: OnPicture = no_picture,
) -> Path:
    """Train through some stages in folder ``out``, and write ``mini_recon_static.safetensors`` or ``..._dynamic``.

    The scenes are made first, by ``teacher`` with ``settings``, or read from the folders and tars ``roots``.
    ``after`` names the folder of a run that ended with an earlier stage: weights, optimiser and steps go on from
    there. Steps count over all stages, so a resumed run goes on within the stage it was in. ``max_seconds`` includes
    making the data; without a ``pace`` the stages share it. A checkpoint of each stage's end stays in a folder of the
    stage's name. The learning rate falls until the presets' end at this pace, or if the last stage is given as a Stage
    until its own. ``on_step`` counts the steps of all stages; when it raises, the run ends and can be resumed.
    ``on_picture`` is shown the teacher's frames above those of the splats, some times a stage.
    """
    plan = [stage if isinstance(stage, Stage) else training.stage(stage) for stage in stages]
    is_timed = training.pace is None
    check_plan(plan, teacher, roots)
    begun = None if after is None or resume else begun_by(after, None if is_timed else plan[-1].stop)
    is_dynamic = plan[0].dynamic
    config = replace(
        config or RECON_PRESETS["mini_dynamic" if is_dynamic else "mini_static"], dynamic=is_dynamic, keep=plan[-1].keep
    )
    device = Processes(device).device
    frozen = load_tokenizer(Path(tokenizer)).float().to(device).requires_grad_(False)
    maker = None if teacher is None else load_teacher(Path(teacher), dtype=teacher_dtype(device))
    about = {
        "recon": asdict(config), "training": asdict(training), "settings": asdict(settings),
        "tokenizer": frozen.identity, "teacher": maker and maker.fingerprint, "stages": [stage.name for stage in plan],
        "stops": None if is_timed else [stage.stop for stage in plan], "optim": asdict(optim),
        "roots": sorted(Path(root).name for root in roots), "after": None if after is None else Path(after).name,
        "results": RESULTS,
    }  # fmt: skip
    optim = at_pace(optim, training.pace, plan[-1].stop, isinstance(stages[-1], Stage))
    run = StagedRun(
        initial_recon(config, training.seed), optim, out, stage=plan[0].name, config=about, seed=training.seed,
        device=device, steps=plan[-1].stop, max_seconds=max_seconds, reserve=RESERVE, resume=resume,
        timed=is_timed,
    )  # fmt: skip
    file = run.out / f"mini_recon_{'dynamic' if is_dynamic else 'static'}.safetensors"
    with run, plain_attention():
        if begun is not None:
            run.restore(begun)
            run.begin_anew()
        batches, held_out = make_batches(frozen, maker, roots, training, run, plan[0], settings)
        trainer = Trainer(training, Encoder(frozen, config, run.device), tokenizer_tpips(frozen), run.network)
        plan, before = run.left_of(plan), run.step
        run.divide(plan)
        for stage in plan:
            if not run.enter(stage):
                continue
            kind, shown = looked_at(held_out, batches, stage)
            run.train(
                lambda network, stage=stage: trainer.losses(network, batches(stage, run.streams, run.step), stage),
                lambda network, stage=stage, kind=kind, shown=shown: trainer.validate(network, shown, stage, kind),
                validations=3,
                on_step=lambda done, _: on_step(done, plan[-1].stop),
                on_picture=on_picture,
            )
            run.save()
            if run.reached(stage):
                run.save(run.out / stage.name)
        if run.step == before and not resume and not run.box.caught:
            raise ValueError(f"no step was taken in {max_seconds:g} s: making ready takes some; give more time")
        if run.is_first and run.step:
            save_recon(run.averaged().half(), file, LICENCE)
            run.report()
    return file


def check_plan(plan: Sequence[Stage], teacher: object, roots: Sequence[object]) -> None:
    """Raise ValueError unless the stages can follow each other on one set of scenes."""
    if not plan:
        raise ValueError(f"no stages to train; use some of {', '.join(MINI_STAGES)}")
    if len({stage.dynamic for stage in plan}) > 1:
        raise ValueError("static and dynamic stages learn from different scenes; train them in two runs")
    order = list(MINI_STAGES)
    places = [order.index(stage.name) for stage in plan if stage.name in order]
    if places != sorted(set(places)):
        raise ValueError(
            f"stages {', '.join(stage.name for stage in plan)}: they follow each other as {', '.join(order)}"
        )
    if [stage.stop for stage in plan] != sorted({stage.stop for stage in plan}):
        raise ValueError(f"stages {', '.join(stage.name for stage in plan)}: each must end after the one before")
    if (teacher is None) == (not roots):
        raise ValueError("give a teacher that makes the scenes, or folders of scenes that were made, and not both")


def begun_by(folder: Path | str, stop: int | None) -> Snapshot:
    """The last checkpoint of a run that another one goes on from; ValueError if it leaves no steps until ``stop``."""
    found = latest(folder, required=True)
    if stop is not None and found.step >= stop:
        raise ValueError(
            f"{folder} has {found.step} steps, which count, and this run is to end at step {stop}, so nothing would be "
            f"trained; ask for more than {found.step} steps in all"
        )
    return found


def teacher_dtype(device: torch.device) -> torch.dtype:
    """What the teacher computes in."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def initial_recon(config: ReconConfig, seed: int) -> Recon:
    """The network with random weights, whose splats at first are grey, faint, round, and at median depth.

    Half a block of pixels is their deviation. The distance comes from the config's shift.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Recon(config)
        nn.init.normal_(model.deconv.weight, std=NEW_WEIGHTS)
    focal = 0.8 * config.trained_size[1]  # of the procedural scenes' cameras
    deviation = config.pixels_per_splat / 2 / focal  # at the median depth, which is 1
    bias = torch.zeros(RAW)
    bias[4:7] = math.log(deviation / config.scale_cap) + 1  # see heads.gaussians
    bias[7] = 1.0  # no rotation
    bias[-1] = math.log(NEW_OPACITY / (1 - NEW_OPACITY)) - OPACITY_SHIFT
    with torch.no_grad():
        model.deconv.bias.copy_(bias)
    return model


def make_batches(
    tokenizer: CosmosTokenizer,
    teacher: Teacher | None,
    roots: Sequence[Path | str],
    training: ReconTraining,
    run: Run,
    first: Stage,
    settings: GenerateSettings,
) -> tuple[Batches, HeldOut]:
    """Where the samples come from, and those of held-out scenes."""
    if teacher is None:
        disk = FromDisk(roots, run.log.folder / "data", training.seed, run.processes.rank, run.processes.count)
        return disk, partial(disk.held_out, most=training.validation)
    teacher.to(run.device).network.requires_grad_(False)
    moving = first.dynamic
    count = training.moving_scenes if moving else training.scenes
    seeds, own = SPLITS["validation"][: training.validation], run.processes.own(SPLITS["sdg"][:count])
    held_out = sum(make_scenes(teacher, tokenizer, seeds, moving=moving, settings=settings), [])
    if training.data == "renders":
        if moving:
            raise ValueError("true renders as data are for the static stages only")
        shape = {"size": teacher.config.trained_size, "frames": teacher.config.trained_frames, "device": run.device}
        parts = film_scenes(tokenizer, own, **shape)
    else:
        parts = make_scenes(teacher, tokenizer, own, moving=moving, settings=settings)
    scenes = [scene for part in run.gather(parts, DATA_SHARE) for scene in part]
    log.info("%s: %d scenes to learn from, %d held out", run.stage, len(scenes), len(held_out))
    run.log.event(run.step, "data", scenes=len(scenes))
    return from_memory(scenes), partial(held_out_of, held_out)


def looked_at(held_out: HeldOut, batches: Batches, stage: Stage) -> tuple[str, list[Sample]]:
    """What validation is made on, the same at every call, and what to call it: not held out where nothing is."""
    if samples := held_out(stage):
        return "held_out", samples
    return "training", batches(stage, Streams(VALIDATION_SEED), 0)


class Trainer:
    """What the steps of all stages share.

    Where steps can be recorded the passes of ``network``, with which they are taken, and of the perceptual term are
    replayed.
    """

    def __init__(self, training: ReconTraining, encoder: Encoder, perceptual: Tpips, network: Recon | None = None):
        self.training, self.encoder, self.network = training, encoder, network
        self.perceptual = ReplayedPerceptual(perceptual) if recordable(encoder.device) else perceptual
        self.replayed = ReplayedByShape(lambda: AllSplats(network))

    def losses(self, network: nn.Module, samples: Sequence[Sample], stage: Stage) -> dict[str, Tensor]:
        """Terms of the loss, averaged over all target pictures of the samples."""
        weights = LossWeights(
            perceptual=self.training.perceptual, depth=self.training.depth, opacity=stage.opacity_weight
        )
        total, images = {}, sum(len(sample.targets) for sample in samples)
        for group in by_views(samples):
            frames, clouds = self.predict(network, group, stage)
            targets, depth = (torch.stack([getattr(s, n) for s in group]).to(frames.rgb) for n in ("targets", "depth"))
            opacities = torch.cat([cloud.opacities for cloud in clouds])
            shape = targets.shape[:2]
            terms = total_loss(
                frames.rgb.unflatten(0, shape), targets, frames.depth.unflatten(0, shape), depth, opacities, weights,
                self.perceptual, stage.perceptual_chunk,
            )  # fmt: skip
            share = math.prod(shape) / images
            for name, term in terms.items():
                total[name] = total.get(name, 0) + share * term
        return {"loss": total.pop("total"), **total}

    def predict(self, network: nn.Module, group: Sequence[Sample], stage: Stage) -> tuple[Frames, list[Gaussians]]:
        """Renders of samples with equally many views and targets, one sample after another, and their splats."""
        inputs = self.encoder.inputs(group, network.enc_norm.weight.dtype)
        is_step = network is self.network and torch.is_grad_enabled()
        clouds = decode(self.replayed if is_step else AllSplats(network), inputs, stage.keep, self.training.fusion)
        parts = [
            render_deferred(cloud, sample.target_cameras, at_once=RENDERS_AT_ONCE)
            for cloud, sample in zip(clouds, group, strict=True)
        ]
        rgb, alpha, depth = (torch.cat([getattr(part, name) for part in parts]) for name in ("rgb", "alpha", "depth"))
        return Frames(rgb=rgb, alpha=alpha, depth=depth), clouds

    def validate(
        self, network: nn.Module, samples: Sequence[Sample], stage: Stage, kind: str
    ) -> tuple[dict[str, float], Rows]:
        """PSNR, SSIM and sharpness of renders against the teacher's frames, named after the ``kind`` of samples.

        And pictures of a few: the teacher's frames above the renders.
        """
        rows, scores = [], []
        with torch.no_grad():
            for sample in samples:
                frames, _ = self.predict(network, [sample], stage)
                truth = sample.targets.to(frames.rgb)
                scores.append(compare(frames.rgb.clamp(0, 1), truth, perceptual=self.perceptual))
                scores[-1]["sharpness"] = sharpness(frames.rgb.clamp(0, 1)) / sharpness(truth)
                scores[-1]["alpha"] = frames.alpha.mean((1, 2))
                rows += [(f"teacher {plain_name(sample.scene)}", sample.targets[:6]), ("splats", frames.rgb[:6])]
        means = {name: torch.cat([score[name] for score in scores]).mean().item() for name in scores[0]}
        return {f"{kind}_{name}": value for name, value in means.items()}, rows[: 2 * PICTURED]


class AllSplats(nn.Module):
    """The decoder as a function of tensors with outputs of fixed shapes: all splats of all scenes."""

    def __init__(self, network: Recon):
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The fields of ReconInputs, those that there are, to the FIELDS of Gaussians, [B, N, ...] each."""
        names = (field.name for field in fields(ReconInputs))
        clouds = self.network(ReconInputs(**dict(zip(names, tensors, strict=False))), keep=1.0)
        return tuple(torch.stack([getattr(cloud, name) for cloud in clouds]) for name in FIELDS)


class ReplayedPerceptual:
    """A perceptual distance of all pictures at once, recorded and replayed."""

    def __init__(self, perceptual: Tpips):
        self.name, self.distance = perceptual.name, ReplayedByShape(lambda: perceptual.distance)

    def __call__(self, pictures: Tensor, targets: Tensor, chunk: int = 1) -> Tensor:
        """Distance of each pair of frames [B, N, H, W, 3] in [0, 1]: [B, N]."""
        pair = (frames.flatten(0, 1).permute(0, 3, 1, 2) * 2 - 1 for frames in (pictures, targets))
        return self.distance(*pair).unflatten(0, pictures.shape[:2])


def decode(
    network: Callable[..., tuple[Tensor, ...]], inputs: ReconInputs, keep: float, fusion: bool
) -> list[Gaussians]:
    """Splats of each scene by AllSplats; without ``fusion`` each view is decoded, and pruned, alone."""
    views = 1 if fusion else inputs.latents.shape[1]
    shown = inputs if fusion else each_alone(inputs)
    tensors = (getattr(shown, field.name) for field in fields(shown))
    found = network(*(tensor for tensor in tensors if tensor is not None))
    clouds = [Gaussians(**dict(zip(FIELDS, of_scene, strict=True))) for of_scene in zip(*found, strict=True)]
    clouds = clouds if keep == 1 else [cloud.most_opaque(keep) for cloud in clouds]
    return [concatenate(clouds[i : i + views]) for i in range(0, len(clouds), views)]

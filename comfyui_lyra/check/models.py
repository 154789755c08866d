"""First light of the models that are given, one after another, each brought to the device when its turn comes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import torch

from ..callbacks import OnStep, no_progress
from ..configs import TEACHER_PRESETS
from ..cost.recon import plan
from ..cost.report import TEACHER_SHARE, TOKENIZER_SHARE, duration, encode_flops, matmul_speed, stages
from ..gen3c.load import Teacher
from ..recon.model import Recon
from ..recon.schedule import DEFAULT, Schedule
from ..tokenizer.model import CosmosTokenizer
from . import first_light as checks
from .bounds import Bounds, bounds_of
from .report import Finding, Section, Tell, tell_nobody
from .scene import Stage
from .stages import FAULTS, first_line

LEAST_BUDGET = 2**31  # bytes to work in where the device does not tell


@dataclass(frozen=True, kw_only=True)
class Models:
    """What is looked at: functions that bring a model to where it computes, in the precision that it computes in."""

    tokenizer: Callable[[], CosmosTokenizer]
    teacher: Callable[[], Teacher] | None = None
    recon: Callable[[], Recon] | None = None


@dataclass
class Steps:
    """Counts work over all models, and tells a host that work goes on."""

    on_step: OnStep
    total: int
    done: int = 0
    numbers: count = field(default_factory=lambda: count(1))

    def step(self) -> None:
        """One part more is done."""
        self.done = next(self.numbers)
        self.on_step(min(self.done, self.total), self.total)

    def alive(self, *_: int) -> None:
        """Nothing more is done yet; the host may stop here too."""
        self.on_step(min(self.done, self.total), self.total)


def first_light(
    models: Models,
    device: torch.device,
    tell: Tell = tell_nobody,
    on_step: OnStep = no_progress,
) -> tuple[Section, ...]:
    """Every check of each model that is given; ``tell`` hears beforehand how long each takes.

    ``on_step`` counts and may raise to stop. A model that cannot be loaded or raises fails, and the next one begins.
    """
    total = checks.STEPS_TOKENIZER
    total += checks.STEPS_TEACHER if models.teacher else 0
    total += checks.steps_recon(device.type != "cpu") if models.recon else 0
    steps, sections = Steps(on_step, total), []
    for title, some in (
        ("Tokenizer", of_tokenizer), ("Teacher", of_teacher), ("Splat decoder", of_recon),
    ):  # fmt: skip
        findings, notes = [], []
        try:
            for finding in some(models, device, steps, tell, notes.append):
                findings.append(finding)
        except FAULTS as error:
            name = f"{title.lower()}: runs"
            findings.append(Finding(name=name, found=first_line(error), works=False, wanted="no error"))
        if findings:
            sections.append(
                Section(title=f"First light: {title.lower()}", findings=tuple(findings), note=" ".join(notes))
            )
    return tuple(sections)


def of_tokenizer(models: Models, device: torch.device, steps: Steps, tell: Tell, note: Tell) -> Iterator[Finding]:
    """The tokenizer's checks, at the size that its family is trained at."""
    tokenizer = models.tokenizer()
    size, frames = sizes_of(tokenizer.family)
    dtype = next(tokenizer.autoencoder.parameters()).dtype
    work = 3 * encode_flops(tokenizer.config, frames, *size) / TOKENIZER_SHARE
    announce("tokenizer", work, device, dtype, tell)
    bounds = describe(tokenizer.family, dtype, note)
    yield from checks.tokenizer_checks(tokenizer, Stage.at(size, frames, device), bounds, steps.step)


def of_teacher(models: Models, device: torch.device, steps: Steps, tell: Tell, note: Tell) -> Iterator[Finding]:
    """The teacher's checks."""
    if models.teacher is None:
        return
    tokenizer, teacher = models.tokenizer(), models.teacher()
    config = teacher.config
    belongs(tokenizer.family, config.family, "teacher")
    stage = Stage.at(config.trained_size, config.trained_frames, device)
    (stages_of_one,) = stages(
        stage.paths[:1], teacher=config, steps=checks.STEPS_TEACHER, guidance=0.0, dtype=teacher.dtype
    )
    encodes = 6 * encode_flops(tokenizer.config, config.trained_frames, *config.trained_size) / TOKENIZER_SHARE
    announce("teacher", stages_of_one.flops / TEACHER_SHARE + encodes, device, teacher.dtype, tell)
    bounds = describe(config.family, teacher.dtype, note)
    yield from checks.teacher_checks(teacher, tokenizer, stage, bounds, steps.step, steps.alive)


def of_recon(models: Models, device: torch.device, steps: Steps, tell: Tell, note: Tell) -> Iterator[Finding]:
    """The splat decoder's checks."""
    if models.recon is None:
        return
    tokenizer, recon = models.tokenizer(), models.recon()
    config, dtype = recon.config, recon.enc_norm.weight.dtype
    belongs(tokenizer.family, config.family, "splat decoder")
    stage = Stage.at(config.trained_size, config.trained_frames, device)
    found = stages(stage.paths, tokenizer=tokenizer.config, recon=config, dtype=dtype)
    work = sum(stage.flops / stage.share for stage in found)
    work += 8 * encode_flops(tokenizer.config, config.trained_frames, *config.trained_size) / TOKENIZER_SHARE
    announce("splat decoder", work, device, dtype, tell)
    bounds, schedule = describe(config.family, dtype, note), schedule_for(recon, stage, device)
    yield from checks.recon_checks(
        recon, tokenizer, stage, bounds, steps.step,
        schedule=schedule, compare=device.type != "cpu", alive=steps.alive,
    )  # fmt: skip


def belongs(tokenizer: str, other: str, name: str) -> None:
    """Raise ValueError unless a model is of the tokenizer's family."""
    if tokenizer != other:
        raise ValueError(
            f"tokenizer of family '{tokenizer}' and {name} of family '{other}' do not belong together; name the "
            f"tokenizer of family '{other}' too"
        )


def sizes_of(family: str) -> tuple[tuple[int, int], int]:
    """Trained size (height, width) and frames of a family."""
    config = next((c for c in TEACHER_PRESETS.values() if c.family == family), TEACHER_PRESETS["gen3c"])
    return config.trained_size, config.trained_frames


def announce(name: str, work: float, device: torch.device, dtype: torch.dtype, tell: Tell) -> None:
    """Say how long a model's checks will take: ``work`` is in operations at the speed of a matrix product."""
    tell(f"First light of the {name}: about {duration(max(5.0, work / matmul_speed(device, dtype)))}, roughly")


def describe(family: str, dtype: torch.dtype, note: Tell) -> Bounds:
    """The family's bounds, and what the report says of them."""
    bounds = bounds_of(family)
    precision = str(dtype).removeprefix("torch.")
    note(f"Family '{family}', {precision}. " + (
        "The limits are provisional: they come from the mini models, and nobody has measured these weights with them."
        if bounds.provisional else "The limits were measured on these models."
    ))  # fmt: skip
    return bounds


def schedule_for(recon: Recon, stage: Stage, device: torch.device) -> Schedule:
    """The largest pieces that the device's free memory allows; the default on a CPU."""
    if device.type == "cpu":
        return DEFAULT
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else LEAST_BUDGET
    path, dtype = stage.paths[0], recon.enc_norm.weight.dtype
    return plan(recon.config, len(stage.paths), len(path), path.height, path.width, int(0.7 * free), dtype).schedule

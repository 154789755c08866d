"""Verbs that make and measure the mini models: draw-scene, train-*, evaluate."""

import argparse
from dataclasses import replace
from pathlib import Path

from ..configs import RECON_PRESETS, TEACHER_PRESETS, ReconConfig
from ..files.scenes.sample import save_sample
from ..gen3c.generate import GenerateSettings
from ..gen3c.load import Teacher, load_teacher
from ..recon.load import load_recon
from ..recon.model import Recon
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..training.data.sdg_memory import SDG_SETTINGS
from ..training.evaluate import Evaluation, evaluate
from ..training.run.processes import Processes
from ..training.stages import Stage
from ..training.train_mini import train_mini
from ..training.train_recon import ReconTraining, teacher_dtype, train_recon
from ..training.train_teacher import TeacherTraining, train_teacher
from ..training.train_tokenizer import TokenizerTraining, train_tokenizer
from ..training.world.draw_scenes import draw_scene, source_geometry
from ..weights.shipped import Model, shipped_model
from .fields import filled

MAKING = ("teacher", "scenes", "data")  # options about how the splat decoder's scenes are made


def run_draw_scene(options: argparse.Namespace) -> None:
    """Draw a scene at the mini models' size."""
    config = TEACHER_PRESETS["mini"]
    scene = draw_scene(options.seed, options.moving)
    geometry = source_geometry(scene, *config.trained_size, config.trained_frames if options.moving else 1)
    for file in save_sample(options.out, geometry):
        print(file)


def run_train_tokenizer(options: argparse.Namespace) -> None:
    """Train the tokenizer."""
    print(train_tokenizer(options.out, **beginning(options, TokenizerTraining()), **time_box(options)))


def run_train_teacher(options: argparse.Namespace) -> None:
    """Train the teacher."""
    tokenizer = options.tokenizer or shipped_model("tokenizer")
    print(train_teacher(options.out, tokenizer, **beginning(options, TeacherTraining()), **time_box(options)))


def run_train_recon(options: argparse.Namespace) -> None:
    """Train a splat decoder."""
    check_recon(options)
    training = recon_training(options)
    teacher = None if options.roots else options.teacher or shipped_model("teacher")
    file = train_recon(
        options.out, options.tokenizer or shipped_model("tokenizer"), teacher,
        stages=plan_of(options, training), roots=options.roots, after=options.after,
        config=recon_config(options), training=training, **time_box(options),
    )  # fmt: skip
    print(file)


def run_train_mini(options: argparse.Namespace) -> None:
    """Train all."""
    for file in train_mini(options.out, options.parts, max_seconds=options.max_seconds, device=options.device):
        print(file)


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    processes = Processes(options.device)
    options.device = processes.device
    evaluate(
        options.out, tokenizer_of(options), teacher_of(options),
        recon_of(options, "static", "recon_static"), recon_of(options, "dynamic", "recon_dynamic"),
        evaluation(options),
    )  # fmt: skip
    page = options.out / "evaluation.md"
    if processes.is_first:
        print(page.read_text(encoding="utf-8"), page, sep="\n")


def beginning(options: argparse.Namespace, training: TokenizerTraining | TeacherTraining) -> dict[str, object]:
    """What a run begins with, and how it goes on."""
    return {"init_from": options.init_from, "training": filled(training, options)}


def check_recon(options: argparse.Namespace) -> None:
    """Raise ValueError for words that would mean nothing beside others."""
    said = [name for name in MAKING if getattr(options, name) is not None]
    if options.roots and said:
        raise ValueError(f"--{said[0]} is about making scenes, and --roots brings some that are made; leave one out")
    if options.pace is None and any(stop is not None for _, stop in options.stages):
        raise ValueError("with --pace time the stages end with their share of it; give --stages without steps")


def recon_training(options: argparse.Namespace) -> ReconTraining:
    """How the splat decoder is trained."""
    training = filled(ReconTraining(), options, pace=options.pace)
    return training if options.scenes is None else replace(training, moving_scenes=options.scenes)


def recon_config(options: argparse.Namespace) -> ReconConfig | None:
    """The network; None is the preset that the stages ask for."""
    return replace(RECON_PRESETS["mini_static"], attention_every=1) if options.all_attention else None


def plan_of(options: argparse.Namespace, training: ReconTraining) -> list[str | Stage]:
    """The stages, by name but for those that end at steps of their own."""
    return [name if stop is None else replace(training.stage(name), stop=stop) for name, stop in options.stages]


def evaluation(options: argparse.Namespace) -> Evaluation:
    """Which scenes are looked at, and how closely."""
    lengths = Evaluation.lengths if options.lengths is None else (options.lengths,)
    return filled(Evaluation(), options, settings=sampling(options), lengths=lengths)


def sampling(options: argparse.Namespace) -> GenerateSettings:
    """How the teacher samples."""
    return filled(SDG_SETTINGS, options)


def tokenizer_of(options: argparse.Namespace) -> CosmosTokenizer:
    """The tokenizer, where and as it is used."""
    return load_tokenizer(options.tokenizer or shipped_model("tokenizer")).float().to(options.device)


def teacher_of(options: argparse.Namespace) -> Teacher:
    """The teacher, where and as it is used."""
    file = options.teacher or shipped_model("teacher")
    teacher = load_teacher(file, dtype=teacher_dtype(options.device))
    teacher.to(options.device).network.requires_grad_(False)
    return teacher


def recon_of(options: argparse.Namespace, kind: str, model: Model) -> Recon | None:
    """A splat decoder, where and as it is used; None if it is left out."""
    if options.only not in (None, kind):
        return None
    file: Path = getattr(options, kind) or shipped_model(model)
    return load_recon(file).float().to(options.device).requires_grad_(False)


def time_box(options: argparse.Namespace) -> dict[str, object]:
    """How long and where a run goes on."""
    return {"max_seconds": options.max_seconds, "resume": options.resume, "device": options.device}

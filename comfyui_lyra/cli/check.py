"""The verb ``check``: the machine, files, or models at their first use."""

import argparse
from functools import cache, partial
from pathlib import Path

import torch

from ..check.files import file_checks
from ..check.machine import fast_kernels, machine
from ..check.models import Models, first_light
from ..check.report import Report, Section
from ..check.stages import PRECISIONS, stages
from ..gen3c.load import Teacher, load_teacher
from ..recon.checkpoint import load_recon
from ..recon.model import Recon
from ..shipped import shipped_model
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from .options import progress
from .verbs import DTYPES

OURS = {"teacher": "teacher", "tokenizer": "tokenizer", "recon": "recon_static"}  # what stands for no file


class NotAllWorks(ValueError):
    """What was checked will not all work; the report has been printed."""


def run_check(options: argparse.Namespace) -> None:
    """Look, print the report, and fail unless all works."""
    report = Report(sections=look(options))
    if options.out:
        options.out.write_text(str(report), encoding="utf-8")
    print(report, flush=True)
    if not report.works:
        raise NotAllWorks("not all works; the report says what does not")


def look(options: argparse.Namespace) -> tuple[Section, ...]:
    """What the options ask for: files, models at their first use, or else the machine."""
    device = torch.device(options.device)
    named = {name: getattr(options, name) for name in OURS if getattr(options, name) is not None}
    files = [*options.files, *(file for file in named.values() if file != Path())]
    found = [file_checks(file, progress(file.name)) for file in files]
    if named:
        found += first_light(models_of(named, device, DTYPES[options.dtype]), device, say, progress("first light"))
    if not files and not named:
        say("The machine: two minutes at most on two CPU cores.")
        found += [*machine(device, Path()), *stages(device, PRECISIONS, say, progress("check"))]
    return (*found, fast_kernels()) if device.type == "cuda" or not files else tuple(found)


def models_of(named: dict[str, Path], device: torch.device, dtype: torch.dtype) -> Models:
    """What brings the files that were named; the shipped ones stand for an empty name and for no tokenizer."""
    files = {name: file if file != Path() else shipped_model(OURS[name]) for name, file in named.items()}
    tokenizer = files.get("tokenizer", shipped_model("tokenizer"))
    return Models(
        tokenizer=cache(partial(bring_tokenizer, tokenizer, device, dtype)),
        teacher=partial(bring_teacher, files["teacher"], device, dtype) if "teacher" in files else None,
        recon=partial(bring_recon, files["recon"], device, dtype) if "recon" in files else None,
    )


def bring_tokenizer(file: Path, device: torch.device, dtype: torch.dtype) -> CosmosTokenizer:
    """A tokenizer where it computes."""
    return load_tokenizer(file).to(device, dtype)


def bring_teacher(file: Path, device: torch.device, dtype: torch.dtype) -> Teacher:
    """A teacher where it computes."""
    teacher = load_teacher(file, dtype=dtype)
    teacher.network.to(device)
    return teacher


def bring_recon(file: Path, device: torch.device, dtype: torch.dtype) -> Recon:
    """A splat decoder where it computes."""
    return load_recon(file).to(device, dtype)


def say(line: str) -> None:
    """Tell at once what is about to be done."""
    print(line, flush=True)

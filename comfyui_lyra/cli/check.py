"""The verb ``check``: the machine, files, or models at their first use."""

import argparse
from functools import cache, partial
from pathlib import Path

import torch

from ..check.everything import check_all
from ..check.models import Models
from ..files.atomic import replacing
from ..gen3c.load import Teacher, load_teacher
from ..recon.load import load_recon
from ..recon.model import Recon
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..weights.shipped import shipped_model
from .options import progress
from .verbs import DTYPES

OURS = {"teacher": "teacher", "tokenizer": "tokenizer", "recon": "recon_static"}  # what stands for no file


class NotAllWorks(ValueError):
    """What was checked will not all work; the report has been printed."""


def run_check(options: argparse.Namespace) -> None:
    """Look at what the options name, or else at the machine; print the report, and fail if anything does."""
    device = torch.device(options.device)
    named = {name: getattr(options, name) for name in OURS if getattr(options, name) is not None}
    files = [*options.files, *(file for file in named.values() if file != Path())]
    report = check_all(
        device, Path(), models_of(named, device, DTYPES[options.dtype]) if named else None,
        files=files, whole_machine=not files and not named, tell=say, progress=progress,
    )  # fmt: skip
    print(report, flush=True)
    if options.out:
        with replacing(options.out) as temporary:
            temporary.write_text(str(report), encoding="utf-8")
    if report.failing:
        raise NotAllWorks("not all works; the report says what does not")


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
    teacher.to(device)
    return teacher


def bring_recon(file: Path, device: torch.device, dtype: torch.dtype) -> Recon:
    """A splat decoder where it computes."""
    return load_recon(file).to(device, dtype)


def say(line: str) -> None:
    """Tell at once what is about to be done."""
    print(line, flush=True)

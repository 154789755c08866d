"""The verb ``check``: the machine, files, or models at their first use."""

import argparse
from pathlib import Path

import torch

from ..check.machine import fast_kernels, machine
from ..check.report import Report
from ..check.stages import PRECISIONS, stages
from .options import progress


class NotAllWorks(ValueError):
    """What was checked will not all work; the report has been printed."""


def run_check(options: argparse.Namespace) -> None:
    """Look, print the report, and fail unless all works."""
    report = Report(sections=look(options))
    text = str(report)
    if options.out:
        Path(options.out).write_text(text, encoding="utf-8")
    print(text, flush=True)
    if not report.works:
        raise NotAllWorks("not all works; the report says what does not")


def look(options: argparse.Namespace) -> tuple:
    """The sections that the options ask for."""
    print("The machine: about a minute on two CPU cores.", flush=True)
    device = torch.device(options.device)
    found = machine(device, Path())
    ran = stages(device, PRECISIONS, lambda line: print(line, flush=True), progress("check"))
    return *found, *ran, fast_kernels()

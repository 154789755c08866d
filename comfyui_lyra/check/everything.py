"""The whole check, as the node and the shell verb call it: the machine, files, models."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..callbacks import OnStep, no_progress
from .files import file_checks
from .machine import fast_kernels, machine
from .models import Models, first_light
from .report import Report, Section, Tell, tell_nobody
from .stages import PRECISIONS, stages

Progress = Callable[[str], OnStep]


def check_all(
    device: torch.device,
    folder: Path,
    models: Models | None = None,
    *,
    files: Sequence[Path] = (),
    whole_machine: bool = True,
    inside: Mapping[str, str] | None = None,
    tell: Tell = tell_nobody,
    progress: Progress = lambda label: no_progress,
) -> Report:
    """Everything that is asked for: the machine, files, and the first light of models.

    ``folder`` is on the disk that will be written to, ``inside`` names what this runs inside and its version. The
    callbacks of ``progress`` may raise to stop.
    """
    sections: list[Section] = [file_checks(file, progress(file.name)) for file in files]
    if whole_machine:
        tell("The machine: two minutes at most on two CPU cores")
        sections += machine(device, folder, inside)
        sections += stages(device, PRECISIONS, tell, progress("mini models"))
    if models:
        sections += first_light(models, device, tell, progress("first light"))
    if whole_machine or models:
        sections.append(fast_kernels())  # at the end: by then each has been tried out
    return Report(sections=tuple(sections))

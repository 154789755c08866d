"""The recipe of the shipped mini models: each is trained on what the one before has learned, in the time there is."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from .run.processes import Processes
from .train_recon import ReconTraining, train_recon
from .train_teacher import train_teacher
from .train_tokenizer import train_tokenizer

SHARES = {"tokenizer": 5.0, "teacher": 4.0, "static": 5.0, "dynamic": 3.0}  # of the time
NAMES = {"tokenizer": "tokenizer", "teacher": "teacher", "static": "recon_static", "dynamic": "recon_dynamic"}


def train_mini(
    out: Path | str,
    parts: Sequence[str] = tuple(SHARES),
    *,
    max_seconds: float,
    device: torch.device | str = "cpu",
) -> list[Path]:
    """Train some of SHARES in their order, each in a folder of its name in ``out``; their files.

    The parts share the time, for machines that are had for minutes only: what a part builds on is found in ``out`` if
    an earlier call has made it, or FileNotFoundError.
    """
    out, processes, begun = Path(out), Processes(device), time.monotonic()
    if unknown := [part for part in parts if part not in SHARES]:
        raise ValueError(f"no part is called '{unknown[0]}'; use some of {', '.join(SHARES)}")
    parts = [part for part in SHARES if part in parts]
    files = {part: out / part / f"mini_{name}.safetensors" for part, name in NAMES.items()}
    for number, part in enumerate(parts, start=1):
        for needed in list(SHARES)[: list(SHARES).index(part)]:
            if not files[needed].exists():
                raise FileNotFoundError(f"{part}: {files[needed]} is not there; train the part '{needed}' first")
        share = sum(SHARES[name] for name in parts[:number]) / sum(SHARES[name] for name in parts)
        left = begun + max_seconds * share - time.monotonic()
        settings = {"max_seconds": left, "device": processes.device}
        if part == "tokenizer":
            train_tokenizer(out / part, **settings)
        elif part == "teacher":
            train_teacher(out / part, files["tokenizer"], **settings)
        else:
            train_recon(
                out / part, files["tokenizer"], files["teacher"], training=ReconTraining(pace=None),
                stages=("m3", "m4", "m5") if part == "static" else ("m6", "m7"),
                after=None if part == "static" else out / "static" / "m4", **settings,
            )  # fmt: skip
        processes.wait()
        if processes.device.type == "cuda":
            torch.cuda.empty_cache()
    return [files[part] for part in parts]

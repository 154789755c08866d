"""Checkpoints that a kill at any moment leaves loadable (training.md 8).

A checkpoint is ``step-<number>.json`` and the safetensors files it lists with their SHA-256: weights, their moving
average under ``ema.``, and apart from them the optimiser's memory. It exists once its json does, which is written
last. Nothing is pickled.
"""

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ...files.atomic import writing
from ...files.reading import one_line, parse_json, reading
from ...versions import pack_version

log = logging.getLogger("lyra")

VERSION = 1  # of the layout
Json = dict[str, "str | int | float | bool | None | Json | list"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Snapshot:
    """Everything a run needs to go on."""

    step: int
    stage: str
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] = field(default_factory=dict)
    ema_updates: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)  # Optimizer.state()
    rng: dict[str, str] = field(default_factory=dict)  # Streams.state()
    config: Json = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def save_snapshot(folder: Path | str, snapshot: Snapshot) -> Path:
    """Write a checkpoint, then remove older ones.

    Files come to the disk under temporary names, are renamed, and only then named by the json. Returns its path.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clear_temporaries(folder)  # of a save that was killed
        try:
            target = write_snapshot(folder, snapshot)
        finally:
            clear_temporaries(folder)
    prune(folder, snapshot.step)
    return target


def write_snapshot(folder: Path, snapshot: Snapshot) -> Path:
    """Write the files of a checkpoint, the json last; its path."""
    groups = {
        "": snapshot.weights | {f"ema.{name}": tensor for name, tensor in snapshot.ema.items()},
        ".state": snapshot.optimizer,
    }
    digests, written = {}, []
    for group, tensors in groups.items():
        if tensors:
            data, path = save(on_cpu(tensors)), free_name(folder, snapshot.step, group, digests)
            digests[path.name] = hashlib.sha256(data).hexdigest()
            written.append((write_temporary(path, data), path))
    for temporary, path in written:
        os.replace(temporary, path)
    flush_folder(folder)
    about = {
        "format": VERSION,
        "step": snapshot.step,
        "stage": snapshot.stage,
        "config": snapshot.config,
        "config_hash": config_hash(snapshot.config),
        "ema_updates": snapshot.ema_updates,
        "rng": snapshot.rng,
        "metrics": snapshot.metrics,
        "sha256": digests,
        "versions": {
            "lyra": pack_version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "safetensors": safetensors.__version__,
        },
    }
    target = folder / f"{stem(snapshot.step)}.json"
    os.replace(write_temporary(target, json.dumps(about, indent=1).encode()), target)
    flush_folder(folder)
    return target


def load_snapshot(path: Path | str) -> Snapshot:
    """Read the checkpoint of a json file; ValueError unless every file is there with its SHA-256."""
    path = Path(path)
    try:
        with reading(path) as file:
            about = parse_json(file.read_bytes())
        if about["format"] != VERSION:
            raise ValueError(f"layout {about['format']}, this program reads {VERSION}")
        if about["config_hash"] != config_hash(about["config"]):
            raise ValueError("its config was changed after it was written")
        tensors: dict[bool, dict[str, Tensor]] = {False: {}, True: {}}
        for name, digest in about["sha256"].items():
            data = (path.parent / Path(name).name).read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError(f"{name} is damaged or cut short")
            tensors[".state" in name] |= load(data)
        weights, prefix = tensors[False], "ema."
        return Snapshot(
            step=about["step"],
            stage=about["stage"],
            weights={name: tensor for name, tensor in weights.items() if not name.startswith(prefix)},
            ema={name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)},
            optimizer=tensors[True],
            **{name: about[name] for name in ("ema_updates", "rng", "config", "metrics")},
        )
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"checkpoint {path} cannot be loaded: {one_line(error)}") from error


def latest(folder: Path | str, required: bool = False) -> Snapshot | None:
    """The newest checkpoint that loads, or None. Broken ones are renamed to ``.corrupt``, and nothing is deleted.

    ``required`` makes a folder without any a FileNotFoundError.
    """
    folder, broken = Path(folder), 0
    for step in reversed(steps(folder)):
        try:
            return load_snapshot(folder / f"{stem(step)}.json")
        except ValueError as error:
            log.warning("%s; set aside as .corrupt, an earlier one is used", error)
            broken += 1
            for path in sorted(files_of(folder, step), key=lambda p: p.suffix != ".json"):  # the json first
                os.replace(path, unused(path.with_name(f"{path.name}.corrupt")))
    if required:
        raise FileNotFoundError(f"{folder}: no checkpoint to resume from ({broken} broken ones set aside as .corrupt)")
    return None


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str, may_miss: Sequence[str] = ()) -> None:
    """Copy weights into a model: all of its own and no others, of equal shape.

    Weights whose names match one of the patterns ``may_miss`` may be absent and keep their values: for a stage that
    starts from the weights of a model without them. ``source`` names the weights in errors.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state and not any(re.search(p, name) for p in may_miss)]
    foreign = [name for name in state if name not in wanted]
    if missing or foreign:
        raise ValueError(
            f"{source} does not fit {type(model).__name__}: {len(missing)} missing (first: {missing[:1]}), "
            f"{len(foreign)} unexpected (first: {foreign[:1]})"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{source} does not fit {type(model).__name__}: {name} is {tuple(tensor.shape)}, expected "
                f"{tuple(wanted[name].shape)}"
            )
    model.load_state_dict(state, strict=False)


def config_hash(config: Json) -> str:
    """SHA-256 of a configuration, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def stem(step: int) -> str:
    """How the names of a checkpoint's files begin."""
    return f"step-{step:08d}"


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending."""
    found = (re.fullmatch(r"step-(\d{8,})\.json", path.name) for path in folder.glob("step-*.json"))
    return sorted(int(match[1]) for match in found if match)


def files_of(folder: Path, step: int) -> list[Path]:
    """The json and the tensor files of a step, whoever wrote them; what was set aside is not among them."""
    return [path for path in folder.glob(f"{stem(step)}.*") if path.suffix in (".json", ".safetensors")]


def free_name(folder: Path, step: int, group: str, taken: Iterable[str]) -> Path:
    """A name that no file has: a step that is saved again must not touch what its json still lists."""
    names = (f"{stem(step)}{group}{number and f'.{number}' or ''}.safetensors" for number in range(10_000))
    return folder / next(name for name in names if name not in taken and not (folder / name).exists())


def unused(path: Path) -> Path:
    """The path, or one with a number behind it that does not exist."""
    number = 1
    while path.exists():
        path, number = path.with_name(f"{path.name}.{number}"), number + 1
    return path


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses memory that two names share."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def write_temporary(path: Path, data: bytes) -> Path:
    """Bring data to the disk under a name that no reader looks at."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def flush_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def prune(folder: Path, newest: int) -> None:
    """Remove older checkpoints, and files that none lists: of a repeated save, or a killed one."""
    for step in [step for step in steps(folder) if step < newest]:
        for path in sorted(files_of(folder, step), key=lambda p: p.suffix != ".json"):  # without it, it is none
            path.unlink()
    listed = {path for step in steps(folder) for path in listed_files(folder, step)}
    for path in folder.glob("step-*.safetensors"):
        if path not in listed:
            path.unlink()


def clear_temporaries(folder: Path) -> None:
    """Remove what saves that did not end have left; a run is the only one that writes its folder."""
    for path in folder.glob(".step-*.tmp"):
        path.unlink(missing_ok=True)


def listed_files(folder: Path, step: int) -> list[Path]:
    """The tensor files that a checkpoint's json names; every one of its step if the json cannot be read."""
    try:
        return [folder / name for name in parse_json((folder / f"{stem(step)}.json").read_bytes())["sha256"]]
    except (OSError, KeyError, TypeError, ValueError):
        return files_of(folder, step)

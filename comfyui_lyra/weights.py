"""Checkpoints: read without unpickling objects, renamed by a table, loaded strictly."""

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .files.atomic import replacing

Rules = Sequence[tuple[str, str | None]]  # (pattern, replacement), None drops the key; applied in order
Model = TypeVar("Model", bound=nn.Module)
Config = TypeVar("Config")


def read_file(path: Path) -> Any:
    """What a safetensors or torch file holds, on the CPU. Torch files are mapped, and only tensors are unpickled."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; download them or choose another file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch and safetensors raise many kinds, the unpickler's own among them
        raise ValueError(
            f"{path.name} is no readable checkpoint ({type(error).__name__}): a download that broke off (fetch it "
            "again), a TorchScript file, or one that holds more than tensors"
        ) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors or torch file; an outer ``model``, ``state_dict`` or ``module`` is opened."""
    state = read_file(path)
    for level in ("model", "state_dict", "module"):
        if isinstance(state, Mapping) and isinstance(state.get(level), Mapping):
            state = state[level]
    if not isinstance(state, Mapping):
        raise ValueError(f"{Path(path).name} holds a {type(state).__name__}; expected tensors by name")
    return dict(state)


def rename(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """The state under new names: every rule is applied to every name, in order."""
    renamed = {}
    for old, tensor in state.items():
        name: str | None = old
        for pattern, replacement in rules:
            if replacement is not None:
                name = re.sub(pattern, replacement, name)
            elif re.search(pattern, name):
                name = None
                break
        if name is not None and name in renamed:
            raise ValueError(f"two keys of the checkpoint are named '{name}' after renaming; the second is '{old}'")
        if name is not None:
            renamed[name] = tensor
    return renamed


def load_weights(model: Model, state: Mapping[str, Tensor], rules: Rules, source: str) -> Model:
    """Give a model built on ``meta`` the renamed tensors of ``state``: every one it has and no other.

    ``source`` names the file in errors. The tensors are taken over, not copied; the model is returned in eval mode.
    """
    state, wanted = rename(state, rules), model.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unexpected:
        raise ValueError(
            f"{source} does not fit {type(model).__name__}: {len(missing)} missing (first: {missing[:1]}), "
            f"{len(unexpected)} unexpected (first: {unexpected[:1]})"
        )
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"{source} does not fit {type(model).__name__}: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}; the file belongs to a model of another size"
            )
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that name the tensors: equal for equal names, precisions, shapes and values only."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def save_weights(file: Path, state: Mapping[str, Tensor], config: Any, licence: str = "") -> None:
    """One safetensors file that describes itself: the header holds family, licence and the configuration as JSON.

    ``config`` is a dataclass of numbers, words and tuples that has a ``family``.
    """
    about = {"family": config.family, "config": json.dumps(asdict(config)), "licence": licence}
    # copies, since weights may share memory and safetensors refuses that
    tensors = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in state.items()}
    with replacing(file) as temporary:
        save_file(tensors, temporary, about)


def read_about(file: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing where it is of another kind or cannot be read."""
    if Path(file).suffix != ".safetensors" or not Path(file).is_file():
        return {}
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except SafetensorError:  # ``read_state`` says what is wrong with it
        return {}


def stored_config(file: Path, kind: type[Config]) -> Config | None:
    """The configuration that ``save_weights`` put into a file; None if it holds none."""
    stored = read_about(file).get("config")
    if stored is None:
        return None
    try:
        values = json.loads(stored)
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{Path(file).name} describes no {kind.__name__} ({error}); it is of another kind of model, or of a newer "
            "version of this pack"
        ) from error

"""Weights: renamed by a table, loaded strictly, named by a fingerprint; our own files, which describe themselves."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...kernels_glue.memory import recall, remember
from ..callbacks import part
from ..files.atomic import replacing
from ..files.reading import parse_json
from ..versions import pack_version
from .checkpoints.quantised import Scaled, real
from .checkpoints.state import read_about

Rules = Sequence[tuple[str, str | None]]  # (pattern, replacement), None drops the key; applied in order
Model = TypeVar("Model", bound=nn.Module)
Config = TypeVar("Config")
Value = TypeVar("Value", Tensor, Tensor | Scaled)

LARGE = 2**20  # bytes, from which a thread digests a tensor: hashlib lets others work meanwhile
DIGESTED_AT_ONCE = 8


def rename(state: Mapping[str, Value], rules: Rules) -> dict[str, Value]:
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


def fitted(model: nn.Module, state: Mapping[str, Value], rules: Rules, source: str) -> dict[str, Value]:
    """The renamed tensors of ``state``: every one that the model has, in its shape, and no other.

    ``source`` names the file in errors.
    """
    state, wanted = rename(state, rules), model.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unexpected:
        raise ValueError(
            f"{source} does not fit {type(model).__name__}: {len(missing)} missing (first: {missing[:1]}), "
            f"{len(unexpected)} unexpected (first: {unexpected[:1]}); 'lyra info' says what the file is"
        )
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"{source} does not fit {type(model).__name__}: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}; the file belongs to a model of another size"
            )
    return state


def load_weights(
    model: Model,
    state: Mapping[str, Tensor | Scaled],
    rules: Rules,
    source: str,
    *,
    dtype: torch.dtype | None = None,
    name: "Fingerprint | None" = None,
    device: torch.device | None = None,
) -> Model:
    """Give a model built on ``meta`` the renamed tensors of ``state``: every one it has and no other.

    ``source`` names the file in errors. One tensor after another is taken over, or cast to ``dtype``; without it 8-bit
    weights become bfloat16. With a ``device`` it goes there at once: a mapped file then never lies in RAM as a whole.
    ``name`` is shown each as it is stored. The model is returned in eval mode.
    """
    stored = fitted(model, state, rules, source)
    taken = {}
    for key in sorted(stored):  # the order of a fingerprint, so that a file is read once
        if name is not None:
            with part("name weights"):
                name.add(key, stored[key])
        with part("read weights"):
            taken[key] = real(stored[key], dtype).to(device)
    model.load_state_dict(taken, strict=True, assign=True)
    return model.eval()


class Fingerprint:
    """16 hexadecimal digits that name tensors, shown in the order of their names.

    The digest of all tensors' digests, of which large ones are made in threads beside whatever else is done.
    """

    def __init__(self) -> None:
        self._digests: list[bytes | Future[bytes]] = []
        self._threads: ThreadPoolExecutor | None = None

    def add(self, name: str, value: Tensor | Scaled) -> None:
        """Take in a tensor: its name, precision, shape and values; of a quantised one also the scale."""
        for tensor in value.stored if isinstance(value, Scaled) else (value,):
            if tensor.nbytes < LARGE:
                self._digests.append(digest_of(name, tensor))
                continue
            self._threads = self._threads or ThreadPoolExecutor(DIGESTED_AT_ONCE)
            self._digests.append(self._threads.submit(digest_of, name, tensor))

    def __str__(self) -> str:
        found = hashlib.sha256()
        for digest in self._digests:
            found.update(digest if isinstance(digest, bytes) else digest.result())
        if self._threads:
            self._threads.shutdown()
        return found.hexdigest()[:16]


def digest_of(name: str, tensor: Tensor) -> bytes:
    """Of a tensor's name, precision, shape and values."""
    found = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
    found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.digest()


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that name the tensors: equal for equal names, precisions, shapes and values only."""
    found = Fingerprint()
    for name, tensor in sorted(state.items()):
        found.add(name, tensor)
    return str(found)


def known_fingerprint(files: Sequence[Path]) -> str | None:
    """The fingerprint of the weights in these files, if it was remembered and none of them has changed since.

    A file counts as unchanged while its place, size and time of change are the same.
    """
    return (recall("digests", _places(files)) or {}).get("fingerprint")


def remember_fingerprint(files: Sequence[Path], found: str) -> None:
    """Keep a fingerprint, so that the next start need not read every byte of the files for it."""
    remember("digests", _places(files), {"fingerprint": found})


def _places(files: Sequence[Path]) -> str:
    states = ((Path(file).resolve(), Path(file).stat()) for file in files)
    return "; ".join(f"{place} {state.st_size} {state.st_mtime_ns}" for place, state in states)


def save_weights(file: Path, state: Mapping[str, Tensor], config: Any, licence: str = "") -> None:
    """One safetensors file that describes itself: the header holds family, licence and the configuration as JSON.

    ``config`` is a dataclass of numbers, words and tuples that has a ``family``.
    """
    told = {"family": config.family, "config": json.dumps(asdict(config)), "licence": licence}
    about = told | {"pack": pack_version()}
    # copies, since weights may share memory and safetensors refuses that
    tensors = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in state.items()}
    with replacing(file) as temporary:
        save_file(tensors, temporary, about)


def stored_config(file: Path, kind: type[Config]) -> Config | None:
    """The configuration that ``save_weights`` put into a file; None if it holds none."""
    stored = read_about(file).get("config")
    if stored is None:
        return None
    try:
        values = parse_json(stored)
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{Path(file).name} describes no {kind.__name__} ({error}); it is of another kind of model, or of a newer "
            "version of this pack"
        ) from error

"""Tensors by name from a file of any form: containers opened, wrappers taken off, what is no tensor left out."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from .containers import AGAIN, WEIGHTS, container
from .parts import FOLDERS, parts_of
from .quantised import Scaled, with_scales
from .safetensors_files import read_header, read_safetensors
from .torch_files import read_legacy, read_zip
from .unpickle import Damaged, Inert

log = logging.getLogger("lyra")

# A checkpoint's levels; the averaged weights (ema) only where there are no others.
WRAPPERS = (
    "model",
    "module",
    "state_dict",
    "model_state_dict",
    "generator",
    "params",
    "ema",
    "ema_state_dict",
    "model_ema",
)
MODULE = ("_parameters", "_buffers", "_modules")  # where a pickled module keeps its tensors
DEEPEST = 40  # levels of modules in modules


def read_state(path: Path, subfolders: Sequence[str] = FOLDERS) -> dict[str, Tensor | Scaled]:
    """Weights by name of a file, an index, a shard or a folder, whatever its form; mapped where the form allows.

    A file that holds other things too is read all the same: nothing in it runs. Quantised weights come with their
    scales (see ``quantised.real``). Raises FileNotFoundError, and ValueError with what the file is and what to do.
    """
    state: dict[str, Tensor] = {}
    for part in parts_of(path, subfolders):
        state |= tensors_of(read_content(part), part.name)
    return with_scales(state, read_about(path, subfolders), Path(path).name)


def read_about(path: Path, subfolders: Sequence[str] = FOLDERS) -> dict[str, str]:
    """What a safetensors file says of itself; nothing where it is of another form or cannot be read."""
    try:
        first = parts_of(path, subfolders)[0]
        return dict(read_header(first).about) if container(first).kind == "safetensors" else {}
    except (OSError, ValueError):  # ``read_state`` says what is wrong with it
        return {}


def read_content(path: Path, is_described: bool = False) -> object:
    """What one file holds: tensors, plain containers, ``Inert`` things.

    Raises ValueError with what the file is and what to do, and FileNotFoundError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; download them or choose another file")
    found = container(path)
    if found.kind not in WEIGHTS:
        raise ValueError(f"{path.name} is {found.refusal}")
    try:
        if found.kind == "safetensors":
            return read_safetensors(path, is_described)
        return (read_legacy if found.kind == "torch legacy" else read_zip)(path, is_described)
    except Damaged as error:
        remedy = f" ({AGAIN})" if "broke off" in str(error) else ""
        raise ValueError(f"{path.name} is {found.sentence} that cannot be read: {error}{remedy}") from error


def tensors_of(content: object, name: str) -> dict[str, Tensor]:
    """Tensors by name inside the wrappers of a file's content; ``name`` is the file's, for errors."""
    inner, _ = unwrapped(content)
    if isinstance(inner, Inert):
        inner = dict(inside(inner))
    if not isinstance(inner, Mapping):
        raise ValueError(f"{name} holds a {type(inner).__name__}; expected tensors by name")
    state, others = {}, []
    for key, value in inner.items():
        if isinstance(value, Tensor):
            state[str(key)] = value
        elif isinstance(value, Inert) and (found := dict(inside(value))):
            state |= {f"{key}.{below}": tensor for below, tensor in found.items()}
        else:
            others.append(str(key))
    if others:
        log.info("%s: %d entries are no tensors and are left out (first: %s)", name, len(others), others[0])
    if not state:
        raise ValueError(f"{name} holds no tensors by name, only {', '.join(others[:3]) or 'nothing'}")
    return state


def unwrapped(content: object) -> tuple[object, tuple[str, ...]]:
    """The innermost level that holds a model's tensors, and the names of the levels around it."""
    levels: list[str] = []
    while isinstance(content, Mapping) and len(levels) < DEEPEST:
        level = next((key for key in WRAPPERS if is_level(content.get(key))), None)
        if level is None:
            break
        levels.append(level)
        content = content[level]
    return content, tuple(levels)


def is_level(value: object) -> bool:
    """Whether a checkpoint's entry holds a model."""
    return isinstance(value, Mapping | Inert) and any(inside(value))


def inside(thing: Inert | Mapping) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a module that was pickled whole, or of a TorchScript program; each module once."""
    waiting, seen = [("", thing, 0)], set()
    while waiting:
        prefix, module, depth = waiting.pop()
        if id(module) in seen or depth > DEEPEST:
            continue
        seen.add(id(module))
        attributes = module.state if isinstance(module, Inert) else module
        for key, value in attributes.items() if isinstance(attributes, Mapping) else ():
            name = prefix if key in MODULE and isinstance(module, Inert) else f"{prefix}{key}."
            if isinstance(value, Tensor):
                yield name[:-1], value
            elif isinstance(value, Inert | Mapping):
                waiting.append((name, value, depth + 1))

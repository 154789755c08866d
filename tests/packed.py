"""Reads packed goldens: seeded random numbers by their seed, all else as byte planes; bit-equal to what was recorded.

A file is xz over a line of JSON and the bytes of its tensors, one after another, each as the planes of its elements'
bytes ("rows": as they lie). The JSON gives, by key, dtype, shape and, where a prediction helps, its recipe; the bytes
are then the steps (of a float32's last place) from prediction to value. ``dev/pack_goldens.py`` writes such files.
"""

import json
import lzma
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def unpack(path: Path) -> dict[str, Tensor]:
    """Tensors of a packed file, by key."""
    line, _, data = lzma.decompress(path.read_bytes()).partition(b"\n")
    tensors, start = {}, 0
    for key, (dtype, shape, recipe) in json.loads(line).items():
        kind, count = getattr(torch, dtype), int(np.prod(shape))
        size = count * torch.empty(0, dtype=kind).element_size()
        raw = np.frombuffer(data, np.uint8, size, start)
        start += size
        if "rows" not in recipe:
            raw = raw.reshape(-1, count).T.copy()
        if recipe.keys() - {"rows"}:
            raw = stepped(predicted(recipe, count, tensors), raw.view(np.uint32)[:, 0])
        tensors[key] = torch.from_numpy(raw.reshape(-1).view(np.uint8).copy()).view(kind).reshape(shape)
    return tensors


def predicted(recipe: dict, count: int, tensors: dict[str, Tensor]) -> np.ndarray:
    """float32 [count]: another tensor of the file, or numbers as torch draws them on a CPU, scaled and shifted."""
    if "like" in recipe:
        return tensors[recipe["like"]].numpy().reshape(-1)
    drawn = DRAWS[recipe["draw"]](recipe["seed"], recipe["at"], count)
    return (drawn * recipe["scale"] + recipe["shift"]).astype(np.float32)


def uniform(seed: int, at: int, count: int) -> np.ndarray:
    """float64 [count] in [0, 1): 24 bits of each number of a Mersenne twister, from the ``at``-th on."""
    raw = np.random.RandomState(seed).randint(0, 2**32, at + count, dtype=np.uint32)[at:]
    return (raw & 0xFFFFFF) / 2**24


def normal(seed: int, at: int, count: int) -> np.ndarray:
    """float64 [count], count >= 16: Box-Muller over blocks of sixteen; a rest is drawn anew with its whole block."""
    drawn = uniform(seed, at, count + 16)
    whole, rest = count // 16 * 16, count % 16
    values = np.concatenate((box_muller(drawn[:whole]), drawn[whole:count]))
    if rest:
        values[-16:] = box_muller(drawn[count:])
    return values


def box_muller(drawn: np.ndarray) -> np.ndarray:
    first, second = np.moveaxis(drawn.reshape(-1, 2, 8), 1, 0)
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)


DRAWS = {"uniform": uniform, "normal": normal}


def ordered(values: np.ndarray) -> np.ndarray:
    """Bits of float32 as int32 that count up with the value; applied to such int32 it gives the bits again."""
    bits = values.view(np.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def stepped(predicted: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The values that lie ``steps`` (uint32, 0, -1, 1, -2, ... as 0, 1, 2, 3, ...) from a prediction, as float32."""
    signed = (steps >> 1).astype(np.int32) ^ -(steps & 1).astype(np.int32)
    return ordered(ordered(predicted) + signed).view(np.float32)

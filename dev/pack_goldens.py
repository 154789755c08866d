"""Packs goldens bit-equal: ``python dev/pack_goldens.py FOLDER`` makes a .packed of each .safetensors.

Tensors of random numbers become the seed they were drawn from, nearly equal ones their difference, all others byte
planes (``tests/packed.py`` says how a file lies). Each file is read again and compared bit by bit before its original
goes. Seeds are looked for among ``--seeds``. (A model of n parameters needs ``--length`` n.)
"""

import argparse
import importlib.util
import json
import lzma
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

SMALLEST = 32  # elements; a smaller tensor is not worth a recipe
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]

spec = importlib.util.spec_from_file_location("packed", Path(__file__).parents[1] / "tests" / "packed.py")
packed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(packed)


def bits(tensor: Tensor) -> bytes:
    """A tensor's bytes, in order."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Streams:
    """What each seed draws, with an index of how each number (or Box-Muller's) relates to the next."""

    def __init__(self, seeds: list[int], length: int):
        self.drawn = {seed: packed.uniform(seed, 0, length) for seed in seeds}
        self.indexed = {(draw, s): index(RATIOS[draw](d)) for draw in RATIOS for s, d in self.drawn.items()}

    def recipes(self, values: np.ndarray):
        """Recipes whose first numbers lie on the values, up to scale (and shift, of uniform ones)."""
        first = values[:5].astype(np.float64)
        if len(set(first)) < 5 or not np.isfinite(first).all() or not first.all():
            return
        normal, uniform = first[1:] / first[:-1], np.diff(first)[1:] / np.diff(first)[:-1]
        wanted = {"normal": normal[:3], "uniform": uniform}
        for (draw, seed), (order, ratios) in self.indexed.items():
            low, high = (np.searchsorted(ratios, wanted[draw][0] + sign * room(wanted[draw][0])) for sign in (-1, 1))
            for at in order[low:high]:
                found = RATIOS[draw](self.drawn[seed][at : at + 13])[:3]
                if len(found) == 3 and (np.abs(found - wanted[draw]) <= room(wanted[draw])).all():
                    yield fitted(draw, seed, at, values)


def room(ratio: np.ndarray) -> np.ndarray:
    """How far the ratio of float32 numbers may lie from that of the exact ones."""
    return 1e-4 * np.abs(ratio) + 1e-6


def index(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts ratios, and them sorted."""
    order = np.argsort(ratios)
    return order.astype(np.int32), ratios[order]


def ratios_of_normal(drawn: np.ndarray) -> np.ndarray:
    """Each number to the one before, in Box-Muller's first half of a block that starts there."""
    found = np.sqrt(-2 * np.log(1 - drawn[:-8])) * np.cos(2 * np.pi * drawn[8:])
    return found[1:] / np.where(found[:-1] == 0, np.inf, found[:-1])


def ratios_of_uniform(drawn: np.ndarray) -> np.ndarray:
    """Each step between neighbours to the step before."""
    found = np.diff(drawn)
    return found[1:] / np.where(found[:-1] == 0, np.inf, found[:-1])


RATIOS = {"normal": ratios_of_normal, "uniform": ratios_of_uniform}


def fitted(draw: str, seed: int, at: int, values: np.ndarray) -> dict:
    """The recipe with the scale and shift that bring the numbers nearest to the values; round ones where they serve."""
    count = len(values)
    drawn, wanted = packed.DRAWS[draw](seed, at, count), values.astype(np.float64)
    shift = np.median(wanted - drawn * np.polyfit(drawn, wanted, 1)[0]) if draw == "uniform" else 0.0
    scale = float(np.median((wanted - shift)[drawn != 0] / drawn[drawn != 0]))
    options = [
        {"draw": draw, "seed": seed, "at": int(at), "scale": float(s), "shift": float(t)}
        for s in (scale, float(f"{scale:.4g}"), max(1, round(1 / max(scale**2, 1e-9))) ** -0.5)
        for t in (shift, float(f"{shift:.3g}"))
    ]
    return min(options, key=lambda recipe: cost(recipe, values))


def steps(recipe: dict, values: np.ndarray, tensors: dict[str, Tensor]) -> np.ndarray:
    """uint32: how far the values lie from a recipe's prediction; what ``packed.stepped`` takes."""
    away = packed.ordered(values) - packed.ordered(packed.predicted(recipe, len(values), tensors))
    return ((away << 1) ^ (away >> 31)).view(np.uint32)


def cost(recipe: dict, values: np.ndarray, tensors: dict[str, Tensor] | None = None) -> float:
    """Bits that the steps take, about."""
    return float(np.log2(steps(recipe, values, tensors or {}) + 1.0).sum())


def best_recipe(key: str, tensors: dict[str, Tensor], before: list[str], streams: Streams) -> dict | None:
    """What predicts a tensor within a quarter of its bits: an earlier tensor, or a seed's numbers."""
    tensor = tensors[key]
    if tensor.dtype != torch.float32 or tensor.numel() < SMALLEST or tensor.unique().numel() < SMALLEST:
        return None
    values = tensor.contiguous().numpy().reshape(-1)
    like = [{"like": k} for k in before if tensors[k].numel() == tensor.numel() and tensors[k].dtype == tensor.dtype]
    options = [*like, *streams.recipes(values)]
    priced = [(cost(recipe, values, tensors), i) for i, recipe in enumerate(options)]
    if not priced or min(priced)[0] > 16 * len(values):
        return None
    return options[min(priced)[1]]


def pack(tensors: dict[str, Tensor], streams: Streams) -> bytes:
    """The bytes of a packed file."""
    header, planes, before = {}, [], []
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        recipe = best_recipe(key, tensors, before, streams)
        raw = np.frombuffer(bits(tensor), np.uint8).reshape(tensor.numel(), tensor.element_size())
        if recipe:
            raw = steps(recipe, tensor.numpy().reshape(-1), tensors)[:, None].view(np.uint8)
        elif len(compressed(raw.tobytes())) < len(compressed(raw.T.tobytes())):
            recipe, raw = {"rows": True}, raw.reshape(-1, 1)
        planes.append(raw.T.tobytes())
        header[key] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), recipe or {}]
        before.append(key)
    line = json.dumps(header, separators=(",", ":")).encode()
    return compressed(line + b"\n" + b"".join(planes))


def compressed(data: bytes) -> bytes:
    """The data as xz, set for bytes that hardly repeat."""
    return lzma.compress(data, format=lzma.FORMAT_XZ, filters=FILTERS)


def pack_file(path: Path, streams: Streams) -> None:
    """Write the packed file, compare what it gives with the original, and remove that."""
    original = path.read_bytes()
    tensors = load(lzma.decompress(original) if path.suffix == ".xz" else original)
    target = path.with_name(path.name.partition(".safetensors")[0] + ".safetensors.packed")
    target.write_bytes(pack(tensors, streams))
    back = packed.unpack(target)
    for key, tensor in tensors.items():
        same = back[key].shape == tensor.shape and back[key].dtype == tensor.dtype and bits(back[key]) == bits(tensor)
        if not same or set(back) != set(tensors):
            target.unlink()
            raise ValueError(f"{path}: {key} does not come back bit by bit; the original is kept")
    path.unlink()
    sys.stdout.write(f"{target}: {len(original)} -> {target.stat().st_size} bytes\n")


def main() -> None:
    """Pack every .safetensors (or .safetensors.xz) below a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[*range(48), *range(1000, 1048)])
    parser.add_argument("--length", type=int, default=300_000, help="numbers of each seed that are searched")
    args = parser.parse_args()
    streams = Streams(args.seeds, args.length)
    for path in sorted((*args.folder.rglob("*.safetensors"), *args.folder.rglob("*.safetensors.xz"))):
        pack_file(path, streams)


if __name__ == "__main__":
    main()

"""Depth pictures that people have: EXR, npz, npy, PFM, float TIFF with lengths; PNG, videos and others with levels."""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..reading import reading
from .depth_arrays import read_depth_array
from .depth_pictures import read_picture
from .depth_values import UNITS, Unit, grey
from .exr import read_exr
from .images import opened
from .video import VIDEOS, load_video

LENGTHS = (".exr", ".npz", ".npy", ".pfm")  # files that hold lengths
NUMBERED = re.compile(r"(.*?)(\d+)\.(exr|pfm|npy|png|tif|tiff|jpg|jpeg|webp)", re.IGNORECASE)


def load_depth(path: Path | str, start: int = 0, count: int | None = None, unit: Unit | None = None) -> Tensor:
    """Read a depth picture, or those of a clip, [F, H, W], float32; of a clip at most ``count``, from ``start`` on.

    Lengths of EXR, npz, npy, PFM and float pictures are as they are, levels of other pictures, and bytes, in [0, 1].
    With ``unit`` ``m`` the numbers of any file are lengths, with ``mm`` a thousandth of them; ``levels`` says of
    integers that they are none. Inf is background, NaN (alpha 0 too) unknown. An npz holds ``depth``, ``depths`` or
    ``z``, or an array alone; a folder a numbered file a frame.
    """
    if unit not in (None, *UNITS):
        raise ValueError(f"depth unit '{unit}' is none of {', '.join(UNITS)}")
    if start < 0 or (count is not None and count < 1):
        raise ValueError(f"{path}: cannot read {count} depth pictures from number {start} on; expected 1 or more")
    if Path(path).is_dir():
        return load_folder(Path(path), start, count, unit)
    with reading(path) as file:
        if file.suffix.lower() in VIDEOS:
            values, top = grey(load_video(file, start, count)[0]).numpy() * 255, 255
        elif file.suffix.lower() in (".npz", ".npy"):
            values, top = read_depth_array(file, start, count, unit)
        else:
            values, top = (read_exr(file), None) if file.suffix.lower() == ".exr" else read_picture(file)
            values = values[None]
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            depth = torch.from_numpy(values.astype(np.float32))
        if unit == "mm":
            return depth / 1000
        return depth / top if top and unit != "m" else depth


def load_folder(folder: Path, start: int, count: int | None, unit: Unit | None) -> Tensor:
    """The numbered files of a folder, one a frame, in the order of their numbers, of which none may be missing."""
    found = sorted(
        (int(match[2]), match[1], match[3].lower(), file)
        for file in folder.iterdir()
        if file.is_file() and not file.name.startswith(".") and (match := NUMBERED.fullmatch(file.name))
    )
    if not found:
        raise ValueError(f"{folder}: a folder of depth holds numbered files, such as 00000.exr or depth_001.png")
    if len({(name, suffix) for _, name, suffix, _ in found}) > 1:
        raise ValueError(
            f"{folder}: numbered files of several kinds, such as {found[0][3].name} and {found[-1][3].name}"
        )
    numbers = [number for number, *_ in found]
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)) if numbers[-1] < 1e7 else []
    if missing or len(set(numbers)) < len(numbers):
        raise ValueError(f"{folder}: frame {missing[0] if missing else 'numbers'} is missing or there twice")
    files = [file for *_, file in found][start:][:count]
    if not files:
        raise ValueError(f"{folder}: holds {len(found)} depth pictures, none from number {start} on")
    maps = [load_depth(file, unit=unit) for file in files]
    for file, values in zip(files, maps, strict=True):
        if values.shape != (1, *maps[0].shape[1:]):
            raise ValueError(f"{file}: depth of {tuple(values.shape)} beside others of {tuple(maps[0].shape)}")
    return torch.cat(maps)


def holds_lengths(path: Path) -> bool:
    """Whether a file, or a folder's first, holds lengths and not levels, by its name or, of a picture, its mode."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))  # as ``load_folder``
        path = next((file for file in files if NUMBERED.fullmatch(file.name)), path)
    if path.suffix.lower() in (".tif", ".tiff"):
        with reading(path) as file, opened(file) as image:
            return image.mode in ("F", "I")
    return path.suffix.lower() in LENGTHS

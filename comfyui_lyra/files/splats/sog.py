"""PlayCanvas' SOG, version 2, read: pictures in a zip whose pixels are the splats' properties; axes as in PLY.

``meta.json`` names the pictures and what their levels stand for. Pixel i is splat i.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...splats.gaussians import Gaussians
from ...splats.harmonics import C0
from ..reading import check_claim, parse_json

REST = {1: 3, 2: 8, 3: 15}  # bands -> coefficients a colour above band 0
ACROSS = 64  # entries of the palette of harmonics in a row of its picture
FIRST_MODE = 252  # in alpha of a quaternion's pixel: w is the largest; the next three are x, y, z
PIXEL = 4  # bytes
Levels = np.ndarray


def parse_sog(data: bytes) -> Gaussians:
    """Splats from a file's bytes; ValueError for what is damaged, made to fill the memory, or of another version."""
    with ZipFile(io.BytesIO(data)) as archive:
        check_claim(sum(member.file_size for member in archive.infolist()), len(data), "the archive")
        meta = parse_json(archive.read("meta.json"))
        if not isinstance(meta, dict) or meta.get("version", 2) != 2 or "count" not in meta:
            raise ValueError("SOG of another version than 2; open it in SuperSplat and export it anew")
        count = whole(meta["count"], "count")

        def picture(part: str, index: int = 0, pixels: int = count) -> Levels:
            return read_levels(archive, named_file(meta, part, index), pixels, len(data))

        low, high = picture("means"), picture("means", 1)
        sh0 = picture("sh0")
        return Gaussians(
            means=positions(low, high, meta["means"]),
            scales=by_codebook(picture("scales")[:, :3], meta["scales"]).exp(),
            quats=quaternions(picture("quats")),
            opacities=torch.from_numpy(sh0[:, 3].astype(np.float32)) / 255,
            colors=by_codebook(sh0[:, :3], meta["sh0"]) * C0 + 0.5,
            sh_rest=harmonics_of(meta["shN"], picture) if meta.get("shN") else None,
        )


def whole(value: object, what: str, least: int = 1) -> int:
    """A whole number of the file."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 31:
        raise ValueError(f"{what} is {value!r}; expected a whole number from {least}")
    return value


def named_file(meta: Mapping[str, Any], part: str, index: int) -> str:
    """The name of a part's picture."""
    files = meta[part]["files"]
    if not isinstance(files, list) or len(files) <= index or not isinstance(files[index], str):
        raise ValueError(f"meta.json names no picture {index} of '{part}'")
    return files[index]


def read_levels(archive: ZipFile, name: str, pixels: int, size: int) -> Levels:
    """The first pixels [pixels, 4] of a picture in the archive of ``size`` bytes."""
    with Image.open(io.BytesIO(archive.read(name))) as image:
        width, height = image.size
        if width * height < pixels:
            raise ValueError(f"{name} has {width}x{height} pixels for {pixels} splats")
        check_claim(width * height * PIXEL, size, name)
        return np.asarray(image.convert("RGBA")).reshape(-1, PIXEL)[:pixels]


def numbers(values: object, count: int | None, what: str) -> Tensor:
    """A list of finite numbers as float32."""
    if not isinstance(values, Sequence) or isinstance(values, str) or (count is not None and len(values) != count):
        raise ValueError(f"{what}: expected {count or 'a list of'} numbers")
    found = torch.tensor([float(value) for value in values])
    if not torch.isfinite(found).all():
        raise ValueError(f"{what} holds NaN or infinity")
    return found


def positions(low: Levels, high: Levels, about: Mapping[str, Any]) -> Tensor:
    """Positions [N, 3]: 16 bits between bounds, on a scale that is logarithmic away from 0."""
    share = torch.from_numpy((low[:, :3] + 256.0 * high[:, :3]).astype(np.float32)) / 65535
    least, most = numbers(about["mins"], 3, "mins"), numbers(about["maxs"], 3, "maxs")
    place = torch.lerp(least.expand_as(share), most.expand_as(share), share)
    return place.sign() * place.abs().expm1()


def by_codebook(levels: Levels, about: Mapping[str, Any]) -> Tensor:
    """What the levels [N, C] stand for, by a list of 256 numbers."""
    return numbers(about["codebook"], 256, "codebook")[torch.from_numpy(levels.astype(np.int64))]


def quaternions(levels: Levels) -> Tensor:
    """Quaternions wxyz [N, 4]: three components, and in alpha which one is the largest and left out."""
    which = torch.from_numpy(levels[:, 3].astype(np.int64)) - FIRST_MODE
    if (which < 0).any():
        raise ValueError("a quaternion of the file does not say which component is left out")
    others = (torch.from_numpy(levels[:, :3].astype(np.float32)) / 255 - 0.5) * 2**0.5
    largest = (1 - others.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    order = torch.tensor([[3, 0, 1, 2], [0, 3, 1, 2], [0, 1, 3, 2], [0, 1, 2, 3]])  # 3 stands for the largest
    return torch.nn.functional.normalize(torch.cat((others, largest), 1).gather(1, order[which]), dim=1)


def harmonics_of(about: Mapping[str, Any], picture) -> Tensor:
    """Coefficients [N, R, 3] of bands 1..: each splat names an entry of a palette."""
    bands, entries = whole(about["bands"], "bands"), whole(about["count"], "count of the palette")
    if bands not in REST:
        raise ValueError(f"harmonics of {bands} bands; up to 3 are read")
    rest, rows = REST[bands], -(-entries // ACROSS)
    palette = by_codebook(picture("shN", 0, rows * ACROSS * rest)[:, :3], about).reshape(rows * ACROSS, rest, 3)
    labels = picture("shN", 1)
    which = torch.from_numpy(labels[:, 0].astype(np.int64) + 256 * labels[:, 1].astype(np.int64))
    if int(which.max()) >= entries:
        raise ValueError(f"a splat names entry {int(which.max())} of a palette of {entries}")
    return palette[which]

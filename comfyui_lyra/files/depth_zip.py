"""Depth of a clip as the training data has it: a zip of ``00000.exr`` ..., one half-float channel ``Z`` each."""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import OpenEXR
import torch
from torch import Tensor

from .atomic import replacing
from .reading import reading
from .vipe import decode_exr, read_member


def save_depth_zip(path: Path | str, depth: Tensor) -> None:
    """Write depth [F, H, W]; where it is unknown (not finite or not positive), 0."""
    depth = torch.where(depth.isfinite() & (depth > 0), depth, 0).half().cpu().numpy()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with replacing(path) as temporary, ZipFile(temporary, "w", ZIP_STORED) as archive:
        for frame, values in enumerate(depth):
            data = io.BytesIO()
            OpenEXR.File(header, {"Z": np.ascontiguousarray(values)}).write(data)
            archive.writestr(f"{frame:05d}.exr", data.getvalue())


def load_depth_zip(path: Path | str, frames: Sequence[int]) -> Tensor:
    """Depth [n, H, W], float32 as stored, of some frames by their numbers; each must be there and whole."""
    with reading(path) as file:
        try:
            with ZipFile(file) as archive:
                names = [f"{frame:05d}.exr" for frame in frames]
                if missing := sorted(set(names) - set(archive.namelist())):
                    raise ValueError(f"{missing[0]} is missing")
                maps = [decode_exr(read_member(archive, archive.getinfo(name))).astype(np.float32) for name in names]
        except (BadZipFile, zlib.error, RuntimeError, OSError, EOFError, NotImplementedError) as error:
            raise ValueError(f"a damaged depth archive: {error}") from error
        if len({values.shape for values in maps}) > 1:
            raise ValueError("its depth maps differ in size")
        return torch.from_numpy(np.stack(maps))

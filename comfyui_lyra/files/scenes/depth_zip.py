"""Depth of a clip as the training data has it: a zip of ``00000.exr`` ..., one half-float channel ``Z`` each."""

import io
import logging
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
import OpenEXR
import torch
from torch import Tensor

from ..atomic import replacing
from ..reading import reading
from .vipe import decode_exr, read_member

log = logging.getLogger("lyra")

MAP = re.compile(r"(\d{5,})\.exr")


def save_depth_zip(path: Path | str, depth: Tensor) -> None:
    """Write depth [F, H, W]; where it is unknown (not finite or not positive), 0."""
    maps = torch.where(depth.isfinite() & (depth > 0), depth, 0).half().cpu().numpy()
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with replacing(path) as temporary, ZipFile(temporary, "w", ZIP_STORED) as archive:
        for frame, values in enumerate(maps):
            data = io.BytesIO()
            OpenEXR.File(header, {"Z": np.ascontiguousarray(values)}).write(data)
            member = ZipInfo(f"{frame:05d}.exr")  # dated 1980: equal depth makes equal files
            member.external_attr = 0o644 << 16
            archive.writestr(member, data.getvalue())


def load_depth_zip(path: Path | str, frames: Sequence[int]) -> Tensor:
    """Depth [n, H, W], float32 as stored, of some frames by their numbers; 0, as unknown, where a map is missing.

    ValueError for a map that is damaged, and for an archive without any.
    """
    with reading(path) as file:
        try:
            with ZipFile(file) as archive:
                there = {int(found[1]): found[0] for found in map(MAP.fullmatch, archive.namelist()) if found}
                if not there:
                    raise ValueError("holds no depth maps 00000.exr, 00001.exr, ...")
                wanted = sorted(there.keys() & set(frames)) or [min(there)]  # one at least, for its size
                maps = {
                    frame: decode_exr(read_member(archive, archive.getinfo(there[frame]))).astype(np.float32)
                    for frame in wanted
                }
        except (BadZipFile, zlib.error, RuntimeError, OSError, EOFError, NotImplementedError) as error:
            raise ValueError(f"a damaged depth archive: {error}") from error
        if len({values.shape for values in maps.values()}) > 1:
            raise ValueError("its depth maps differ in size")
        if missing := sorted(set(frames) - there.keys()):
            log.info("%s: no depth of frames %s; taken as unknown", path, ", ".join(map(str, missing)))
        unknown = np.zeros_like(maps[wanted[0]])
        return torch.from_numpy(np.stack([maps[frame] if frame in there else unknown for frame in frames]))

"""ViPE results: a clip with camera poses, intrinsics, depth and instance masks in one folder (teacher.md 10.3).

``rgb/<n>.mp4``, ``pose/<n>.npz``, ``intrinsics/<n>.npz``, ``intrinsics/<n>_camera.txt``, ``depth/<n>.zip`` of EXR maps,
``mask/<n>.zip`` of PNG maps. Members of the archives are decoded in memory and never unpacked to their names.
"""

import io
import logging
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.error import FFmpegError
from PIL import Image
from torch import Tensor

from ...geometry.geometry import Geometry
from ...shapes import plural
from ..arrays import array_names
from ..cameras.npz import read_intrinsics, read_poses
from ..cameras.pinhole import camera_path
from ..media.exr import MOST_PIXELS, read_exr
from ..media.video import load_video
from ..reading import read_text, reading

log = logging.getLogger("lyra")


def load_vipe(
    path: Path | str, start: int = 0, count: int = 121, masks: bool = False, strict: bool = False
) -> Geometry:
    """Frames ``start`` .. ``start + count - 1`` of a ViPE folder, or of the mp4 in it, in ViPE's own world and unit.

    The last frame is repeated where the clip ends. Where a depth map is missing or damaged, or NaN or not positive,
    nothing is known; +inf is background. With ``masks`` only instances (sky among them) stay valid. A missing pose
    takes its neighbour's, or is an error if ``strict``. A start beyond the clip's end is an error.
    """
    video = find_clip(Path(path))
    folder, name = video.parent.parent, video.stem
    total = frame_count(video)
    if not 0 <= start < total:
        raise ValueError(f"{video}: holds no frame {start}; it has {total}, counted from 0")
    frames, fps = load_video(video, start, min(count, total - start))
    if len(frames) < count:
        log.warning("%s: ends after %d of %d frames; its last one is repeated", video, len(frames), count)
    rows = torch.arange(count).clamp(max=len(frames) - 1)  # which of the frames read stands at each place
    wanted = start + np.arange(len(frames))
    height, width = frames.shape[1:3]
    check_pinhole(folder / "intrinsics" / f"{name}_camera.txt")
    c2w, numbers = (
        read_rows_at(folder / kind / f"{name}.npz", reader, wanted, total, strict)
        for kind, reader in (("pose", read_poses), ("intrinsics", read_intrinsics))
    )
    depth = read_maps(folder / "depth" / f"{name}.zip", "exr", decode_exr, wanted, (height, width))
    valid = depth.isfinite() & (depth > 0)
    depth = torch.where(valid | (depth == torch.inf), depth, 0)
    if masks:
        valid &= read_maps(folder / "mask" / f"{name}.zip", "png", decode_png, wanted, (height, width)) > 0
    cameras = camera_path(c2w, numbers, height, width, fps=fps, name=name)
    return Geometry(frames=frames, depth=depth, valid=valid, cameras=cameras)[rows]


def find_clip(path: Path) -> Path:
    """The mp4 itself, or the first of a ViPE folder."""
    if path.is_file():
        return path
    clips = sorted((path / "rgb").glob("[!.]*.mp4"))
    if not clips:
        raise FileNotFoundError(f"{path}: not a ViPE result: expected an mp4 file, or a folder with rgb/<clip>.mp4")
    return clips[0]


def frame_count(video: Path) -> int:
    """How many frames a video holds, without decoding them."""
    with reading(video):
        try:
            with av.open(str(video)) as container:
                return sum(packet.size > 0 for packet in container.demux(video=0))
        except (FFmpegError, IndexError) as error:
            raise ValueError(f"not a video, or a damaged one: {error}") from error


def check_pinhole(path: Path) -> None:
    """Raise ValueError if the camera list (``0: PINHOLE`` a line), where there is one, names another kind of lens."""
    if not path.is_file():
        return
    with reading(path):
        kinds = {line.split(":")[-1].strip() for line in read_text(path).splitlines() if line.strip()}
        if other := sorted(kinds - {"PINHOLE"}):
            raise ValueError(f"camera type {other[0]}; only PINHOLE is read, so run ViPE with a pinhole camera")


def read_rows_at(path: Path, reader: Callable, wanted: np.ndarray, total: int, strict: bool) -> np.ndarray:
    """Rows of an npz at the frames ``wanted``; unless ``strict`` the nearest finite row stands in for a missing one."""
    rows, numbers = reader(path)
    with reading(path):
        if "inds" not in array_names(path) and len(rows) != total:
            raise ValueError(f"{len(rows)} rows without frame numbers 'inds' for a video of {plural(total, 'frame')}")
        good = np.isfinite(rows).reshape(len(rows), -1).all(1)
        if not good.any():
            raise ValueError("holds no finite row; the estimate failed, so run ViPE again")
        rows, numbers = rows[good], numbers[good]
        nearest = np.abs(numbers[None] - wanted[:, None]).argmin(1)
        if missing := [int(frame) for frame in wanted[numbers[nearest] != wanted]]:
            if strict:
                raise ValueError(f"frame {missing[0]} is missing or not finite ({len(missing)} in all)")
            log.warning(
                "%s: %d frames missing or not finite (first: %d); their neighbours stand in",
                path,
                len(missing),
                missing[0],
            )
        return rows[nearest]


def read_maps(
    path: Path, suffix: str, decode: Callable[[bytes], np.ndarray], wanted: np.ndarray, size: tuple[int, int]
) -> Tensor:
    """Maps [len(wanted), *size] from an archive of ``00000.<suffix>``; one missing or damaged becomes NaN."""
    maps, missing, damaged, sizes = [], [], [], set()
    with reading(path):
        try:
            archive = ZipFile(path)
        except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError("not a complete zip archive; copy it again or run ViPE again") from error
        with archive:
            members = map_members(archive, suffix)
            for frame in wanted.tolist():
                values = torch.full(size, torch.nan)
                try:
                    if frame in members:
                        values = torch.from_numpy(decode(read_member(archive, members[frame])).astype(np.float32))
                    else:
                        missing.append(frame)
                except (RuntimeError, ValueError, OSError, EOFError, NotImplementedError, BadZipFile, zlib.error):
                    damaged.append(frame)
                sizes.add(tuple(values.shape))
                maps.append(
                    values
                    if values.shape == size
                    else F.interpolate(values[None, None], size, mode="nearest-exact")[0, 0]
                )
        if len(missing) == len(wanted):
            raise ValueError(
                f"holds no map of the {plural(len(wanted), 'frame')} from {wanted[0]} on, but {len(members)} others"
            )
    for frames, what in ((missing, "missing"), (damaged, "damaged")):
        if frames:
            log.warning("%s: %d %s maps (first: frame %d); nothing is known there", path, len(frames), what, frames[0])
    if other := sizes - {size}:
        log.warning("%s: maps of %s for a video of %dx%d; they are resized", path, sorted(other), size[1], size[0])
    return torch.stack(maps)


def map_members(archive: ZipFile, suffix: str) -> dict[int, ZipInfo]:
    """Members named ``00000.<suffix>`` by their numbers, at the top of an archive, or else in its one folder."""
    found: dict[str, dict[int, ZipInfo]] = {}
    for member in archive.infolist():
        folder, _, name = member.filename.rpartition("/")
        if ".." not in folder and re.fullmatch(rf"\d{{1,9}}\.{suffix}", name):
            found.setdefault(folder, {})[int(name.split(".")[0])] = member
    if not found:
        raise ValueError(f"holds no maps named 00000.{suffix}")
    if "" not in found and len(found) > 1:
        raise ValueError(f"holds maps in several folders: {', '.join(sorted(found))}; make an archive of one of them")
    return found.get("", next(iter(found.values())))


def read_member(archive: ZipFile, member: ZipInfo) -> bytes:
    """The bytes of an archive's member, unless it claims to be enormous."""
    if member.file_size > 4 * MOST_PIXELS:
        raise ValueError(f"{member.filename} claims {member.file_size} bytes")
    return archive.read(member)


def decode_exr(data: bytes) -> np.ndarray:
    """The depth [H, W] of an EXR, in the pixel type that the file declares; ViPE's channel is Z."""
    return read_exr(data)


def decode_png(data: bytes) -> np.ndarray:
    """Instance numbers [H, W] of a PNG."""
    return np.array(Image.open(io.BytesIO(data)))

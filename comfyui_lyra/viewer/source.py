"""Splats on disk as moments that are read when they are asked for: a file, or a folder of numbered files."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..cameras.path import CameraTrajectory
from ..files.cameras.load import load_cameras
from ..files.cameras.lyra_json import read_object
from ..files.reading import reading
from ..files.splats.load import load_splats
from ..files.splats.sequence import CAMERAS, MANIFEST, SPLAT_BYTES, numbered_files, told_files
from ..splats.gaussians import Gaussians
from .scene import describe, focus_of, opening

PACKED_BYTES = 18  # of a splat in SPZ, SOG or their like


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored:
    """A scene on disk."""

    title: str
    files: tuple[Path, ...]  # one a moment
    times: tuple[int, ...]  # frames of the clip
    counts: tuple[int, ...]  # splats of each, about
    cameras: tuple[CameraTrajectory, ...] = ()
    fps: float = 24.0
    read: Callable[[Path], Gaussians] = load_splats

    def describe(self) -> tuple[dict, CameraTrajectory]:
        """The page's JSON, with the moments' addresses, and the first camera; reads the first moment."""
        first = self.read(self.files[0])
        start = opening(first, self.cameras)
        moments = [
            {"time": time, "splats": count, "url": f"{index}.bin"}
            for index, (time, count) in enumerate(zip(self.times, self.counts, strict=True))
        ]
        focus = focus_of(first, start)
        return describe(moments, self.cameras, start, focus=focus, fps=self.fps, title=self.title), start


def stored(path: Path) -> Stored:
    """What a file or folder holds; ValueError where it holds no splats that we read."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    about, found = {}, [(path, 0)]
    if path.is_dir():
        manifest = path / MANIFEST
        about = read_object(manifest) if manifest.is_file() else {}
        with reading(manifest) if about else nullcontext():
            found = told_files(about, path) if about else numbered_files(path)
    files, times = zip(*found, strict=True) if found else ((), ())
    if not files or any(later <= sooner for sooner, later in pairwise(times)):
        raise ValueError(f"{path}: expected moments one after another, got {list(times)}")
    cameras = files[0].with_name(CAMERAS)
    return Stored(
        title=path.stem, files=files, times=times, counts=tuple(map(counted, files)),
        cameras=load_cameras(cameras) if cameras.is_file() else (), fps=float(about.get("fps") or 24.0),
    )  # fmt: skip


def counted(file: Path) -> int:
    """About how many splats a file holds, by its size: the page plans its memory by that."""
    return max(1, file.stat().st_size // (SPLAT_BYTES if file.suffix.lower() == ".ply" else PACKED_BYTES))

"""Splats on disk as moments that are read when they are asked for: a file, or a folder of numbered files."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..cameras.path import CameraTrajectory
from ..files.cameras.load import load_cameras
from ..files.reading import parse_json, read_text, reading
from ..files.splats.ply import load_ply
from ..files.splats.sequence import CAMERAS, MANIFEST, SPLAT_BYTES
from ..splats.gaussians import Gaussians
from .scene import describe, focus_of, opening


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored:
    """A scene on disk."""

    title: str
    files: tuple[Path, ...]  # one a moment
    times: tuple[int, ...]  # frames of the clip
    counts: tuple[int, ...]  # splats of each, about
    cameras: tuple[CameraTrajectory, ...] = ()
    fps: float = 24.0
    read: Callable[[Path], Gaussians] = load_ply

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
    if path.is_file():
        cameras = path.with_name(CAMERAS)
        return Stored(
            title=path.stem, files=(path,), times=(0,), counts=(counted(path),),
            cameras=load_cameras(cameras) if cameras.is_file() else (),
        )  # fmt: skip
    if (path / MANIFEST).is_file():
        return of_manifest(path)
    files = tuple(sorted(path.glob("*.ply")))
    if not files:
        raise ValueError(f"{path}: no splats here; name a PLY, a folder of numbered PLY files, or one with {MANIFEST}")
    counts = tuple(counted(file) for file in files)
    return Stored(title=path.name, files=files, times=tuple(range(len(files))), counts=counts)


def of_manifest(folder: Path) -> Stored:
    """A folder that ``save_sequence`` wrote."""
    file = folder / MANIFEST
    with reading(file) as opened:
        try:
            about = parse_json(read_text(opened))
            frames = [(folder / str(row["file"]), int(row["time"]), int(row["splats"])) for row in about["frames"]]
            fps, cameras = float(about["fps"]), about.get("cameras")
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a manifest of Save Splat Sequence: {error}") from error
        if not frames or any(path.parent != folder for path, *_ in frames):
            raise ValueError("names no frames, or frames outside of its folder")
    files, times, counts = zip(*frames, strict=True)
    paths = load_cameras(folder / CAMERAS) if cameras else ()
    return Stored(title=folder.name, files=files, times=times, counts=counts, cameras=paths, fps=fps)


def counted(file: Path) -> int:
    """About how many splats a file holds, by its size."""
    return max(1, file.stat().st_size // SPLAT_BYTES)

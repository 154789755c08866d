"""Splats of several bullet times as a folder: numbered files, their cameras, and a manifest that says what is what.

    <folder>/00000.ply, 00001.ply, ...   one a bullet time, in the order of the sequence, in any form of splats
    <folder>/splats.usda                 instead of them, where the form holds several moments
    <folder>/cameras.json                where they are given (see ``cameras_json``), in our axes
    <folder>/manifest.json               {"format": "lyra-splat-sequence", "version": 1, "axes": "opencv", "fps": 24.0,
                                          "scale": 1.0, "metres_per_unit": 2.5 or null,
                                          "cameras": "cameras.json" or null,
                                          "frames": [{"file": "00000.ply", "time": 0, "splats": 2044415}, ...]}

``time`` is a frame of the source clip, which plays at ``fps``. Everything is multiplied by ``scale`` already. ``axes``
are "opencv" (y_down), "y_up" or "z_up".
"""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from ...callbacks import OnStep, no_progress
from ...cameras.path import CameraTrajectory
from ...splats.gaussians import GaussianSequence
from ...versions import pack_version
from ..atomic import replacing_folder
from ..cameras.lyra_json import read_object, save_cameras_json
from ..disk import check_disk
from ..reading import one_line, reading
from .formats import READ, axes_of, to_write
from .load import load_splats
from .save import DEFAULT, Placing, save_moving, save_splats

FORMAT = {"format": "lyra-splat-sequence", "version": 1, "axes": "opencv"}
CAMERAS, MANIFEST = "cameras.json", "manifest.json"
SPLAT_BYTES = 56  # in a PLY, without spherical harmonics
NUMBERED = re.compile(r"(?:.*\D)?(\d+)")  # names of files whose last number is a frame of the clip


def save_sequence(
    folder: Path | str,
    splats: GaussianSequence,
    cameras: Sequence[CameraTrajectory] = (),
    *,
    fps: float = 24.0,
    placing: Placing = DEFAULT,
    kind: str = "ply",
    write: Callable[..., None] = save_moving,
    on_step: OnStep = no_progress,
) -> None:
    """Write a new folder, which appears when it is complete; ``cameras`` are those in the world of the splats.

    ``write`` writes a form that holds several moments; "html" needs the viewer's. Raises ValueError where the folder
    exists already, and as ``save_splats`` does.
    """
    folder, form = Path(folder).absolute(), to_write("splats", kind)
    up = axes_of(form, placing.up)
    if folder.exists():
        raise ValueError(f"{folder} is there already; choose another name")
    check_disk(folder, SPLAT_BYTES * sum(len(frame) for frame in splats.frames))
    with replacing_folder(folder) as staging:
        if form.moves:
            frames = [{"file": f"splats{form.suffix}", "time": time} for time in splats.times]
            write(staging / f"splats{form.suffix}", splats, placing, fps=fps)
            on_step(len(splats), len(splats))
        else:
            frames = []
            for index, (gaussians, time) in enumerate(zip(splats.frames, splats.times, strict=True)):
                file = f"{index:05}{form.suffix}"
                count = save_splats(staging / file, gaussians, placing)
                frames.append({"file": file, "time": time, "splats": count})
                on_step(index + 1, len(splats))
        if cameras:
            save_cameras_json(staging / CAMERAS, [path.scaled(placing.scale) for path in cameras])
        about = FORMAT | {
            "pack": pack_version(), "axes": "opencv" if up == "y_down" else up, "fps": fps, "scale": placing.scale,
            "metres_per_unit": placing.metres, "cameras": CAMERAS if cameras else None, "frames": frames,
        }  # fmt: skip
        (staging / MANIFEST).write_text(json.dumps(about, indent=1), encoding="utf-8")


def load_sequence(folder: Path | str, on_step: OnStep = no_progress) -> tuple[GaussianSequence, float]:
    """The moments of a folder, and its frames per second: by its manifest, or of numbered files by their numbers."""
    folder = Path(folder)
    manifest = folder / MANIFEST
    is_told = manifest.exists()
    about = read_object(manifest) if is_told else {}
    with reading(manifest) if is_told else nullcontext():
        found = told_files(about, folder) if is_told else numbered_files(folder)
        frames = []
        for file, _ in found:
            frames.append(load_splats(file))
            on_step(len(frames), len(found))
        fps = about.get("fps", 24.0)
        if not isinstance(fps, int | float) or not 0 < fps < float("inf"):
            raise ValueError(f"'fps' is {fps!r}; expected frames per second")
        return GaussianSequence(frames=tuple(frames), times=tuple(time for _, time in found)), float(fps)


def is_sequence(folder: Path | str) -> bool:
    """Whether a folder holds splats of several moments: a manifest, or files of splats with numbers."""
    folder = Path(folder)
    return folder.is_dir() and ((folder / MANIFEST).is_file() or bool(with_numbers(folder)))


def told_files(about: dict, folder: Path) -> list[tuple[Path, int]]:
    """Files of a manifest, and their times."""
    if about.get("format") != FORMAT["format"] or not isinstance(about.get("frames"), list):
        raise ValueError("not the manifest of a splat sequence")
    found = []
    for entry in about["frames"]:
        file, time = entry["file"], entry["time"]
        if not isinstance(file, str) or Path(file).name != file or not isinstance(time, int):
            raise ValueError(f"'{one_line(file)}' at {one_line(time)}: expected a file beside it and a frame")
        found.append((folder / file, time))
    return found


def numbered_files(folder: Path) -> list[tuple[Path, int]]:
    """The files of splats of a folder whose names end in different numbers, in their order."""
    found = with_numbers(folder)
    if not found or len({number for number, _ in found}) < len(found):
        raise ValueError(f"{folder}: no sequence of splats; expected {MANIFEST}, or files with a number each")
    return [(file, number) for number, file in found]


def with_numbers(folder: Path) -> list[tuple[int, Path]]:
    """Files of splats whose names end in numbers, in their order."""
    files = ((file, NUMBERED.fullmatch(file.stem)) for file in folder.glob("[!.]*") if file.suffix.lower() in READ)
    return sorted((int(number[1]), file) for file, number in files if number)

"""Splats of several bullet times as a folder: numbered PLY files, their cameras, and a manifest that says what is what.

    <folder>/00000.ply, 00001.ply, ...   one a bullet time, in the order of the sequence
    <folder>/cameras.json                where they are given (see ``cameras_json``)
    <folder>/manifest.json               {"format": "lyra-splat-sequence", "version": 1, "axes": "opencv", "fps": 24.0,
                                          "scale": 1.0, "cameras": "cameras.json" or null,
                                          "frames": [{"file": "00000.ply", "time": 0, "splats": 2044415}, ...]}

``time`` is a frame of the source clip, which plays at ``fps``. Everything is multiplied by ``scale`` already.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ...callbacks import OnStep, no_progress
from ...cameras.path import CameraTrajectory
from ...splats.gaussians import GaussianSequence
from ...versions import pack_version
from ..atomic import replacing_folder
from ..cameras.lyra_json import save_cameras_json
from ..disk import check_disk
from .ply import save_ply

FORMAT = {"format": "lyra-splat-sequence", "version": 1, "axes": "opencv"}
CAMERAS, MANIFEST = "cameras.json", "manifest.json"
SPLAT_BYTES = 56  # in a PLY, without spherical harmonics


def save_sequence(
    folder: Path | str,
    splats: GaussianSequence,
    cameras: Sequence[CameraTrajectory] = (),
    *,
    fps: float = 24.0,
    scale: float = 1.0,
    on_step: OnStep = no_progress,
) -> None:
    """Write a new folder, which appears when it is complete; ``cameras`` are those in the world of the splats.

    ``scale`` multiplies the world. Raises ValueError where the folder exists already.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise ValueError(f"{folder} is there already; choose another name")
    check_disk(folder, SPLAT_BYTES * sum(len(frame) for frame in splats.frames))
    with replacing_folder(folder) as staging:
        frames = []
        for index, (gaussians, time) in enumerate(zip(splats.frames, splats.times, strict=True)):
            file = f"{index:05}.ply"
            save_ply(staging / file, gaussians, scale=scale)
            frames.append({"file": file, "time": time, "splats": len(gaussians)})
            on_step(index + 1, len(splats))
        if cameras:
            save_cameras_json(staging / CAMERAS, [path.scaled(scale) for path in cameras])
        about = {"pack": pack_version(), "fps": fps, "scale": scale, "cameras": CAMERAS if cameras else None}
        (staging / MANIFEST).write_text(json.dumps(FORMAT | about | {"frames": frames}, indent=1), encoding="utf-8")

"""A scene as a folder that any server can give away: the page's JSON, and a packed file a moment."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ..callbacks import OnStep, no_progress
from ..cameras.path import CameraTrajectory
from ..files.atomic import replacing_folder
from ..splats.gaussians import GaussianSequence
from .pack import pack
from .scene import describe, focus_of, opening

SCENE = "scene.json"
KEPT = 8  # scenes that stay below one root; older ones go


def write_folder(
    root: Path,
    splats: GaussianSequence,
    cameras: Sequence[CameraTrajectory] = (),
    *,
    fps: float = 24.0,
    background: Sequence[float] = (1.0, 1.0, 1.0),
    on_step: OnStep = no_progress,
) -> Path:
    """The folder of a scene below ``root``, named after what is in it, so that one that is there is not made again."""
    start = opening(splats.frames[0], cameras)
    about = describe(
        [], cameras, start, focus=focus_of(splats.frames[0], start), fps=fps, title="", background=background
    )
    folder = root / named(splats, about)
    if folder.is_dir():
        folder.touch()
        return folder
    with replacing_folder(folder) as staging:
        staging.mkdir(parents=True)
        for index, (frame, time) in enumerate(zip(splats.frames, splats.times, strict=True)):
            data = pack(frame, start.c2w[0, :3, 3])
            (staging / f"{index}.bin").write_bytes(data)
            entry = {"time": time, "splats": len(frame), "url": f"{index}.bin", "bytes": len(data)}
            about["moments"].append(entry)
            on_step(index + 1, len(splats))
        (staging / SCENE).write_text(json.dumps(about), encoding="utf-8")
    others = sorted((other for other in root.iterdir() if other.is_dir()), key=lambda other: other.stat().st_mtime)
    for old in others[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def named(splats: GaussianSequence, about: dict) -> str:
    """A name that is another for other splats, moments or cameras."""
    found = hashlib.blake2b(json.dumps(about | {"times": splats.times}).encode(), digest_size=12)
    for frame in splats.frames:
        for field in fields(frame):
            if (tensor := getattr(frame, field.name)) is not None:
                found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()

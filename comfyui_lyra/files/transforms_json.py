"""Nerfstudio's transforms.json: camera-to-world matrices in OpenGL axes (x right, y up, z back).

Pictures of one folder make one path, named after the folder, in the order of their names.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..cameras import CameraTrajectory
from .atomic import replacing
from .cameras_json import read_object
from .pinhole import as_matrix, by_number, camera_path, check_names, picture_size, pinhole_numbers
from .reading import reading

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # from OpenCV camera axes and back: turns y and z
NUMBERS = ("fl_x", "fl_y", "cx", "cy")
SIZE = ("w", "h")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")


def save_transforms(path: Path | str, paths: Sequence[CameraTrajectory]) -> None:
    """Write a path set as one transforms.json; pictures are called ``images/<path>/00000.png`` and so on."""
    check_names(paths)
    frames = []
    for cameras in paths:
        poses = cameras.c2w.double().cpu().numpy() @ OPENGL
        for i, (pose, numbers) in enumerate(zip(poses, pinhole_numbers(cameras).tolist(), strict=True)):
            frame = {"file_path": f"images/{cameras.name}/{i:05d}.png", "transform_matrix": pose.tolist()}
            frames.append(frame | dict(zip(NUMBERS + SIZE, [*numbers, cameras.width, cameras.height], strict=True)))
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"camera_model": "PINHOLE", "frames": frames}), encoding="utf-8")


def load_transforms(path: Path | str) -> tuple[CameraTrajectory, ...]:
    """Read a path set; intrinsics may stand at the top or in each frame. Distorted cameras are refused."""
    document = read_object(path)
    with reading(path):
        frames = document.pop("frames", None)
        if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
            raise ValueError("expected a list of objects named 'frames'")
        folders: dict[PurePosixPath, list[dict]] = {}
        for frame in frames:
            whole = {"file_path": "", "camera_model": "PINHOLE"} | document | frame
            folders.setdefault(PurePosixPath(str(whole["file_path"])).parent, []).append(whole)
        return tuple(read_path(folder.name or "path", group) for folder, group in folders.items())


def read_path(name: str, frames: list[dict]) -> CameraTrajectory:
    """One path from the frames of one folder."""
    frames = sorted(frames, key=lambda frame: by_number(str(frame["file_path"])))
    poses = []
    for frame in frames:
        check_pinhole(frame)
        pose = as_matrix(frame["transform_matrix"], 4, f"transform_matrix of '{frame['file_path']}'")
        poses.append(np.concatenate((pose, np.eye(4)[len(pose) :])))  # a last row may be left out
    sizes = {picture_size(frame["h"], frame["w"], f"frame '{frame['file_path']}'") for frame in frames}
    if len(sizes) > 1 or {pose.shape for pose in poses} != {(4, 4)}:
        raise ValueError(f"'{name}': expected 4x4 matrices and pictures of one size, got sizes {sorted(sizes)[:3]}")
    numbers = as_matrix([[frame[key] for key in NUMBERS] for frame in frames], 4, f"'{name}': {' '.join(NUMBERS)}")
    return camera_path(np.stack(poses) @ OPENGL, numbers, *sizes.pop(), name=name)


def check_pinhole(frame: dict) -> None:
    """Raise ValueError for a frame that lacks something or is no pinhole picture."""
    if missing := [key for key in ("transform_matrix", *NUMBERS, *SIZE) if key not in frame]:
        raise ValueError(f"frame '{frame['file_path']}' lacks {' '.join(missing)}")
    model = frame["camera_model"]
    bent = [key for key in DISTORTION if frame.get(key)]
    if model not in MODELS or bent:
        what = f"distortion {' '.join(bent)}" if model in MODELS else f"camera model {model}"
        raise ValueError(f"frame '{frame['file_path']}' has {what}; only pinhole cameras are read: undistort first")

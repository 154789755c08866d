"""Nerfstudio's camera_path.json, what its viewer exports: one path for rendering, poses in OpenGL axes."""

import math
from pathlib import Path

import numpy as np

from ...cameras.path import CameraTrajectory
from ..reading import reading
from .lens import check_lens
from .lyra_json import read_object
from .pinhole import camera_path, picture_size
from .transforms_json import OPENGL, angle_of


def load_camera_path(path: Path | str) -> tuple[CameraTrajectory, ...]:
    """Read the path: ``camera_to_world`` by rows, ``fov`` the vertical view angle in degrees, the centre in the middle.

    Raises ValueError for a path of another camera than a perspective one.
    """
    document = read_object(path)
    with reading(path):
        frames = document.get("camera_path")
        if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
            raise ValueError("a nerfstudio camera path: expected a list of objects named 'camera_path'")
        check_lens({key: value for key, value in document.items() if key != "camera_path"})
        height, width = picture_size(document.get("render_height"), document.get("render_width"), "render size")
        poses, focals = zip(*(pose_and_focal(i, frame, height) for i, frame in enumerate(frames)), strict=True)
        numbers = np.array([(focal, focal, width / 2, height / 2) for focal in focals], np.float64)
        fps = document.get("fps", 24.0)
        if not isinstance(fps, int | float):
            raise ValueError(f"fps is {fps!r}; expected a number")
        return (camera_path(np.stack(poses) @ OPENGL, numbers, height, width, fps=float(fps), name="path"),)


def pose_and_focal(index: int, frame: dict, height: int) -> tuple[np.ndarray, float]:
    """The camera-to-world matrix [4, 4] in the file's axes, and the focal length in pixels."""
    if missing := [key for key in ("camera_to_world", "fov") if key not in frame]:
        raise ValueError(f"camera {index} lacks {' and '.join(missing)}")
    check_lens(frame)
    try:
        pose = np.array(frame["camera_to_world"], np.float64).reshape(4, 4)
    except (TypeError, ValueError) as error:
        raise ValueError(f"camera {index}: camera_to_world is not 16 numbers") from error
    fov = frame["fov"]
    radians = {"fov": math.radians(fov) if isinstance(fov, int | float) else fov}
    return pose, height / 2 / math.tan(angle_of(radians, "fov", f"camera {index}") / 2)

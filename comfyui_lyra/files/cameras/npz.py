"""Cameras as the reference stores them: a pose npz and an intrinsics npz a clip.

``data`` holds float32 camera-to-world matrices [F, 4, 4], or fx, fy, cx, cy in pixels [F, 4]; ``inds`` their frame
numbers [F]. Axes are OpenCV's, as ours.
"""

from pathlib import Path

import numpy as np

from ...cameras.path import CameraTrajectory
from ..arrays import read_arrays
from ..atomic import replacing
from ..reading import reading
from .lens import check_lens, is_lens_key
from .pinhole import camera_path, pinhole_numbers


def save_cameras_npz(pose_path: Path | str, intrinsics_path: Path | str, cameras: CameraTrajectory) -> None:
    """Write one path as a pose and an intrinsics npz (teacher.md 10.1), frames numbered from 0."""
    for path, data in ((pose_path, cameras.c2w), (intrinsics_path, pinhole_numbers(cameras))):
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, data=data.float().cpu().numpy(), inds=np.arange(len(cameras), dtype=np.int64))


def load_cameras_npz(
    pose_path: Path | str,
    intrinsics_path: Path | str,
    height: int,
    width: int,
    fps: float = 24.0,
    name: str = "path",
) -> CameraTrajectory:
    """Read one path of height x width pictures. Both files must hold every frame from the first pose to the last."""
    poses, frames = read_poses(pose_path)
    numbers, numbered = read_intrinsics(intrinsics_path)
    gaps, lacking = frames[:-1][np.diff(frames) > 1] + 1, frames[~np.isin(frames, numbered)]
    for path, missing in ((pose_path, gaps), (intrinsics_path, lacking)):
        if len(missing):
            raise ValueError(f"{path}: frame {missing[0]} of {frames[0]}..{frames[-1]} is missing")
    with reading(pose_path):
        return camera_path(poses, numbers[np.searchsorted(numbered, frames)], height, width, fps=fps, name=name)


def read_poses(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Camera-to-world matrices [M, 4, 4] and their frame numbers [M], ascending; rows may also be 3x4 or flat.

    NaN poses are passed on: what they mean is the caller's to say.
    """
    data, frames = read_rows(path)
    flat = data.reshape(len(data), -1)
    if flat.shape[1] not in (12, 16):
        raise ValueError(f"{path}: expected poses [F 4 4], got {data.shape}")
    poses = np.tile(np.eye(4), (len(data), 1, 1))
    poses[:, : flat.shape[1] // 4] = flat.reshape(len(data), -1, 4)
    return poses, frames


def read_intrinsics(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers fx, fy, cx, cy [M, 4] and their frame numbers [M], ascending; rows may also be 3x3 matrices."""
    data, frames = read_rows(path)
    if data.shape[1:] == (3, 3):
        data = data[:, [0, 1, 0, 1], [0, 1, 2, 2]]
    if data.shape[1:] != (4,):
        raise ValueError(f"{path}: expected fx fy cx cy a frame [F 4], got {data.shape}; only pinhole cameras are read")
    return data, frames


def read_rows(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """``data`` [M, ...] as float64 and ``inds`` [M], in ascending order of ``inds``; without them 0..M-1."""
    with reading(path) as file:
        arrays = read_arrays(file, known_arrays)
        check_lens({name: values.tolist() for name, values in arrays.items() if name not in ("data", "inds")})
        if arrays["data"].dtype.kind not in "fiu":
            raise ValueError(f"'data' holds {arrays['data'].dtype}, no numbers")
        data = arrays["data"].astype(np.float64)
        frames = arrays["inds"] if "inds" in arrays else np.arange(len(data)) if data.ndim else np.empty(0, int)
        if not data.ndim or frames.shape != data.shape[:1] or frames.dtype.kind not in "iu" or not len(frames):
            raise ValueError(f"expected one frame number in 'inds' a row, got {frames.shape} for {data.shape}")
        order = np.argsort(frames, kind="stable")
        if (np.diff(frames[order]) == 0).any():
            raise ValueError("'inds' names a frame twice")
        return data[order], frames[order].astype(np.int64)


def known_arrays(names: tuple[str, ...]) -> tuple[str, ...]:
    """The arrays that a file of cameras must have, may have, or may say of its lens."""
    if "data" not in names:
        raise ValueError(f"expected numbers named 'data' and 'inds', found {', '.join(names) or 'none'}")
    return tuple(name for name in names if name in ("data", "inds") or is_lens_key(name))

"""Nerfstudio's transforms.json: camera-to-world matrices in OpenGL axes (x right, y up, z back).

Pictures of one folder make one path, named after the folder, in the order of their names.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...cameras.path import CameraTrajectory
from ..atomic import replacing
from ..reading import one_line, reading
from .lens import check_lens
from .lyra_json import read_object
from .pinhole import as_matrix, by_folder, camera_path, check_names, picture_size, pinhole_numbers

log = logging.getLogger("lyra")

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # from OpenCV camera axes and back: turns y and z
NUMBERS = ("fl_x", "fl_y", "cx", "cy")
SIZE = ("w", "h")
ENDINGS = ("", ".png", ".jpg", ".jpeg", ".PNG", ".JPG")  # of pictures beside the file, which may leave them out


def save_transforms(
    path: Path | str, paths: Sequence[CameraTrajectory], *, about: Mapping[str, str] | None = None, moving: bool = False
) -> None:
    """Write a path set as one transforms.json; pictures are called ``images/<path>/00000.png`` and so on.

    ``about`` are further keys of the whole. Frames of a ``moving`` scene get a ``time`` in 0..1.
    """
    check_names(paths)
    frames = []
    for cameras in paths:
        poses = cameras.c2w.double().cpu().numpy() @ OPENGL
        for i, (pose, numbers) in enumerate(zip(poses, pinhole_numbers(cameras).tolist(), strict=True)):
            frame = {"file_path": f"images/{cameras.name}/{i:05d}.png", "transform_matrix": pose.tolist()}
            if moving:
                frame["time"] = i / max(1, len(cameras) - 1)
            frames.append(frame | dict(zip(NUMBERS + SIZE, [*numbers, cameras.width, cameras.height], strict=True)))
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps({"camera_model": "PINHOLE", **(about or {}), "frames": frames}), encoding="utf-8"
        )


def load_transforms(path: Path | str) -> tuple[CameraTrajectory, ...]:
    """Read a path set; intrinsics may stand at the top or in each frame. Distorted cameras are refused.

    ``fl_x`` alone means square pixels, ``camera_angle_x`` (radians) stands for it, the optical centre is the middle
    unless said otherwise, and a size that is not said is that of the pictures beside the file.
    """
    document = read_object(path)
    with reading(path) as file:
        frames = document.pop("frames", None)
        if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
            raise ValueError("expected a list of objects named 'frames'")
        whole = with_poses([{"file_path": "", **document, **frame} for frame in frames])
        for frame in whole:
            check_frame(frame)
        cache: dict[Path, tuple[int, int]] = {}
        lenses = [lens_of(frame, file.parent, cache) for frame in whole]
        folders = by_folder([str(frame["file_path"]) for frame in whole])
        return tuple(
            read_path(name, [whole[i] for i in members], [lenses[i] for i in members])
            for name, members in folders.items()
        )


def with_poses(frames: list[dict]) -> list[dict]:
    """The frames whose pose is all numbers; programs that track cameras write NaN where they lost one."""
    good = [frame for frame in frames if not is_lost(frame.get("transform_matrix"))]
    if not good:
        raise ValueError("every transform_matrix holds NaN or infinity: no camera was found")
    if len(good) < len(frames):
        first = next(frame["file_path"] for frame in frames if is_lost(frame.get("transform_matrix")))
        log.warning(
            "%d of %d frames are left out: their transform_matrix holds NaN or infinity (first: '%s')",
            len(frames) - len(good), len(frames), one_line(first),
        )  # fmt: skip
    return good


def is_lost(pose: object) -> bool:
    """Whether a pose is made of numbers that are not all finite; what is no numbers at all is named later."""
    try:
        return pose is not None and not np.isfinite(np.array(pose, np.float64)).all()
    except (TypeError, ValueError, OverflowError):
        return False


def read_path(name: str, frames: list[dict], lenses: list[dict]) -> CameraTrajectory:
    """One path from the frames of one folder, in their order."""
    poses = []
    for frame in frames:
        pose = as_matrix(frame["transform_matrix"], 4, f"transform_matrix of '{frame['file_path']}'")
        if len(pose) not in (3, 4):
            raise ValueError(f"transform_matrix of '{frame['file_path']}' has {len(pose)} rows; expected 4, or 3")
        poses.append(np.concatenate((pose, np.eye(4)[len(pose) :])))  # a last row may be left out
    sizes = {(lens["h"], lens["w"]) for lens in lenses}
    if len(sizes) > 1:
        some = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)[:3])
        raise ValueError(f"'{name}' has pictures of several sizes ({some}); a path has one: put each in its own folder")
    numbers = as_matrix([[lens[key] for key in NUMBERS] for lens in lenses], 4, f"'{name}': {' '.join(NUMBERS)}")
    return camera_path(np.stack(poses) @ OPENGL, numbers, *sizes.pop(), name=name)


def check_frame(frame: Mapping[str, object]) -> None:
    """Raise ValueError for a frame that has no pose or is no pinhole picture."""
    if "transform_matrix" not in frame:
        raise ValueError(f"frame '{frame['file_path']}' lacks transform_matrix")
    try:
        check_lens(frame)
    except ValueError as error:
        raise ValueError(f"frame '{frame['file_path']}' has {error}") from error


def lens_of(frame: Mapping[str, Any], folder: Path, cache: dict[Path, tuple[int, int]]) -> dict[str, Any]:
    """fl_x, fl_y, cx, cy, w and h of a frame, with what stands for those that are not said."""
    what = f"frame '{frame['file_path']}'"
    said = {key: frame[key] for key in (*NUMBERS, *SIZE) if frame.get(key) is not None}
    if not said.keys() >= set(SIZE):
        found = size_beside(folder, str(frame["file_path"]), cache)
        if found is None:
            missing = " ".join(key for key in SIZE if key not in said)
            raise ValueError(f"{what} lacks {missing} (pixels), and its picture is not there; add them")
        said |= dict(zip(("h", "w"), found, strict=True))
    said["h"], said["w"] = picture_size(said["h"], said["w"], what)
    for focal, angle, side in (("fl_x", "camera_angle_x", "w"), ("fl_y", "camera_angle_y", "h")):
        if focal not in said and frame.get(angle) is not None:
            said[focal] = said[side] / 2 / math.tan(angle_of(frame, angle, what) / 2)
    if not {"fl_x", "fl_y"} & said.keys():
        raise ValueError(f"{what} lacks fl_x (pixels) or camera_angle_x (radians); add one")
    middle = {"fl_x": said.get("fl_y"), "fl_y": said.get("fl_x"), "cx": said["w"] / 2, "cy": said["h"] / 2}
    return middle | said


def angle_of(frame: Mapping[str, object], key: str, what: str) -> float:
    """A view angle in radians."""
    angle = frame[key]
    if not isinstance(angle, int | float) or not 0 < angle < math.pi:
        raise ValueError(f"{what}: {key} is {angle!r}; expected radians between 0 and pi")
    return angle


def size_beside(folder: Path, name: str, cache: dict[Path, tuple[int, int]]) -> tuple[int, int] | None:
    """Height and width of a picture beside the file, if it is there; looked at once a folder."""
    picture = folder / name.replace("\\", "/")
    if not name or picture.parent in cache:
        return cache.get(picture.parent)
    file = next((file for end in ENDINGS if (file := picture.with_name(picture.name + end)).is_file()), None)
    if file is None:
        return None
    with reading(file), Image.open(file) as image:
        cache[picture.parent] = image.height, image.width
    return cache[picture.parent]

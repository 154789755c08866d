"""COLMAP text models: world-to-camera poses, quaternions wxyz, OpenCV axes.

Pictures of one folder make one path, named after the folder, in the order of their names.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation
from torch import Tensor

from ...cameras.path import CameraTrajectory
from ..atomic import replacing
from ..reading import read_text, reading
from .pinhole import by_folder, camera_path, check_names, picture_size, pinhole_numbers

log = logging.getLogger("lyra")

ONE, TWO = (0, 0, 1, 2), (0, 1, 2, 3)  # which parameters are fx, fy, cx, cy, of models with one focal length and two
MODELS = {  # and how many parameters there are; those after the first bend the picture
    "SIMPLE_PINHOLE": (ONE, 3), "PINHOLE": (TWO, 4), "SIMPLE_RADIAL": (ONE, 4), "RADIAL": (ONE, 5),
    "OPENCV": (TWO, 8), "FULL_OPENCV": (TWO, 12),
}  # fmt: skip


class Camera(NamedTuple):
    """A line of cameras.txt."""

    height: int
    width: int
    numbers: tuple[float, ...]  # fx, fy, cx, cy


class Image(NamedTuple):
    """A picture of images.txt."""

    name: str
    pose: tuple[float, ...]  # qw qx qy qz tx ty tz, world to camera
    camera: Camera


def save_colmap(
    folder: Path | str, paths: Sequence[CameraTrajectory], points: tuple[Tensor, Tensor] | None = None
) -> None:
    """Write a path set as ``<folder>/sparse/0/{cameras,images,points3D}.txt``; pictures are ``<path>/00000.png``.

    ``points`` are places [N, 3] and colours [N, 3] in 0..1. They are seen by no picture: each has one dummy 2-D point,
    since several readers stop at an empty line.
    """
    check_names(paths)
    ids: dict[Camera, int] = {}
    images = []
    for path in paths:
        w2c = np.linalg.inv(path.c2w.double().cpu().numpy())
        quats = Rotation.from_matrix(w2c[:, :3, :3]).as_quat()[:, [3, 0, 1, 2]]  # scipy's are xyzw
        for i, (quat, pose, numbers) in enumerate(zip(quats, w2c, pinhole_numbers(path).tolist(), strict=True)):
            camera = ids.setdefault(Camera(path.height, path.width, tuple(numbers)), len(ids) + 1)
            values = " ".join(repr(float(value)) for value in (*quat, *pose[:3, 3]))
            images.append(f"{len(images) + 1} {values} {camera} {path.name}/{i:05d}.png\n0.0 0.0 -1")
    cameras = [
        f"{number} PINHOLE {camera.width} {camera.height} {' '.join(map(repr, camera.numbers))}"
        for camera, number in ids.items()
    ]
    files = {
        "cameras": ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]", *cameras],
        "images": ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of POINTS2D[]", *images],
        "points3D": ["# POINT3D_ID X Y Z R G B ERROR TRACK[]", *point_lines(*points or ())],
    }
    for name, lines in files.items():
        with replacing(Path(folder) / "sparse" / "0" / f"{name}.txt") as temporary:
            temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")


def point_lines(places: Tensor | None = None, colors: Tensor | None = None) -> list[str]:
    """Lines of points3D.txt."""
    if places is None or colors is None:
        return []
    bytes_of = (colors.clamp(0, 1) * 255).round().int().tolist()
    rows = zip(places.tolist(), bytes_of, strict=True)
    return [f"{i} {x:.8g} {y:.8g} {z:.8g} {r} {g} {b} 0" for i, ((x, y, z), (r, g, b)) in enumerate(rows, 1)]


def find_model(folder: Path | str) -> Path | None:
    """The folder of a COLMAP model, text or binary: this one or a usual place below it."""
    places = [Path(folder) / below for below in ("", "0", "sparse/0", "sparse")]
    return next((p for p in places if (p / "images.txt").is_file() or (p / "images.bin").is_file()), None)


def load_colmap(folder: Path | str) -> tuple[CameraTrajectory, ...]:
    """Read a path set from a text model in this folder or in ``sparse/0`` below it."""
    model = find_model(folder)
    if model is None:
        raise FileNotFoundError(f"{folder}: holds no COLMAP model, cameras.txt and images.txt")
    if not (model / "images.txt").is_file():
        raise ValueError(f"{model}: a binary model; make it text with 'colmap model_converter --output_type TXT'")
    with reading(model / "cameras.txt") as file:
        cameras = read_cameras(read_text(file).splitlines())
        if not cameras:
            raise ValueError("holds no cameras")
    with reading(model / "images.txt") as file:
        images = usable(read_images(read_text(file).splitlines(), cameras), file)
        folders = by_folder([image.name for image in images])
        return tuple(read_path(name, [images[i] for i in members]) for name, members in folders.items())


def read_cameras(lines: list[str]) -> dict[str, Camera]:
    """Cameras by their id."""
    cameras = {}
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        number, model, *values = *line.split(), ""
        values = values[:-1]
        if model not in MODELS:
            raise ValueError(f"camera {number} is {model}; only pinhole cameras are read: undistort first")
        places, count = MODELS[model]
        if len(values) != 2 + count:
            raise ValueError(f"camera {number}: expected width, height and {count} numbers: '{line}'")
        parameters = [float(value) for value in values[2:]]
        if any(parameters[1 + max(places) :]):
            raise ValueError(f"camera {number} is {model}, with distortion; only pinholes are read: undistort first")
        size = picture_size(int(values[1]), int(values[0]), f"camera {number}")
        cameras[number] = Camera(*size, tuple(parameters[i] for i in places))
    return cameras


def read_images(lines: list[str], cameras: dict[str, Camera]) -> list[Image]:
    """Pictures in the order of the file. The line of 2-D points after each may be empty or left out."""
    images: list[Image] = []
    after_image = False
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        if not line.strip() or (after_image and are_points(line)):
            after_image = False
            continue
        words = line.split(maxsplit=9)
        if len(words) != 10 or words[8] not in cameras:
            neither = "neither an image of a known camera nor 2-D points, three numbers each"
            what = neither if images else "no image of a known camera"
            raise ValueError(f"line {number} is {what}")
        images.append(Image(words[9].strip(), tuple(float(word) for word in words[1:8]), cameras[words[8]]))
        after_image = True
    return images


def are_points(line: str) -> bool:
    """Whether a line holds 2-D points: three numbers each."""
    words = line.split()
    try:
        return len(words) % 3 == 0 and all(map(math.isfinite, map(float, words)))
    except ValueError:
        return False


def usable(images: list[Image], file: Path) -> list[Image]:
    """The images with a pose; the others are dropped with a warning, as if they had not been registered."""
    posed = [image for image in images if all(map(math.isfinite, image.pose)) and any(image.pose[:4])]
    if not posed:
        raise ValueError(f"none of its {len(images)} images has a pose" if images else "holds no images")
    if len(posed) < len(images):
        log.warning(
            "%s: %d of %d images have no pose (NaN, or a quaternion of length zero) and are left out",
            file, len(images) - len(posed), len(images),
        )  # fmt: skip
    return posed


def read_path(name: str, images: list[Image]) -> CameraTrajectory:
    """One path from the pictures of one folder, in their order."""
    sizes = {(image.camera.height, image.camera.width) for image in images}
    if len(sizes) > 1:
        raise ValueError(f"'{name}': expected pictures of one size, got {sorted(sizes)[:3]}")
    poses = np.array([image.pose for image in images])
    w2c = np.tile(np.eye(4), (len(images), 1, 1))
    w2c[:, :3, :3] = Rotation.from_quat(poses[:, [1, 2, 3, 0]]).as_matrix()
    w2c[:, :3, 3] = poses[:, 4:]
    return camera_path(
        np.linalg.inv(w2c), np.array([image.camera.numbers for image in images]), *sizes.pop(), name=name
    )

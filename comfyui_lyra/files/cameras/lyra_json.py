"""Our own camera files: a set of paths as JSON, readable by eye and exact to the last bit.

    {"format": "lyra-cameras", "version": 1, "axes": "opencv",
     "paths": [{"name": "left", "fps": 24.0, "width": 1280, "height": 704,
                "frames": [{"c2w": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
                            "K": [1000.0, 1000.0, 640.0, 352.0]}, ...]}, ...]}

``c2w`` is the camera-to-world matrix by rows, camera axes x right, y down, z forward; ``K`` is fx, fy, cx, cy in pixels
of a width x height picture. "metres_per_unit" may say what a unit of the world is. Other keys are passed over.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...cameras.path import CameraTrajectory
from ...versions import pack_version
from ..atomic import replacing
from ..reading import parse_json, read_text, reading
from .pinhole import as_matrix, camera_path, picture_size, pinhole_numbers

FORMAT = {"format": "lyra-cameras", "version": 1, "axes": "opencv"}


def save_cameras_json(path: Path | str, paths: Sequence[CameraTrajectory], metres: float | None = None) -> None:
    """Write a path set; ``metres`` a unit of their world are noted where they are known."""
    document = FORMAT | {
        "pack": pack_version(),
        **({} if metres is None else {"metres_per_unit": metres}),
        "paths": [
            {
                "name": cameras.name,
                "fps": cameras.fps,
                "width": cameras.width,
                "height": cameras.height,
                "frames": [
                    {"c2w": c2w, "K": numbers}
                    for c2w, numbers in zip(cameras.c2w.tolist(), pinhole_numbers(cameras).tolist(), strict=True)
                ],
            }
            for cameras in paths
        ],
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")


def load_cameras_json(path: Path | str) -> tuple[CameraTrajectory, ...]:
    """Read a path set."""
    document = read_object(path)
    with reading(path):
        for key, value in FORMAT.items():
            if document.get(key) != value:
                raise ValueError(f"expected '{key}' {value!r}, got {document.get(key)!r}")
        try:
            paths = tuple(read_path(entry) for entry in document["paths"])
        except KeyError as error:
            raise ValueError(f"a camera path or frame lacks {error}") from error
        except (AttributeError, TypeError) as error:
            raise ValueError("'paths' and 'frames' must be lists of objects, as in our documentation") from error
        if not paths:
            raise ValueError("holds no camera paths")
        return paths


def read_path(entry: dict) -> CameraTrajectory:
    """One path of the file."""
    name, frames = str(entry["name"]), entry["frames"]
    if not frames:
        raise ValueError(f"camera path '{name}' holds no frames")
    poses = [as_matrix(frame["c2w"], 4, f"'{name}': c2w of frame {i}") for i, frame in enumerate(frames)]
    if sizes := {len(pose) for pose in poses} - {4}:
        raise ValueError(f"camera path '{name}': a c2w has {sizes.pop()} rows; expected 4")
    numbers = as_matrix([frame["K"] for frame in frames], 4, f"'{name}': K of its frames")
    size = picture_size(entry["height"], entry["width"], f"camera path '{name}'")
    return camera_path(np.stack(poses), numbers, *size, fps=float(entry["fps"]), name=name)


def read_object(path: Path | str) -> dict:
    """The object of a JSON file."""
    with reading(path) as file:
        try:
            document = parse_json(read_text(file))
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ValueError(f"expected a JSON object, got a {type(document).__name__}")
        return document

"""What all camera files share: fx, fy, cx, cy to and from K, and the checks a pose passes on its way in."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cameras.path import CameraTrajectory
from ..names import fault

MOST_SIDE = 1 << 17  # pixels of a picture's side


def pinhole_numbers(cameras: CameraTrajectory) -> Tensor:
    """fx, fy, cx, cy in pixels [F, 4]; ValueError if a K holds more than those, which files have no place for."""
    K = cameras.K
    numbers = torch.stack((K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]), dim=1)
    if not torch.equal(pinhole_matrix(numbers), K):
        raise ValueError(f"camera path '{cameras.name}': K has skew or a last row other than 0 0 1; files hold neither")
    return numbers


def pinhole_matrix(numbers: Tensor) -> Tensor:
    """K [F, 3, 3] of fx, fy, cx, cy [F, 4]."""
    fx, fy, cx, cy = numbers.unbind(1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack((fx, zero, cx, zero, fy, cy, zero, zero, one), dim=1).view(-1, 3, 3)


def camera_path(
    c2w: np.ndarray, numbers: np.ndarray, height: int, width: int, *, fps: float = 24.0, name: str = "path"
) -> CameraTrajectory:
    """A path from float64 poses [F, 4, 4] in OpenCV axes and fx, fy, cx, cy [F, 4], as read from a file.

    Raises ValueError naming the first frame that is not finite, is no rotation with a translation, or has no focal
    length.
    """
    finite = np.all(np.isfinite(c2w), axis=(1, 2)) & np.all(np.isfinite(numbers), axis=1)
    turn = np.where(finite[:, None, None], c2w, 0)[:, :3, :3]
    rigid = np.isclose(turn @ turn.transpose(0, 2, 1), np.eye(3), atol=1e-2).all((1, 2)) & (np.linalg.det(turn) > 0)
    checks = (
        (finite, "holds NaN or infinity"),
        (np.isclose(c2w[:, 3], (0, 0, 0, 1)).all(1), "has a pose whose last row is not 0 0 0 1"),
        (rigid, "has a pose that is no rotation with a translation"),
        ((numbers[:, :2] > 0).all(1), "has a focal length that is not positive"),
    )
    for good, problem in checks:
        if not good.all():
            raise ValueError(f"camera path '{name}': frame {int(np.argmin(good))} {problem}")
    return CameraTrajectory(
        c2w=torch.from_numpy(c2w.astype(np.float32)),
        K=pinhole_matrix(torch.from_numpy(numbers.astype(np.float32))),
        height=height,
        width=width,
        fps=fps,
        name=name,
    )


def as_matrix(value: object, columns: int, what: str) -> np.ndarray:
    """Numbers of a text file as float64 [rows, columns]; ValueError in words if they are anything else."""
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is not rows of {columns} numbers") from error
    if matrix.ndim != 2 or matrix.shape[1] != columns:
        raise ValueError(f"{what} is not rows of {columns} numbers, but {matrix.shape}")
    return matrix


def picture_size(height: Any, width: Any, what: str) -> tuple[int, int]:
    """Height and width of a text file as whole numbers; ValueError in words if they are anything else."""
    fits = (isinstance(size, int | float) and abs(size) <= MOST_SIDE and size == int(size) for size in (height, width))
    if not all(fits):
        raise ValueError(
            f"{what}: {height!r} rows and {width!r} columns; a picture has whole numbers of both, up to {MOST_SIDE}"
        )
    return int(height), int(width)


def check_names(paths: Sequence[CameraTrajectory]) -> None:
    """Raise ValueError unless the names of the paths can be files or folders of one place, on any system."""
    seen: set[str] = set()
    for cameras in paths:
        wrong = "another path has it too" if cameras.name.lower() in seen else fault(cameras.name)
        if wrong:
            raise ValueError(f"camera path '{cameras.name}': names become file names; {wrong}")
        seen.add(cameras.name.lower())


def by_folder(names: Sequence[str]) -> dict[str, list[int]]:
    """Which pictures lie in one folder, in the order of their numbers, under a name for each folder.

    The name is the last part of the folder, or the last that differs between all of them; slashes may be backslashes.
    """
    names = [name.replace("\\", "/") for name in names]
    folders: dict[PurePosixPath, list[int]] = {}
    for index, name in enumerate(names):
        folders.setdefault(PurePosixPath(name).parent, []).append(index)
    for members in folders.values():
        members.sort(key=lambda index: by_number(names[index]))
    return dict(zip(telling_parts(list(folders)), folders.values(), strict=True))


def telling_parts(folders: Sequence[PurePosixPath]) -> list[str]:
    """A different name for each folder: the last part that is one, or as many last parts as it takes."""
    parts = [[part.rstrip(":") for part in folder.parts if part.strip("./:")] or ["path"] for folder in folders]
    deepest = max(map(len, parts))
    for depth in range(1, deepest + 1):
        alone = [part[-depth] if len(part) >= depth else "" for part in parts]
        for names in (alone, ["_".join(part[-depth:]) for part in parts]):
            if all(names) and len(set(names)) == len(names):
                return names
    return [f"path_{index}" for index in range(len(folders))]


def by_number(name: str) -> list[tuple[str, int]]:
    """Sort key that puts ``frame_2`` before ``frame_10``."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]

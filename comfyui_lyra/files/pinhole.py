"""What all camera files share: fx, fy, cx, cy to and from K, and the checks a pose passes on its way in."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..cameras import CameraTrajectory


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
    finite = np.isfinite(c2w).all((1, 2)) & np.isfinite(numbers).all(1)
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


def picture_size(height: object, width: object, what: str) -> tuple[int, int]:
    """Height and width of a text file as whole numbers; ValueError in words if they are anything else."""
    if not all(isinstance(size, int | float) and float(size).is_integer() for size in (height, width)):
        raise ValueError(f"{what}: {height!r} rows and {width!r} columns; a picture has whole numbers of both")
    return int(height), int(width)


def check_names(paths: Sequence[CameraTrajectory]) -> None:
    """Raise ValueError unless the names of the paths can be files or folders of one place."""
    names = [cameras.name for cameras in paths]
    if bad := [name for name in names if names.count(name) > 1 or not re.fullmatch(r"[^/\\]*[^/\\.][^/\\]*", name)]:
        raise ValueError(f"camera path '{bad[0]}': names become file names, so they must differ and hold no slash")


def by_number(name: str) -> list[tuple[str, int]]:
    """Sort key that puts ``frame_2`` before ``frame_10``."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]

"""Camera paths from and to any format we know, told apart by what is there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from ...cameras.path import CameraTrajectory
from ..scenes.sdg import load_sdg_cameras, read_view, save_sdg_cameras
from .colmap import find_model, load_colmap, save_colmap
from .lyra_json import load_cameras_json, read_object, save_cameras_json
from .nerfstudio_path import load_camera_path
from .transforms_json import load_transforms, save_transforms

Format = Literal["json", "transforms", "colmap", "npz"]

FORMATS = get_args(Format)
CAMERAS = "cameras.json"  # in a folder that a save made
KNOWN = (
    "a JSON path set of ours, nerfstudio's transforms.json or camera_path.json, a COLMAP text model, or npz files "
    "in folders pose and intrinsics"
)


def load_cameras(
    path: Path | str, *, clip: str | None = None, size: tuple[int, int] | None = None
) -> tuple[CameraTrajectory, ...]:
    """Read a path set from a file or a folder.

    ``clip`` chooses one of several in a folder of npz files, ``size`` (height, width) is what those do not hold when no
    video lies beside them.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".json" and path.is_file():
        return json_reader(path)(path)
    if suffix == ".npz" and path.parent.name in ("pose", "intrinsics"):
        return (read_view(path.parent.parent, path.stem, size),)
    if path.is_dir():
        if (path / CAMERAS).is_file():
            return load_cameras_json(path / CAMERAS)
        if (path / "transforms.json").is_file():
            return load_transforms(path / "transforms.json")
        return load_colmap(path) if find_model(path) else load_sdg_cameras(path, clip, size)
    raise ValueError(f"{path}: no camera format we know; expected {KNOWN}")


def json_reader(path: Path) -> Callable[[Path], tuple[CameraTrajectory, ...]]:
    """Which reader takes a JSON file: by its keys, not its name."""
    document = read_object(path)
    if "format" in document:
        return load_cameras_json
    if "camera_path" in document:
        return load_camera_path
    if "frames" not in document:
        raise ValueError(f"{path}: JSON without 'frames' or 'camera_path'; expected {KNOWN}")
    return load_transforms


def save_cameras(
    path: Path | str,
    paths: Sequence[CameraTrajectory],
    *,
    kind: Format | None = None,
    clip: str = "clip",
) -> None:
    """Write a path set. ``json`` and ``transforms`` are files, ``colmap`` and ``npz`` folders.

    Without a ``kind``, transforms.json and other .json files go by their names. ``clip`` names the npz files.
    """
    path = Path(path)
    if not paths:
        raise ValueError(f"{path}: no camera paths to save")
    if kind is None and path.suffix.lower() == ".json":
        kind = "transforms" if path.name.lower() == "transforms.json" else "json"
    if kind == "json":
        save_cameras_json(path, paths)
    elif kind == "transforms":
        save_transforms(path, paths)
    elif kind == "colmap":
        save_colmap(path, paths)
    elif kind == "npz":
        save_sdg_cameras(path, clip, paths)
    else:
        what = f" '{kind}'" if kind else ""
        raise ValueError(
            f"{path}: unknown camera format{what}; use a .json name, or say json, transforms, colmap or npz"
        )

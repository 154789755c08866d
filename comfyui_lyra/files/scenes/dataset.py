"""A scene as a folder that other programs train splats from: pictures, a COLMAP text model and transforms.json.

<folder>/images/<path>/00000.png ...
<folder>/sparse/0/{cameras,images,points3D}.txt     for 3DGS, gsplat, Brush and their like
<folder>/transforms.json, points.ply                for nerfstudio
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...callbacks import OnStep, no_progress
from ...cameras.path import CameraTrajectory
from ..atomic import replacing, replacing_folder
from ..cameras.colmap import save_colmap
from ..cameras.pinhole import check_names
from ..cameras.transforms_json import save_transforms
from ..media.images import save_image

POINTS = "points.ply"
POINT = np.dtype([("place", "<f4", 3), ("color", "u1", 3)])
HEADER = (
    "ply\nformat binary_little_endian 1.0\nelement vertex {count}\n"
    + "".join(f"property float {name}\n" for name in "xyz")
    + "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    + "end_header\n"
)


def save_dataset(
    folder: Path | str,
    paths: Sequence[CameraTrajectory],
    films: Iterable[Iterable[Tensor]],
    points: tuple[Tensor, Tensor] | None = None,
    *,
    moving: bool = False,
    on_step: OnStep = no_progress,
) -> None:
    """Write a new folder, which appears when it is complete: of each path a film of as many pictures [H, W, 3].

    ``points`` are places [N, 3] and colours [N, 3] in the world of the cameras, from which training starts. The
    pictures of a ``moving`` scene get a time in 0..1, by their number in the path. Raises ValueError where the folder
    exists already, and where a film has another length.
    """
    folder = Path(folder).absolute()
    check_names(paths)
    if folder.exists():
        raise ValueError(f"{folder} is there already; choose another name")
    total, done = sum(len(path) for path in paths), 0
    with replacing_folder(folder) as staging:
        for path, film in zip(paths, films, strict=True):
            count = 0
            for frame in film:
                save_image(staging / "images" / path.name / f"{count:05d}.png", frame)
                count, done = count + 1, done + 1
                on_step(done, total)
            if count != len(path):
                raise ValueError(f"path '{path.name}' has {len(path)} cameras and {count} pictures")
        save_colmap(staging, paths, points)
        about = {"ply_file_path": POINTS} if points else {}
        save_transforms(staging / "transforms.json", paths, about=about, moving=moving)
        if points:
            save_points(staging / POINTS, *points)


def save_points(path: Path, places: Tensor, colors: Tensor) -> None:
    """Write places [N, 3] with colours [N, 3] in 0..1 as a PLY of points."""
    rows = np.empty(len(places), POINT)
    rows["place"], rows["color"] = places.cpu().numpy(), color_bytes(colors)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(HEADER.format(count=len(rows)).encode())
        file.write(rows.tobytes())


def color_bytes(colors: Tensor) -> np.ndarray:
    """Colours in 0..1 as bytes."""
    return colors.clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def thinned(points: tuple[Tensor, Tensor], most: int) -> tuple[Tensor, Tensor]:
    """At most so many points, evenly out of all."""
    places, colors = points
    if len(places) <= most:
        return points
    rows = torch.linspace(0, len(places) - 1, most, device=places.device).round().long()
    return places[rows], colors[rows]

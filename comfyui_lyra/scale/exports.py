"""Further forms of a scene's splats, made from its PLY files at any later time: what ``lyra batch --format`` adds."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..cameras.path import CameraTrajectory
from ..files.cameras.lyra_json import load_cameras_json
from ..files.places import Place
from ..files.splats.forge import library
from ..files.splats.formats import WRITTEN, SplatFormat
from ..files.splats.load import load_splats
from ..files.splats.save import Placing
from ..splats.gaussians import GaussianSequence
from ..viewer.write import write_scene

PLY = "ply"  # is always there: the others are made from it
LIBRARIES = {"gaussforge": "gaussforge", "usd-core": "pxr"}  # packages, and what is imported of them
PAGE = "index"  # a name that the page of thumbnails has


def wanted(kinds: Sequence[str], about: dict) -> list[str]:
    """Those of some forms that the record of a scene does not have yet."""
    return [kind for kind in dict.fromkeys(kinds) if kind != PLY and kind not in about.get("forms", {})]


def check_forms(kinds: Sequence[str]) -> None:
    """ValueError where this machine lacks what writes one of the forms."""
    for form in (WRITTEN[kind] for kind in kinds):
        if form.needs:
            library(LIBRARIES[form.needs], form.needs, f"writing {form.suffix}")


def export(place: Place, name: str, about: dict, kinds: Sequence[str]) -> None:
    """Write the forms that are missing of a scene, and each into its record as soon as it is there.

    Raises ValueError, once all were tried, with what was wrong with which form.
    """
    if not (kinds := wanted(kinds, about)):
        return
    problems = []
    with place.staging(name) as folder:
        splats, cameras = stored(place, name, about, folder)
        for kind in kinds:
            try:
                placing = Placing(metres=about.get("metres"))
                files = write_form(folder / kind, name, splats, cameras, WRITTEN[kind], placing, about.get("fps", 24.0))
                for file in files:
                    (place / file).put(folder / kind / file)
            except (ValueError, OSError) as error:
                problems.append(f"{kind}: {error}")
                continue
            about["forms"] = about.get("forms", {}) | {kind: files}
            (place / f"{name}.json").write(json.dumps(about, indent=1))
    if problems:
        raise ValueError("; ".join(problems))


def stored(place: Place, name: str, about: dict, folder: Path) -> tuple[GaussianSequence, tuple[CameraTrajectory, ...]]:
    """The splats of a scene as its PLYs hold them, and its paths; what lies at a URL is copied into the folder."""
    times, single = about["times"], about["file"].endswith(".ply")
    names = [about["file"]] if single else [f"{name}/{index:05}.ply" for index in range(len(times))]
    frames = tuple(load_splats(here(place, file, folder)) for file in names)
    cameras = place / (f"cameras/{name}.json" if single else f"{name}/cameras.json")
    paths = load_cameras_json(here(place, cameras.url[len(place.url) + 1 :], folder)) if cameras.is_file() else ()
    return GaussianSequence(frames=frames, times=tuple(times)), paths


def here(place: Place, file: str, folder: Path) -> Path:
    """A file on this machine's disks."""
    if (path := (place / file).path) is not None:
        return path
    copy = folder / "read" / file
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes((place / file).read())
    return copy


def write_form(
    folder: Path,
    name: str,
    splats: GaussianSequence,
    cameras: Sequence[CameraTrajectory],
    form: SplatFormat,
    placing: Placing,
    fps: float,
) -> list[str]:
    """Write one form; names of the files, below the folder: of several moments one, or one a moment beside the PLYs."""
    if form.name == "html" and name == PAGE:
        raise ValueError(f"{name}.html is the page of thumbnails; give the picture another name")
    if len(splats) == 1 or form.moves:
        parts = {f"{name}{form.suffix}": splats}
    else:
        parts = {
            f"{name}/{index:05}{form.suffix}": GaussianSequence(frames=(frame,), times=(time,))
            for index, (frame, time) in enumerate(zip(splats.frames, splats.times, strict=True))
        }
    for file, moments in parts.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_scene(folder / file, moments, placing, cameras, fps=fps)
    return list(parts)

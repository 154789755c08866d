"""What a clip of an SDG folder was made from, kept beside the folder: ``<root>.lyra/<clip>.json``.

Beside and not inside, because the reference takes every entry of the root for a view.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...cameras.path import CameraTrajectory
from ...versions import pack_version
from ...weights.load import fingerprint
from ..atomic import replacing
from ..reading import parse_json, read_text, reading

FORMAT = {"format": "lyra-sdg", "version": "1"}
FIRST = {"results": "1"}  # of the recipe of what was stored before results had a number (see ``versions``)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Inputs, models and settings of a clip, and a key for each of its paths."""

    recipe: dict[str, str]
    names: tuple[str, ...]  # of the paths
    keys: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Mapping[str, str], paths: Sequence[CameraTrajectory]) -> "Manifest":
        """The manifest of a clip made along paths by a recipe."""
        return cls(
            recipe=dict(recipe),
            names=tuple(path.name for path in paths),
            keys=tuple(path_key(recipe, path) for path in paths),
        )

    def write(self, file: Path) -> None:
        """Write the manifest as JSON, with the pack's version, which nothing depends on."""
        with replacing(file) as temporary:
            about = FORMAT | {"pack": pack_version()} | asdict(self)
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")

    def other_inputs(self, made: "Manifest") -> list[str]:
        """What of the recipes differs, by name."""
        one, two = FIRST | self.recipe, FIRST | made.recipe
        return [name for name in sorted(one.keys() | two.keys()) if one.get(name) != two.get(name)]

    @classmethod
    def read(cls, file: Path) -> "Manifest":
        """Read a manifest."""
        with reading(file):
            try:
                found = parse_json(read_text(file))
                if {name: found[name] for name in FORMAT} != FORMAT:
                    raise ValueError("another format or version")
                return cls(recipe=dict(found["recipe"]), names=tuple(found["names"]), keys=tuple(found["keys"]))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"not a manifest of generated paths ({error}); delete it and its clip") from error


def lyra_folder(root: Path, flipped: bool = False) -> Path:
    """The folder of ours that belongs to an SDG folder; its time-flipped paths have one of their own."""
    folder = Path(root).absolute()
    folder = folder.with_name(f"{folder.name}.lyra")
    return folder / "flipped" if flipped else folder


def path_key(recipe: Mapping[str, str], path: CameraTrajectory) -> str:
    """Names everything that a path's files depend on, 16 hexadecimal digits.

    A recipe of the first RESULTS has the key of one that names none: so were the keys before there was a number.
    """
    camera = [fingerprint({"c2w": path.c2w, "K": path.K}), path.height, path.width, path.fps]
    made = {name: value for name, value in recipe.items() if FIRST.get(name) != value}
    return hashlib.sha256(json.dumps([made, camera], sort_keys=True).encode()).hexdigest()[:16]

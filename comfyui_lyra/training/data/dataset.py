"""Generated scenes on disk as training samples: split by name, drawn by position, broken ones set aside.

A position is an epoch and a place in its order; the sample of a position depends on nothing else but the seed and
what is in quarantine, so a resumed run needs to remember the position only.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...files.atomic import replacing
from ...files.reading import parse_json, reading
from ..stages import Stage
from .members import find_members
from .samples import Sample, make_sample
from .sampling import draw
from .sdg_scene import BrokenScene, SdgScene
from .streams import Streams

log = logging.getLogger("lyra")

SHARES = {"train": 0.98, "validation": 0.01, "test": 0.01}
ATTEMPTS = 10  # scenes that are tried for one position
STRIKES = 3  # failures that put a scene in quarantine
WORST, ENOUGH = 0.05, 100  # share of failing draws that stops the run, once so many were made


def split_scenes(names: Sequence[str], manifest: Path | str, shares: Mapping[str, float] = SHARES) -> dict[str, list]:
    """Scene names of each split. A name's hash decides; the manifest keeps what was decided, and takes in new names."""
    manifest = Path(manifest)
    known = stored_object(manifest) or {split: [] for split in shares}
    placed = {name for scenes in known.values() for name in scenes}
    new = sorted(set(names) - placed)
    for name in new:
        known[hashed_split(name, shares)].append(name)
    if new:
        with replacing(manifest) as temporary:
            temporary.write_text(json.dumps(known, indent=1))
    there = set(names)
    return {split: [name for name in scenes if name in there] for split, scenes in known.items()}


def stored_object(path: Path) -> dict:
    """What an earlier run wrote down; nothing where there is none. ValueError names a file that is damaged."""
    if not path.is_file():
        return {}
    with reading(path):
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("expected a JSON object; delete it, it is made anew")
        return found


def hashed_split(name: str, shares: Mapping[str, float] = SHARES) -> str:
    """The split that a scene's name falls in."""
    position = number("split", name) / 2**32 * sum(shares.values())
    for split, share in shares.items():
        position -= share
        if position < 0:
            return split
    return split


def plain_name(scene: str) -> str:
    """The name of a scene without its folder."""
    return scene.rpartition("/")[2]


def number(*parts: str | int) -> int:
    """32 bits that depend on all parts and on nothing else."""
    text = "|".join(map(str, parts)).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")


class SdgDataset:
    """Samples of one stage out of folders and tars."""

    def __init__(
        self,
        roots: Sequence[Path | str],
        stage: Stage,
        *,
        state: Path | str,
        split: str = "train",
        paths: int = 6,
        seed: int = 0,
    ):
        """``state`` is a folder for the split manifest, the quarantine and the tars' tables of contents.

        ``paths`` is how many forward views a scene has.
        """
        self.stage, self.state, self.paths, self.seed = stage, Path(state), paths, seed
        self.views = range(2 * paths if stage.dynamic and stage.flipped else paths)
        self.members = find_members(roots, self.state)
        self.missing = {name: gaps for name in sorted(self.members) if (gaps := self._gaps(name))}
        whole = [name for name in self.members if name not in self.missing]
        self.splits = splits = split_scenes([plain_name(scene) for scene in whole], self.state / "splits.json")
        if split not in splits:
            raise ValueError(f"unknown split '{split}'; use one of {', '.join(splits)}")
        drawn = set(splits[split])  # by name: what two folders hold of one name falls into one split
        found = (scene for scene in whole if plain_name(scene) in drawn)
        self.scenes = sorted(found, key=lambda scene: (plain_name(scene), scene))  # in one order wherever folders lie
        if not self.scenes and whole:
            raise ValueError(
                f"none of the {len(whole)} scenes (such as {whole[0]}) falls into the split '{split}', which a scene's "
                "name decides; make more scenes, or one of another name"
            )
        if not self.scenes:
            raise ValueError(
                f"no scene of the split '{split}' is whole: {len(self.members)} found, {len(self.missing)} with files "
                f"missing (such as {next(iter(self.missing.items()), None)})"
            )
        log.info("%d scenes in split %s; %d lack files", len(self.scenes), split, len(self.missing))
        self.draws, self.failed, self._lengths = 0, 0, {}
        self.failures = self._read_quarantine()

    def __len__(self) -> int:
        """Positions an epoch."""
        return len(self.scenes)

    def sample(self, position: int, views: int | None = None) -> Sample:
        """The sample of a position 0, 1, ..., over all epochs, with as many ``views`` as it draws or as are told.

        A broken scene gives way to another that the position decides as well. RuntimeError when ten in a row fail, or
        one in twenty of all.
        """
        for attempt in range(ATTEMPTS):
            name = self._scene(position, attempt)
            if self.strikes(name) >= STRIKES:
                continue
            self.draws += 1
            try:
                return self._read(name, Streams(number(self.seed, position, attempt)), views)
            except BrokenScene as error:
                self._fail(error)
        raise RuntimeError(
            f"position {position}: {ATTEMPTS} scenes in a row are broken or in quarantine; see "
            f"{self.state / 'quarantine.json'}"
        )

    def strikes(self, scene: str) -> int:
        """How often a scene has failed."""
        return sum(self.failures.get(scene, {}).values())

    def _scene(self, position: int, attempt: int) -> str:
        """The scene of a position: each once an epoch, in an order of its own; others for later attempts."""
        epoch, place = divmod(position, len(self.scenes))
        if attempt:
            return self.scenes[number(self.seed, epoch, place, attempt) % len(self.scenes)]
        order = np.random.RandomState(number(self.seed, "order", epoch)).permutation(len(self.scenes))
        return self.scenes[order[place]]

    def _read(self, name: str, streams: Streams, views: int | None = None) -> Sample:
        """A sample of one scene."""
        scene = SdgScene(name, self.members[name], self.paths, self.views, self._lengths.get(name, 0))
        self._lengths[name] = scene.frames
        drawn = draw(self.stage, streams, scene.frames, self.paths, views)
        try:
            return make_sample(self.stage, scene, drawn)
        except BrokenScene:
            raise
        except ValueError as error:
            raise BrokenScene(name, "latent", str(error)) from error

    def _gaps(self, name: str) -> list[str]:
        """Files that a scene lacks; depth is optional, and latents too where a stage encodes pictures."""
        wanted = [(view, kind) for view in self.views for kind in ("rgb", "pose", "intrinsics")]
        if not self.stage.encodes_frames:
            wanted += [(view, "latent") for view in range(self.paths)]
        return [f"{view}/{kind}" for view, kind in wanted if (view, kind) not in self.members[name]]

    def _fail(self, error: BrokenScene) -> None:
        """Count a failure by file, and stop the run when there are too many."""
        self.failed += 1
        self.failures.setdefault(error.scene, Counter())[error.file] += 1
        log.warning("%s (failure %d of this scene)", error, self.strikes(error.scene))
        with replacing(self.state / "quarantine.json") as temporary:
            others = self._read_quarantine()  # of other workers: the higher count is the later one
            for scene, files in others.items():
                self.failures[scene] = files | self.failures.get(scene, Counter())
            temporary.write_text(json.dumps(self.failures, indent=1))
        if self.draws >= ENOUGH and self.failed > WORST * self.draws:
            raise RuntimeError(
                f"{self.failed} of {self.draws} draws failed, the last with: {error}; repair or remove the scenes in "
                f"{self.state / 'quarantine.json'}, then delete it"
            )

    def _read_quarantine(self) -> dict[str, Counter]:
        """Failures by scene and file, of this run and earlier ones."""
        path = self.state / "quarantine.json"
        stored = stored_object(path)
        return {scene: Counter(files) for scene, files in stored.items()}

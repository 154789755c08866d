"""Generated scenes written in the layout that training reads (training.md 9.1): path stores and depth archives.

A scene is made in a folder of its own and moved to its place when it is whole, file by file, so that no reader meets
half of a file, and makers on many machines need not know of each other.
"""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cameras.moves import SIX_PATHS
from ...cameras.path import CameraTrajectory
from ...files.places import Place
from ...files.scenes.sdg_manifest import Manifest, lyra_folder
from ...files.scenes.sdg_writer import SUFFIXES, Kind, PathStore, place
from ...gen3c.generate import GenerateSettings, describe
from ...gen3c.load import Teacher
from ...gen3c.sampler import initial_noise
from ...gen3c.text import zero_text
from ...latents import MultiViewLatents, VideoLatents
from ...tokenizer.model import CosmosTokenizer
from .samples import Clip
from .sdg_memory import SDG_SETTINGS, Source, draw_sources, film_paths

log = logging.getLogger("lyra")

KINDS: tuple[Kind, ...] = ("pose", "intrinsics", "latent", "rgb", "depth")  # of a path's files, in the order of writing
PATHS = len(SIX_PATHS)


def write_sdg(
    root: Path | str,
    teacher: Teacher,
    tokenizer: CosmosTokenizer,
    seeds: Sequence[int],
    *,
    moving: bool = False,
    lengths: str | None = None,
    settings: GenerateSettings = SDG_SETTINGS,
) -> None:
    """Generate the scenes of some seeds, one after another, into ``root``; see SceneMaker."""
    maker = SceneMaker(
        root=Place.of(root), teacher=teacher, tokenizer=tokenizer, moving=moving, lengths=lengths, settings=settings
    )
    for number, seed in enumerate(seeds, start=1):
        maker(seed)
        log.info("scene %s, %d of %d", seed, number, len(seeds))


@dataclass(frozen=True, eq=False, kw_only=True)
class SceneMaker:
    """Makes the scene of a seed, and of moving ones the flipped twins, in a folder or at a URL.

    What is there already, made from the same things, is kept.
    """

    root: Place
    teacher: Teacher
    tokenizer: CosmosTokenizer
    moving: bool = False
    lengths: str | None = None  # of the paths; None: they take turns with the seeds
    settings: GenerateSettings = SDG_SETTINGS

    def __call__(self, seed: int) -> None:
        """Make what is missing of a scene. ValueError where files of it were made from other things."""
        parts = list(self.parts(seed))
        for part in parts:  # both are looked at before either is made
            if wrong := part.obstacle(self.root):
                raise ValueError(wrong)
        for part in parts:
            if not part.is_whole(self.root):
                self.make(part)

    def make(self, part: "Part") -> None:
        """Make one part; if another maker was first, it has taken this one's folder away, and all is well."""
        try:
            with self.root.staging(part.name) as folder:
                part.make(folder / "scene", self.generated)
                part.publish(folder / "scene", self.root)
        except Exception:
            if not part.is_whole(self.root):
                raise

    def generated(self, source: Source) -> Iterator[Clip]:
        """What the teacher makes of a source, path by path."""
        return film_paths(self.teacher, self.tokenizer, source, self.settings)

    def check(self, seed: int) -> None:
        """ValueError if what is there of a seed's scene was made from other things."""
        for part in self.parts(seed):
            if wrong := part.obstacle(self.root):
                raise ValueError(wrong)

    def parts(self, seed: int) -> "Iterator[Part]":
        """The scene and, if it moves, the same played backwards."""
        config = self.teacher.config
        (source,) = draw_sources(
            [seed], moving=self.moving, lengths=self.lengths, size=config.trained_size, frames=config.trained_frames,
            device=self.teacher.device,
        )  # fmt: skip
        noise = initial_noise((1, *config.latent_shape), source.seed)
        for flipped in (False, True)[: 1 + self.moving]:
            shown = source.flipped() if flipped else source
            recipe = describe(
                self.teacher, self.tokenizer, shown.geometry.to("cpu"), zero_text(config), noise, self.settings
            )
            yield Part(source=shown, flipped=flipped, recipe=recipe, family=config.family, latents=noise.numel())


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """A scene to be made along its paths, forward or flipped."""

    source: Source
    flipped: bool
    recipe: Mapping[str, str]
    family: str
    latents: int  # numbers a path

    @property
    def name(self) -> str:
        """Of the clip."""
        return self.source.name

    @property
    def paths(self) -> tuple[CameraTrajectory, ...]:
        """Along which it is made."""
        return self.source.paths

    @property
    def manifest(self) -> str:
        """Where its manifest lies, in the place beside the root."""
        return f"flipped/{self.name}.json" if self.flipped else f"{self.name}.json"

    def store(self, root: Path) -> PathStore:
        """Its paths below a folder."""
        return PathStore(root, self.name, flipped=self.flipped)

    def files(self) -> Iterator[str]:
        """Its files below the root, in the order in which they are written."""
        first = len(self.paths) if self.flipped else 0
        for view in range(first, first + len(self.paths)):
            yield from (place(Path(), view, kind, self.name).as_posix() for kind in KINDS)

    def obstacle(self, root: Place) -> str | None:
        """Why its files cannot lie below a root, if so: others of its name do, which were made from other things."""
        if root.path is not None:
            return self.store(root.path).obstacle(self.recipe, self.paths)
        stored, made = stored_manifest(root.beside / self.manifest), Manifest.of(self.recipe, self.paths)
        if stored is None or stored.keys == made.keys:
            return None
        other = " and ".join(stored.other_inputs(made)) or "camera paths"
        return f"{root} holds paths of '{self.name}' made with other {other}; choose another place"

    def is_whole(self, root: Place) -> bool:
        """Whether every file that training reads is there."""
        return all((root / file).is_file() for file in self.files())

    def make(self, root: Path, generate: Callable[[Source], Iterable[Clip]]) -> None:
        """Write all its files below a folder."""
        store = self.store(root)
        store.begin(self.recipe, self.paths, latents=self.latents)
        write_generated(store, self.source, generate(self.source), self.family, self.recipe)

    def publish(self, made: Path, root: Place) -> None:
        """Move those of its files that are missing below a root there, the manifest first."""
        (root.beside / self.manifest).put(lyra_folder(made) / self.manifest)
        for file in self.files():
            if not (root / file).is_file():
                (root / file).put(made / file)


def write_generated(
    store: PathStore, source: Source, clips: Iterable[Clip], family: str, recipe: Mapping[str, str]
) -> None:
    """Video, cameras, latents and depth of every path of a scene; those of flipped twins in the clip's own time.

    Video and depth of a path are packed, which takes a core seconds, while the next is filmed.
    """
    try:
        for index, (path, clip) in enumerate(zip(source.paths, clips, strict=True)):
            scene = MultiViewLatents(
                latents=VideoLatents(values=clip.latents[None].float().cpu()),
                cameras=(path,),
                family=family,
                dynamic=len(source.geometry.frames) > 1,
                provenance=dict(recipe),
            )
            store.save(index, scene, clip.frames.cpu, clip.depth.cpu, beside=True)
    except BaseException:
        with suppress(Exception):  # what came first is told, and nobody writes here any more
            store.finish()
        raise
    store.finish()


def stored_manifest(place: Place) -> Manifest | None:
    """The manifest at a place, if there is one."""
    if not place.is_file():
        return None
    if place.path is not None:
        return Manifest.read(place.path)
    with tempfile.TemporaryDirectory(prefix="lyra-") as folder:
        (copy := Path(folder, place.name)).write_bytes(place.read())
        return Manifest.read(copy)


def finished(root: Place, moving: bool = False) -> set[str]:
    """Names of the scenes of which every file is there, by one listing a folder of the layout."""
    found: set[str] | None = None
    views = range(2 * PATHS if moving else PATHS)
    for kind in reversed(KINDS):  # what is written last is listed first: of few scenes, few folders are
        folders = [root / f"{view}/{kind}" for view in reversed(views)]
        here = everywhere(folders, f".{SUFFIXES[kind]}")
        found = here if found is None else found & here
        if not found:
            break
    return found or set()


def everywhere(folders: Sequence[Place], ending: str) -> set[str]:
    """Names that all of some folders hold, and that have an ending, without it."""
    first = folders[0].names()
    marks = hashes(first)
    common = np.sort(marks)
    for folder in folders[1:]:
        if not len(common):
            return set()
        common = common[are_among(common, np.sort(hashes(folder.names())))]
    kept = (name for name, is_kept in zip(first, are_among(marks, common).tolist(), strict=True) if is_kept)
    return {name[: -len(ending)] for name in kept if name.endswith(ending)}


def hashes(names: Sequence[str]) -> np.ndarray:
    """Python's 64 bits of each name: millions are compared as numbers, which takes a third of what sets of text do."""
    return np.fromiter(map(hash, names), np.int64, len(names))


def are_among(numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of some numbers are among sorted others."""
    if not len(others):
        return np.zeros(len(numbers), dtype=bool)
    return others[np.searchsorted(others, numbers).clip(max=len(others) - 1)] == numbers

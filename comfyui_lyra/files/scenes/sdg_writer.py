"""Writing generated paths in the reference's layout (see ``sdg``), each as soon as it is finished.

    <root>/<view>/latent/<clip>.safetensors   latents and cameras as they were generated (see ``latents``)
    <root>/<view>/latent/<clip>.pkl           on request: the reference's form, the first chunk only, as there
    <root>/<view>/{pose,intrinsics}/<clip>.npz
    <root>/<view>/rgb/<clip>.mp4              on request
    <root>/<view>/depth/<clip>.zip            of training data
    <root>.lyra/<clip>.json                   what the clip was made from (see ``sdg_manifest``)
    <root>.lyra/<clip>.unfinished/            files being written; nothing else may lie in the root: it counts as a view

A file gets its name when it is complete, and latents come last but for the video: a path with latents is finished.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from ...callbacks import part
from ...cameras.path import CameraTrajectory
from ...latents import MultiViewLatents
from ..atomic import replacing
from ..cameras.npz import save_cameras_npz
from ..disk import check_disk
from ..finished import find_finished, key_of
from ..media.video import THREADS, save_video
from ..names import clean, fault, fit_name
from .depth_zip import save_depth_zip
from .latents import load_latents, save_latents
from .latents_pkl import save_latent_pkl
from .sdg_manifest import Manifest, lyra_folder

log = logging.getLogger("lyra")

Kind = Literal["pose", "intrinsics", "pkl", "latent", "rgb", "depth"]
SUFFIXES: dict[Kind, str] = {
    "pose": "npz", "intrinsics": "npz", "pkl": "pkl", "latent": "safetensors", "rgb": "mp4", "depth": "zip"
}  # fmt: skip

MP4_BYTES = 0.5  # a pixel, at most, at the quality of save_video
AT_ONCE = max(1, min(4, (os.cpu_count() or 1) // THREADS))  # paths that are packed at the same time
PKL_BYTES = 6  # a number: float32 as text, where half of all bytes take two


def clip_name(stem: str, prompt: str = "", index: int | None = None) -> str:
    """The reference's name of a clip, ``<stem>_<prompt>_<index>``, made fit for a file name anywhere."""
    parts = (stem, prompt, "" if index is None else str(index))
    return fit_name("_".join(clean(part) for part in parts if part), "clip")


class PathStore:
    """The paths of one clip below a folder; a stopped run goes on with those that are missing.

    ``search`` is a folder below which paths that were made from the same things are looked for, and taken over.
    ``writer`` tells processes apart that write paths of one clip at the same time; the first of them begins it.
    ``flipped`` is for training data: the paths over the clip played backwards (``gen3c.cache.flips``), in folders after
    the forward ones. Their videos and cameras are saved in the clip's own time; their latents cannot be turned round.
    """

    def __init__(
        self,
        root: Path | str,
        clip: str,
        *,
        rgb: bool = True,
        reference_format: bool = False,
        flipped: bool = False,
        search: Path | None = None,
        writer: int = 0,
    ):
        if wrong := fault(clip):
            raise ValueError(f"'{clip}' cannot be the name of a clip's files: {wrong}; use '{clip_name(clip)}'")
        self.root, self.clip = Path(root).absolute(), clip
        self.rgb, self.reference_format, self.flipped = rgb, reference_format, flipped
        self.search, self.writer = search, writer
        self._first = 0  # number of the first view
        self._encoder: ThreadPoolExecutor | None = None
        self._encoding: list[Future[None]] = []  # the paths that are being packed

    @property
    def _lyra(self) -> Path:
        return lyra_folder(self.root, self.flipped)

    @property
    def _staging(self) -> Path:
        return self._lyra / f"{self.clip}{f'.{self.writer}' if self.writer else ''}.unfinished"

    def begin(self, recipe: Mapping[str, str], paths: Sequence[CameraTrajectory], latents: int) -> None:
        """Claim the clip for the paths of one recipe; ``latents`` is how many numbers each path has.

        Raises ValueError if ``obstacle`` has something to say, or if the disk is too full for what is missing.
        """
        self._wait()  # of a run that broke off, where it is begun again
        if obstacle := self.obstacle(recipe, paths):
            raise ValueError(obstacle)
        pixels = len(paths[0]) * paths[0].height * paths[0].width
        size = 4 * latents + PKL_BYTES * latents * self.reference_format + int(MP4_BYTES * pixels) * self.rgb
        check_disk(self.root, size * sum(not self.file(i, "latent").is_file() for i in range(len(paths))))
        shutil.rmtree(self._staging, ignore_errors=True)
        manifest = Manifest.of(recipe, paths)
        manifest.write(self._lyra / f"{self.clip}.json")
        if self.search and not self.flipped:
            self._take_over(manifest.keys)

    def obstacle(self, recipe: Mapping[str, str], paths: Sequence[CameraTrajectory]) -> str | None:
        """Why the folder cannot take these paths, if so.

        The clip was made from something else, its forward paths are gone and their flipped twins are not, or the other
        clips of the folder have another number of paths.
        """
        self._first = len(paths) if self.flipped else 0
        return self._other_owner(Manifest.of(recipe, paths)) or self._other_count(len(paths))

    def load(self, index: int) -> MultiViewLatents | None:
        """A finished path as a scene of one view, or None."""
        file = self.file(index, "latent")
        return load_latents(file) if file.is_file() else None

    def save(
        self,
        index: int,
        scene: MultiViewLatents,
        frames: Callable[[], Tensor],
        depth: Callable[[], Tensor] | None = None,
        *,
        beside: bool = False,
    ) -> None:
        """Write what is missing of a path: a scene of one view; if wanted, its frames [F, H, W, 3], depth [F, H, W].

        With ``beside`` these two are packed while the caller goes on, of some paths at a time; a later save, or
        ``finish``, waits for them and raises what went wrong.
        """
        path = scene.cameras[0]
        if self.flipped:
            scene = replace(scene, provenance=scene.provenance | {"flipped": "yes"})
            path = path.backwards()
        self._write(index, ("pose", "intrinsics"), lambda pose, lens: save_cameras_npz(pose, lens, path))
        if self.reference_format:
            self._write(index, ("pkl",), lambda file: save_latent_pkl(file, scene.chunk(0).latents.values[0]))
        self._write(index, ("latent",), lambda file: save_latents(file, scene))
        packing = []
        if self.rgb and not self.file(index, "rgb").is_file():
            seen = frames().flip(0) if self.flipped else frames()
            packing.append(partial(self._write, index, ("rgb",), lambda file: save_video(file, seen, path.fps)))
        if depth and not self.file(index, "depth").is_file():
            far = depth().flip(0) if self.flipped else depth()
            packing.append(partial(self._write, index, ("depth",), lambda file: save_depth_zip(file, far)))
        if packing:
            self._wait(AT_ONCE - 1)
            if beside:
                self._encoder = self._encoder or ThreadPoolExecutor(AT_ONCE)
                self._encoding.append(self._encoder.submit(do_all, packing))
            else:
                do_all(packing)
        if not self._encoding:
            shutil.rmtree(self._staging, ignore_errors=True)

    def finish(self) -> None:
        """Wait until all videos and depth are written, and end what writes them, also where one fails."""
        try:
            self._wait()
        finally:
            if self._encoder:
                self._encoder.shutdown()
                self._encoder = None
            shutil.rmtree(self._staging, ignore_errors=True)

    def _wait(self, most: int = 0) -> None:
        """Let paths be packed until at most so many are under way, or raise why one is not, once none is."""
        if len(self._encoding) > most:
            with part("wait for a video"):
                try:
                    while len(self._encoding) > most:
                        self._encoding[0].result()
                        self._encoding.pop(0)  # not before: Ctrl-C leaves none that nobody waits for
                except BaseException:
                    wait(self._encoding)
                    self._encoding.clear()
                    raise

    def file(self, index: int, kind: Kind) -> Path:
        """Where a file of a path lies."""
        return place(self.root, self._first + index, kind, self.clip)

    def _write(self, index: int, kinds: Sequence[Kind], write: Callable[..., None]) -> None:
        """Let ``write`` make the files beside the root and move them to their places, unless they are there."""
        targets = [self.file(index, kind) for kind in kinds]
        if all(target.is_file() for target in targets):
            return
        staged = [self._staging / f"{index}.{kind}{t.suffix}" for kind, t in zip(kinds, targets, strict=True)]
        write(*staged)
        for file, target in zip(staged, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)

    def _other_owner(self, manifest: Manifest) -> str | None:
        """What is wrong unless the clip's files, if there are any, were made from the same things."""
        file = self._lyra / f"{self.clip}.json"
        stored = Manifest.read(file) if file.is_file() else None
        views = max(len(made.keys) for made in (manifest, stored) if made)
        there = self._first_file(self.clip, range(self._first, self._first + views))
        if there is None:  # of files that were deleted, or never finished, nothing is asked
            return None if self.flipped else self._twins(views)
        if stored is None and not (self.search and self._holds(self.clip, manifest.keys)):
            return (
                f"{there} is there and nothing says what it was made from; choose another name than '{self.clip}', "
                "or another folder"
            )
        if stored and stored.keys != manifest.keys:
            other = stored.other_inputs(manifest)
            return (
                f"{self.root} holds paths of '{self.clip}' made with other {' and '.join(other) or 'camera paths'}; "
                f"choose another name (such as '{self.clip}_2') or folder, or go back to what they were made with"
            )
        return None

    def _holds(self, clip: str, keys: Sequence[str]) -> bool:
        """Whether the latents of a clip say of themselves that they are those of the keys, all that there are."""
        files = [place(self.root, self._first + i, "latent", clip) for i in range(len(keys))]
        there = [(file, key) for file, key in zip(files, keys, strict=True) if file.is_file()]
        return bool(there) and all(key_of(file) == key for file, key in there)

    def _take_over(self, keys: Sequence[str]) -> None:
        """Copy finished paths, and their videos if wanted, from where they lie."""
        missing = [i for i in range(len(keys)) if not self.file(i, "latent").is_file()]
        found = find_finished(self.search, {keys[i] for i in missing}) if missing and self.search else {}
        for index in missing:
            if source := found.get(keys[index]):
                log.info("path %d is taken over from %s", index + 1, source)
                self._write(index, ("latent",), partial(copy, source))
                video = source.parents[1] / "rgb" / f"{source.stem}.mp4"
                if self.rgb and video.is_file():
                    self._write(index, ("rgb",), partial(copy, video))

    def _twins(self, paths: int) -> str | None:
        """What is wrong if the clip, of which no forward path is there, has flipped ones."""
        file = lyra_folder(self.root, flipped=True) / f"{self.clip}.json"
        paths = len(Manifest.read(file).keys) if file.is_file() else paths
        there = self._first_file(self.clip, range(paths, 2 * paths))
        return there and (
            f"{there} is a time-flipped path of '{self.clip}', whose forward paths are gone; delete its files in the "
            f"folders {paths} to {2 * paths - 1} too, or choose another name or folder"
        )

    def _other_count(self, paths: int) -> str | None:
        """What is wrong if other clips have another number of paths: the reference wants each clip in all.

        All clips of a folder agree, so the first that can be read speaks for them.
        """
        for file in manifests(lyra_folder(self.root)):
            if file.stem == self.clip and not self.flipped:
                continue
            count = count_of(file)
            if count and self._first_file(file.stem, range(2 * count)):
                if count == paths:
                    return None
                return f"{self.root} holds clips of {count} camera paths, this one has {paths}; choose another folder"
        return None

    def _first_file(self, clip: str, views: range) -> Path | None:
        """A file of a clip that is there."""
        files = (place(self.root, view, kind, clip) for view in views for kind in SUFFIXES)
        return next((file for file in files if file.is_file()), None)


class NumberedStore(PathStore):
    """A clip in a folder of its own, both of one name; begun in the first of name, name_2, ... that it fits.

    In a folder that a person has renamed the clip keeps its name.
    """

    def __init__(self, root: Path | str, *, rgb: bool = True, search: Path | None = None):
        super().__init__(root, Path(root).name, rgb=rgb, search=search)

    def begin(self, recipe: Mapping[str, str], paths: Sequence[CameraTrajectory], latents: int) -> None:
        """Find the name, then see ``PathStore.begin``."""
        wanted, number = self.root, 1
        while self.obstacle(recipe, paths):
            number += 1
            self.root = wanted.with_name(f"{wanted.name}_{number}")
        super().begin(recipe, paths, latents)

    def obstacle(self, recipe: Mapping[str, str], paths: Sequence[CameraTrajectory]) -> str | None:
        """Why the folder cannot take these paths, if so: see ``PathStore``; or it holds a clip of another name."""
        keys = Manifest.of(recipe, paths).keys
        others = sorted({file.stem for file in self.root.glob("*/latent/*.*")} - {self.root.name})
        self.clip = next((name for name in others if self._holds(name, keys)), self.root.name)
        if others and self.clip == self.root.name:
            return f"{self.root} holds '{others[0]}'; choose another name or folder"
        return super().obstacle(recipe, paths)


def do_all(works: Sequence[Callable[[], None]]) -> None:
    """One after another."""
    for work in works:
        work()


def copy(source: Path, target: Path) -> None:
    """The same file at another place."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def manifests(folder: Path) -> Iterator[Path]:
    """The manifests of a folder, one by one: it may hold a hundred thousand."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.name.endswith(".json"))


def count_of(manifest: Path) -> int:
    """How many paths a clip has; 0 with a warning where its manifest cannot be read, which is no other clip's fault."""
    try:
        return len(Manifest.read(manifest).keys)
    except (ValueError, FileNotFoundError) as error:
        log.warning("%s", error)
        return 0


def place(root: Path, view: int, kind: Kind, clip: str) -> Path:
    """Where a file of a clip's view lies."""
    return root / str(view) / ("latent" if kind == "pkl" else kind) / f"{clip}.{SUFFIXES[kind]}"

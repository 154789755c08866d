"""Where the files of the training data lie: in folders, or inside tar files that are read without unpacking.

``<folder>/<view>/<kind>/<name>.<suffix>``, views 0..5 and, time-flipped, 6..11 (training.md 9.1). A scene is a
``<folder>/<name>``, so that equal names in two folders are two scenes. A tar's members count as lying where it would be
unpacked, in its own folder: the views of one scene may come in several tars. A compressed one is made plain once,
beside its table of contents, since one member of it cannot be read without all that come before.
"""

import bz2
import gzip
import json
import logging
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...files.atomic import replacing, writing
from ...files.disk import check_disk
from ...files.places import Place
from ...files.reading import parse_json, reading
from .remote import RemoteMember, contents, copied, folder_at, is_compressed, list_files

log = logging.getLogger("lyra")

SUFFIXES = {"rgb": "mp4", "pose": "npz", "intrinsics": "npz", "latent": "safetensors|pkl", "depth": "zip"}
PLACE = re.compile(r"(?:^|/)(\d+)/(" + "|".join(SUFFIXES) + r")/([^/]+)\.(\w+)$")
TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst))?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}  # by a file's first bytes
ZSTANDARD = b"\x28\xb5\x2f\xfd"
Key = tuple[int, str]  # view, kind


@dataclass(frozen=True)
class Member:
    """One file, or a stretch of a tar file."""

    file: Path
    name: str  # what to call it in messages
    size: int
    offset: int | None = None  # in the tar file
    home: Path | Place | None = None  # of a tar file: the folder where it would be unpacked

    @property
    def folder(self) -> str:
        """The ``<folder>`` that it lies in."""
        if isinstance(self.home, Place):
            return folder_at(self.home, self.name)
        path = self.file if self.home is None else self.home / self.name.lstrip("/")
        return Path(os.path.abspath(path)).parents[2].as_posix()

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """A path to read it from: of a tar's member, or of a file whose name is no text, a copy that is gone after."""
        is_text = not re.search(r"[\udc80-\udcff]", str(self.file))
        if self.offset is None and is_text:
            yield self.file
            return
        with tempfile.TemporaryDirectory(prefix="lyra-") as folder:
            copy = Path(folder) / f"member{Path(self.name).suffix}"
            with writing(copy), self.file.open("rb") as tar, copy.open("wb") as target:
                tar.seek(self.offset or 0)
                left = self.size
                while left and (block := tar.read(min(left, 1 << 20))):
                    target.write(block)
                    left -= len(block)
            if left:
                raise ValueError(f"{self.file}: ends {left} bytes before its member {self.name} does")
            yield copy


def find_members(
    roots: Sequence[Path | str], cache: Path | str | None = None
) -> dict[str, dict[Key, Member | RemoteMember]]:
    """Every file of the layout, by scene (``<folder>/<name>``), then by view and kind.

    A root is a folder, a folder of tars, a tar, or a URL of any of them. ``cache`` is a folder that keeps the tables of
    contents of tars, whose headers take long to visit.
    """
    found: dict[str, dict[Key, Member | RemoteMember]] = {}
    for root in roots:
        for member in list_root(root, cache):
            place = PLACE.search("/" + member.name)
            if place and re.fullmatch(SUFFIXES[place[2]], place[4]):
                of_scene = found.setdefault(f"{member.folder}/{place[3]}", {})
                key = int(place[1]), place[2]
                # of latents in both forms ours says more of itself
                if key not in of_scene or place[4] == "safetensors":
                    of_scene[key] = member
    if not found:
        listed = ", ".join(map(str, roots))
        raise FileNotFoundError(f"{listed}: holds no files <view>/<kind>/<scene>, with kinds {', '.join(SUFFIXES)}")
    return found


def list_root(root: Path | str, cache: Path | str | None) -> Iterable[Member | RemoteMember]:
    """All files of one root."""
    place = Place.of(root)
    if place.path is None:
        return list_url(place, cache)
    root = Path(place.path if str(root).lower().startswith("file:") else root)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder or tar file of training data")
    return list_tar(root, cache) if root.is_file() else list_folder(root, cache)


def list_url(root: Place, cache: Path | str | None) -> Iterator[Member | RemoteMember]:
    """The files below a URL, and the members of tars there."""
    for place, name, size in list_files(root):
        if not TAR.search(name):
            yield RemoteMember(place, name, size)
        elif is_compressed(place):
            yield from (replace(member, home=place.parent) for member in list_tar(copied(place, size, cache), cache))
        else:
            yield from contents(place, size, cache)


def list_folder(root: Path, cache: Path | str | None) -> Iterator[Member]:
    """The files below a folder, and the members of tars in it."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if TAR.search(name):
                yield from list_tar(path, cache)
            else:
                yield Member(path, path.relative_to(root).as_posix(), path.stat().st_size)


def list_tar(path: Path, cache: Path | str | None) -> list[Member]:
    """The regular members of a tar file."""
    about = path.stat()
    stored = None if cache is None else Path(cache) / f"{path.name}.{about.st_size}.{about.st_mtime_ns}.json"
    plain = plain_tar(path, stored)
    if stored is not None and stored.is_file():
        with reading(stored):
            rows = [(str(name), int(size), int(start)) for name, size, start in parse_json(stored.read_bytes())]
    else:
        try:
            with tarfile.open(plain, "r:", errors="surrogateescape") as tar:
                rows = [(m.name, m.size, m.offset_data) for m in tar if m.isreg()]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ValueError(f"{path}: not a tar file, or a damaged one: {error}") from error
        if stored is not None:
            with replacing(stored) as temporary:
                temporary.write_text(json.dumps(rows))
    return [Member(plain, name, size, offset, path.parent) for name, size, offset in rows]


def plain_tar(path: Path, stored: Path | None) -> Path:
    """The tar file itself, or what a compressed one holds, in a file beside its table of contents ``stored``."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(ZSTANDARD):
        raise ValueError(f"{path}: compressed with Zstandard, which is not read here; unpack it (tar --zstd -xf) first")
    opener = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), None)
    if opener is None:
        return path
    if stored is None:
        raise ValueError(f"{path}: a compressed tar file; unpack it (tar -xf) first")
    plain = stored.with_suffix(".plain")
    if not plain.is_file():
        check_disk(plain.parent.absolute(), path.stat().st_size)  # at least: pictures hardly shrink
        log.info("%s: decompressed once, to %s", path, plain)
        try:
            with opener(path, "rb") as packed, replacing(plain) as temporary, temporary.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 22)
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno:  # the disk's, not the archive's
                raise
            raise ValueError(f"{path}: damaged, or cut short: {error}") from error
    return plain

"""Training data at URLs of fsspec: files, and stretches of tar files that are read there without unpacking.

A file is copied for as long as it is looked at. A compressed tar is copied whole, once, into the folder that keeps the
tables of contents.
"""

import hashlib
import json
import logging
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...files.atomic import replacing, writing
from ...files.disk import check_disk
from ...files.places import Place
from ...files.reading import parse_json, reading

log = logging.getLogger("lyra")

BLOCK = 1 << 20  # bytes that are asked for at a time to visit the headers of a tar
MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # of compressed files


@dataclass(frozen=True)
class RemoteMember:
    """One file at a URL, or a stretch of a tar file there."""

    place: Place
    name: str  # what to call it in messages: of a tar's member, where it would be unpacked
    size: int
    offset: int | None = None  # in the tar file

    @property
    def folder(self) -> str:
        """The ``<folder>`` that it lies in."""
        if self.offset is not None:
            return folder_at(self.place.parent, self.name)
        return self.place.parent.parent.parent.url

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """A path to read it from: a copy that is gone after."""
        files, path = self.place.remote()
        start = self.offset or 0
        data = files.cat_file(path, start=start, end=start + self.size)
        if len(data) != self.size:
            raise ValueError(f"{self.place}: ends {self.size - len(data)} bytes before its member {self.name} does")
        with tempfile.TemporaryDirectory(prefix="lyra-") as folder:
            copy = Path(folder) / f"member{Path(self.name).suffix}"
            with writing(copy):
                copy.write_bytes(data)
            yield copy


def folder_at(home: Place, name: str) -> str:
    """The ``<folder>`` of a tar's member, if the tar is unpacked at ``home``."""
    return f"{home}/{name.removeprefix('./').lstrip('/')}".rsplit("/", 3)[0]


def list_files(root: Place) -> list[tuple[Place, str, int]]:
    """Every file below a URL, or the one that it is: its place, its name below the root, and its size."""
    files, path = root.remote()
    files.invalidate_cache()
    if files.isfile(path):
        return [(Place(files.unstrip_protocol(path)), root.name, int(files.size(path) or 0))]
    found = files.find(path, detail=True)
    return [
        (Place(files.unstrip_protocol(name)), name[len(path) :].lstrip("/"), int(about["size"] or 0))
        for name, about in sorted(found.items())
    ]


def is_compressed(tar: Place) -> bool:
    """Whether a tar file at a URL has to be read from its start."""
    files, path = tar.remote()
    return files.cat_file(path, start=0, end=8).startswith(MAGIC)


def contents(tar: Place, size: int, cache: Path | str | None) -> list[RemoteMember]:
    """The regular members of a plain tar file at a URL; ``cache`` keeps the table."""
    stored = None if cache is None else Path(cache) / f"{kept_name(tar, size)}.json"
    if stored is not None and stored.is_file():
        with reading(stored):
            rows = [(str(name), int(length), int(start)) for name, length, start in parse_json(stored.read_bytes())]
    else:
        rows = headers(tar)
        if stored is not None:
            with replacing(stored) as temporary:
                temporary.write_text(json.dumps(rows))
    return [RemoteMember(tar, name, length, offset) for name, length, offset in rows]


def headers(tar: Place) -> list[tuple[str, int, int]]:
    """Names, sizes and offsets of a plain tar file's members."""
    files, path = tar.remote()
    try:
        with files.open(path, "rb", block_size=BLOCK) as file, tarfile.open(fileobj=file, mode="r:") as opened:
            return [(member.name, member.size, member.offset_data) for member in opened if member.isreg()]
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{tar}: not a tar file, or a damaged one: {error}") from error


def copied(tar: Place, size: int, cache: Path | str | None) -> Path:
    """A copy of a compressed tar file, made once."""
    if cache is None:
        raise ValueError(f"{tar}: a compressed tar file; unpack it (tar -xf) first")
    copy = Path(cache) / f"{kept_name(tar, size)}{''.join(Path(tar.name).suffixes[-2:])}"
    if not copy.is_file():
        check_disk(copy.parent.absolute(), size)
        log.info("%s: copied once, to %s", tar, copy)
        files, path = tar.remote()
        with replacing(copy) as temporary:
            files.get_file(path, str(temporary))
    return copy


def kept_name(tar: Place, size: int) -> str:
    """How what is kept of a tar is called: by where it lies and how large it is."""
    return f"{Path(tar.name).name.partition('.')[0]}.{size}.{hashlib.sha256(tar.url.encode()).hexdigest()[:12]}"

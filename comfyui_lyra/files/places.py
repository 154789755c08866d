"""A folder, or what a URL of fsspec names (s3://, gs://, memory://): all that large runs ask of where results lie.

What ``put`` gives a place is there whole or not at all: a rename on a disk, one upload elsewhere. Listings are never
older than the question.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from .atomic import replacing, writing

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

URL = re.compile(r"^[a-z][a-z0-9+.-]+://", re.I)  # one letter is a drive of Windows
LYRA = ".lyra"  # of the folder beside a folder: what is ours and no result
EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}  # packages of kinds of URLs


@dataclass(frozen=True)
class Place:
    """A folder or a file; ``url`` is absolute, a path or a URL."""

    url: str

    @classmethod
    def of(cls, where: "Place | Path | str") -> "Place":
        """The place of a path or a URL; file:// is a path."""
        if isinstance(where, Place):
            return where
        text = str(where)
        if text.lower().startswith("file://"):
            text = unquote(urlsplit(text).path)
        return cls(text.rstrip("/") if URL.match(text) else Path(text).absolute().as_posix())

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """Its last part."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> "Place":
        """What it lies in."""
        return Place(self.url.rpartition("/")[0])

    @property
    def beside(self) -> "Place":
        """The place beside it that holds what is ours and no result."""
        return Place(self.url + LYRA)

    @property
    def path(self) -> Path | None:
        """Where it lies on this machine's disks, if it does."""
        return None if URL.match(self.url) else Path(self.url)

    def remote(self) -> "tuple[AbstractFileSystem, str]":
        """The file system of a URL, and the path there; ValueError names what is not installed."""
        from fsspec.core import url_to_fs  # deferred: most runs have no URL

        kind = self.url.partition("://")[0].lower()
        try:
            return url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            package = EXTRAS.get(kind)
            remedy = f"pip install {package}" if package else "use a folder, s3://, gs:// or what fsspec knows"
            raise ValueError(f"{self.url}: {kind}:// cannot be opened here ({error}); {remedy}") from error

    def names(self) -> list[str]:
        """Names of what lies directly in it, in no order; nothing where it is not there."""
        try:
            if (path := self.path) is not None:
                return os.listdir(path)
            files, path = self.remote()
            files.invalidate_cache(path)
            return [str(found).rstrip("/").rpartition("/")[2] for found in files.ls(path, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def is_file(self) -> bool:
        """Whether there is a file."""
        if (path := self.path) is not None:
            return path.is_file()
        files, path = self.remote()
        files.invalidate_cache(path.rpartition("/")[0])
        return files.isfile(path)

    def read(self) -> bytes:
        """What the file holds."""
        if (path := self.path) is not None:
            return path.read_bytes()
        files, path = self.remote()
        found = files.cat_file(path)
        return found.encode() if isinstance(found, str) else found

    def write(self, text: str) -> None:
        """Make it a file that holds a text."""
        if (path := self.path) is not None:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            return
        files, path = self.remote()
        files.pipe_file(path, text.encode())

    def put(self, file: Path) -> None:
        """Move a file here, in place of what is there."""
        if (path := self.path) is not None:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, path)
            return
        files, path = self.remote()
        files.put_file(str(file), path)
        file.unlink()

    def remove(self) -> None:
        """Delete the file, if it is there."""
        if (path := self.path) is not None:
            path.unlink(missing_ok=True)
        elif self.is_file():
            files, path = self.remote()
            files.rm_file(path)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A folder of one's own to make ``name`` in before it is ``put``: on a disk, on that disk.

        What killed makers of this name left goes with it at the end, and not before: another may be at work.
        """
        if (path := self.beside.path) is None:
            with tempfile.TemporaryDirectory(prefix="lyra-") as folder:
                yield Path(folder)
            return
        home = path / "unfinished" / name
        own = home / token_hex(4)
        with writing(path):
            own.mkdir(parents=True)
        try:
            yield own
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            raise
        shutil.rmtree(home, ignore_errors=True)

"""What is remembered between starts: small JSON records in one folder that may be deleted at any time.

The folder is LYRA_CACHE if that is set, else the one ``use_folder`` was told (ComfyUI's user directory), else the
platform's own for caches. Where it cannot be written, nothing is remembered and nothing fails.
"""

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

log = logging.getLogger("lyra")

MOST = 2000  # records of a kind that are kept; beyond it the oldest go
_told: list[Path] = []  # by ``use_folder``, the last one counts


def use_folder(folder: Path) -> None:
    """Remember things below ``folder``, unless LYRA_CACHE names another."""
    _told[:] = [Path(folder)]


def cache_folder() -> Path:
    """Where things are remembered; it need not exist."""
    if named := os.environ.get("LYRA_CACHE"):
        return Path(named)
    return _told[0] if _told else platform_folder()


def platform_folder() -> Path:
    """The platform's folder for caches, and ``lyra`` in it."""
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "lyra")


@contextmanager
def in_turn(name: str) -> Iterator[None]:
    """What only one process does at a time; the others wait. Where no file can be written nobody waits."""
    lock = FileLock(cache_folder() / f"{name}.lock")
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        log.debug("nobody waits for %s: %s", name, error)
    try:
        yield
    finally:
        lock.release()


def recall(kind: str, key: str) -> dict | None:
    """The record of ``key`` among those of a ``kind``, or None."""
    try:
        record = json.loads(_file(kind, key).read_bytes())
        return record["value"] if record["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # never written, or damaged: as if not there
        return None


def remember(kind: str, key: str, value: dict) -> bool:
    """Keep a record; False where the folder cannot be written."""
    file = _file(kind, key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump({"key": key, "value": value}, out)
                out.flush()
                os.fsync(out.fileno())  # a record must outlive a crash of the driver right after it
            os.replace(temporary, file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _bound(file.parent)
        return True
    except OSError as error:
        log.debug("nothing is remembered in %s: %s", file.parent, error)
        return False


def forget(kind: str, key: str) -> None:
    """Drop a record, if there is one."""
    try:
        _file(kind, key).unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s cannot be forgotten: %s", key, error)


def _file(kind: str, key: str) -> Path:
    return cache_folder() / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _bound(folder: Path) -> None:
    """Delete the oldest records above MOST."""
    found = [entry for entry in os.scandir(folder) if entry.is_file()]
    if len(found) > MOST:
        for entry in sorted(found, key=lambda entry: entry.stat().st_mtime_ns)[: len(found) - MOST]:
            Path(entry.path).unlink(missing_ok=True)

"""Writing a file or a folder so that nobody ever sees half of it, and a full disk is one sentence."""

import errno
import glob
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = re.compile(r"no space left|disk quota exceeded|not enough space on|\(os error (28|112|122)\)", re.I)
DAY = 86_400.0  # seconds after which a temporary is nobody's, where its owner cannot be asked for
LONGEST = 200  # bytes of a name in a temporary's; file systems take 255 in all
HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:4]  # this machine: folders may be shared by many
_own: set[Path] = set()  # temporaries that this process is writing


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary file beside ``path``; rename it to ``path`` on success, delete it on failure.

    Missing folders are made. The temporary name is hidden and ends in ``.tmp``, so no reader of the folder takes it
    for a result, and a writer must name its format rather than guess it from the suffix. What killed saves of this
    name left is deleted first. Raises ValueError for a place that cannot be written and for a full disk.
    """
    path = Path(path)
    with temporary_of(path) as temporary, writing(path):
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            path.parent.mkdir(parents=True, exist_ok=True)
            clear_left_behind(path)
            temporary.open("xb").close()
        except OSError as error:
            raise unwritable(path, error) from error
        yield temporary
        os.replace(temporary, path)


@contextmanager
def replacing_folder(folder: Path | str) -> Iterator[Path]:
    """The same for a folder that is not there yet: yield the name of one that the writer makes and fills."""
    folder = Path(folder)
    with temporary_of(folder) as temporary, writing(folder):
        clear_left_behind(folder)
        try:
            yield temporary
        except ValueError as error:  # of a file inside, which nobody will find there
            raise ValueError(str(error).replace(str(temporary), str(folder))) from error
        os.replace(temporary, folder)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Make ValueError of a full disk, whatever a writer makes of it: safetensors, zip and torch have their own ways."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        reason = os.strerror(errno.ENOSPC)
        raise ValueError(f"cannot write {path}: {reason}; free some space or choose another disk") from error


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, means that a disk is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if getattr(error, "errno", None) in FULL or FULL_WORDS.search(str(error)):
            return not isinstance(error, ValueError)  # one that says so already passes as it is
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def unwritable(path: Path, error: OSError) -> ValueError:
    """What to say of a place that cannot be written."""
    remedy = "free some space or choose another disk" if is_full(error) else "choose another folder or name"
    return ValueError(f"cannot write {path}: {error.strerror}; {remedy}")


@contextmanager
def temporary_of(path: Path) -> Iterator[Path]:
    """A name beside a path that nothing has, for this process alone; what has it at the end is deleted."""
    temporary = path.with_name(f".{short(path.name)}.{os.getpid()}-{HERE}{secrets.token_hex(4)}.tmp")
    _own.add(temporary)
    try:
        yield temporary
    finally:
        remove(temporary)
        _own.discard(temporary)


def short(name: str) -> str:
    """A name that leaves room for what a temporary's adds: its start and a hash stand for one that is too long."""
    if len(os.fsencode(name)) <= LONGEST:
        return name
    start = os.fsencode(name)[: LONGEST - 17].decode(errors="ignore")
    return f"{start}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"


def clear_left_behind(path: Path) -> None:
    """Delete temporaries of a path whose writers were killed."""
    for found in path.parent.glob(f".{glob.escape(short(path.name))}.*.tmp"):
        if is_left_behind(found):
            remove(found)


def is_left_behind(temporary: Path) -> bool:
    """Whether no process is writing a temporary any more."""
    owner = re.search(rf"\.(\d+)-{HERE}[0-9a-f]{{8}}\.tmp$", temporary.name)  # of other machines only the age is known
    if owner and int(owner[1]) == os.getpid():  # in a container a killed process had the same number
        return temporary not in _own
    if owner and os.name == "posix":
        return not is_running(int(owner[1]))
    try:
        return time.time() - temporary.stat().st_mtime > DAY
    except OSError:
        return False


def is_running(process: int) -> bool:
    """Whether there is a process of that number; for systems where signal 0 only asks."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def remove(temporary: Path) -> None:
    """Delete a temporary file or folder as far as it can be."""
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
        return
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # open elsewhere on Windows, or below something that is no folder
        return

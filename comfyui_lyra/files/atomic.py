"""Writing a file so that nobody ever sees half of it."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary file beside ``path``; rename it to ``path`` on success, delete it on failure.

    Missing folders are made. The temporary name is hidden and ends in ``.tmp``, so no reader of the folder takes it
    for a result, and a writer must name its format rather than guess it from the suffix. Raises ValueError for a place
    that cannot be written and for a full disk.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; choose another folder or name") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ValueError(f"cannot write {path}: {error.strerror}; free some space or choose another disk") from error
    finally:
        temporary.unlink(missing_ok=True)

"""Opening somebody's file: whatever is wrong with it, the message starts with its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(path: Path | str) -> Iterator[Path]:
    """Yield the path of a file that exists; a ValueError raised inside gets the file's name in front."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        yield path
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error

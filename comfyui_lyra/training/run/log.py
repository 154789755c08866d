"""What a run tells of itself: ``log.jsonl`` always, pictures beside it, and TensorBoard where it is installed."""

import errno
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...files.atomic import writing
from ...files.media.images import save_image
from ...files.reading import parse_json, reading

log = logging.getLogger("lyra")


class RunLog:
    """One folder of one run; a resumed run adds to it. Use in a with-block, or close it."""

    def __init__(self, folder: Path | str, tensorboard: bool = True):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "log.jsonl"
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("ab", buffering=0)  # nothing is kept back: a line is on the disk, or an error is raised
        self._file.write(b"\n" if torn else b"")  # a killed run's last line must not swallow ours
        self._board = open_board(self.folder) if tensorboard else None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """One line of numbers by name; those that are not finite become text, which JSON lacks."""
        self._line(step, {name: v if math.isfinite(v) else str(v) for name, v in values.items()})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def event(self, step: int, what: str, **about: str | int | float) -> None:
        """Something that happened once: resumed, saved, skipped, quarantined."""
        self._line(step, {"event": what, **about})

    def picture(self, step: int, name: str, picture: Tensor) -> Path:
        """A picture [H, W, 3] in [0, 1], ``<name>-<step>.png``."""
        path = self.folder / f"{name}-{step:08d}.png"
        save_image(path, picture)
        if self._board is not None:
            self._board.add_image(name, picture.numpy(), step, dataformats="HWC")
        return path

    def _line(self, step: int, values: Mapping[str, object]) -> None:
        """A line that is on the disk before the next step."""
        line = json.dumps({"time": round(time.time(), 3), "step": step, **values}).encode() + b"\n"
        with writing(self.folder / "log.jsonl"):
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_board(folder: Path):
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        log.info("TensorBoard is not installed (%s); log.jsonl holds the same numbers", error)
        return None
    return SummaryWriter(str(folder))


def read_log(path: Path | str) -> list[dict[str, object]]:
    """The lines of a log; one that a kill cut short is left out, and of a step done twice both are there."""
    lines = []
    with reading(path) as file:
        data = file.read_bytes()
    for line in filter(None, data.splitlines()):
        try:
            lines.append(parse_json(line))
        except ValueError:
            log.warning("%s: a line of %d bytes was cut short", path, len(line))
    return lines

"""Ending a run in good order: when its time is up, or when the system or a person asks for it."""

import logging
import signal
import threading
import time
from types import FrameType

log = logging.getLogger("lyra")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TimeBox:
    """A with-block that turns the first interruption into a question asked once a step.

    ``ends()`` names the reason to save and stop, or is None. A second interruption acts as if there were no box, and
    so does any before ``watch`` is called where the block does not watch from its start. Signals are watched in the
    main thread only, which is where they arrive.
    """

    def __init__(self, max_seconds: float | None = None, watches: bool = True):
        self.max_seconds, self.watches, self.caught = max_seconds, watches, None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "TimeBox":
        self.start = time.monotonic()
        if self.watches:
            self.watch()
        return self

    def watch(self) -> None:
        """Watch for interruptions from here on, until the first."""
        if not (self._before or self.caught) and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._catch) for number in SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _catch(self, number: int, _: FrameType | None) -> None:
        """Remember the signal, and let the next one through to whoever handled it before."""
        self.caught = signal.Signals(number).name
        log.info("%s: the run finishes its step, saves and ends; once more ends it at once", self.caught)
        self.__exit__()

    def ends(self) -> str | None:
        """Why the run should save and stop now."""
        if self.caught:
            return self.caught
        if self.max_seconds is not None and time.monotonic() - self.start >= self.max_seconds:
            return f"its {self.max_seconds:g} seconds are over"
        return None

"""One list of work for every way of doing it: what is left of it, what came of it, and how it is done right here."""

import logging
import traceback
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..callbacks import OnStep, no_progress
from ..files.places import Place

log = logging.getLogger("lyra")

IN_A_ROW = 10  # items that fail, with none done between, until the rest is not tried any more

Make = Callable[[str], None]  # an item by its name; raises where it cannot be made


class Job(Protocol):
    """What is to be made, told by plain values so that any machine can be told it."""

    def left(self) -> Sequence[str]:
        """Names of the items that are not there yet, in order."""
        ...

    def place(self) -> Place:
        """Where results lie."""
        ...

    def briefed(self) -> "Job":
        """The job as a worker is told it, without the list."""
        ...

    def maker(self, device: str) -> Make:
        """What makes an item there: the models, loaded once."""
        ...


@dataclass(kw_only=True)
class Outcome:
    """What came of a list of work."""

    made: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # by name: what was wrong
    retries: int = 0  # of items whose maker was gone, or which failed at first
    in_a_row: int = 0  # failures since something was made

    def take(self, name: str, problem: str | None) -> None:
        """Count an item."""
        if problem:
            self.failed[name] = problem
        else:
            self.made += 1
        self.in_a_row = self.in_a_row + 1 if problem else 0

    @property
    def is_hopeless(self) -> bool:
        """Whether so many failed in a row that the rest is not tried."""
        return self.in_a_row >= IN_A_ROW


def missing(names: Iterable[str], there: Container[str]) -> Iterator[str]:
    """The names that are not there yet."""
    return (name for name in names if name not in there)


def attempt(make: Make, name: str) -> str | None:
    """Make an item; what was wrong, if so, with where it happened."""
    try:
        make(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    return None


def first_line(problem: str | None) -> str:
    """A problem in one line."""
    return (problem or "").partition("\n")[0]


class Notes:
    """One text for each item that could not be made, beside the results; gone once it is made."""

    def __init__(self, place: Place):
        self.place = place.beside / "failed"
        self.there = set(self.place.names())

    def take(self, name: str, problem: str | None) -> None:
        """Write or delete the note of an item."""
        note = f"{name}.txt"
        if problem:
            log.warning("%s could not be made: %s; see %s", name, first_line(problem), self.place / note)
            (self.place / note).write(problem)
            self.there.add(note)
        elif note in self.there:
            (self.place / note).remove()


def make_here(job: Job, names: Sequence[str], device: str, on_step: OnStep = no_progress) -> Outcome:
    """Make items one after another in this process; one that fails is noted and left out.

    After IN_A_ROW failures one after another the rest is not tried.
    """
    outcome = Outcome()
    if not names:
        return outcome
    make, notes = job.briefed().maker(device), Notes(job.place())
    for number, name in enumerate(names, start=1):
        problem = attempt(make, name)
        notes.take(name, problem)
        outcome.take(name, problem)
        on_step(number, len(names))
        if outcome.is_hopeless:
            break
    return outcome

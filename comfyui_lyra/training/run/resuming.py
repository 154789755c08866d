"""What a run may be resumed with: all that decides its result must be as it was when the run began."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from .checkpoint import Json

MODELS = ("tokenizer", "teacher")  # in a run's config: what it learns from, or trains; too long to be shown
FREE = {  # what may differ: how far a run goes, what follows from that, and what is only looked at
    "steps", "begin", "training.steps", "training.pace", "training.validation", "training.sampling_steps",
    "optim.steps", "optim.begin", "recon.keep", "stages", "stops",
}  # fmt: skip
SINCE = {"results": 1}  # what a checkpoint means that does not say it
LONGEST = 40  # letters of a value that are shown


def check_same(stored: Json, now: Json, out: Path) -> None:
    """Raise ValueError, which says what differs, unless a run is resumed with what it began with.

    Names that only one of the configs has belong to another version of the program and are not compared. A run may go
    through more stages than it began with, if the first ones end where they did.
    """
    stored, now = (json.loads(json.dumps(SINCE | config)) for config in (stored, now))  # tuples become lists
    before, after = dict(flat(stored)), dict(flat(now))
    other = [
        described(name, value, after[name])
        for name, value in before.items()
        if name in after and name not in FREE and value != after[name]
    ]
    if not goes_through(stored, now):
        other.insert(0, "stages {} instead of {}".format(*map(stages_of, (stored, now))))
    if other:
        words = " and ".join(other)
        raise ValueError(f"{out} was begun with {words}; resume with the same, or train in another folder")


def check_goes_on(step: int, stop: int | None, out: Path) -> None:
    """Raise ValueError if a run is resumed that has more steps than it is to have."""
    if stop is not None and step > stop:
        raise ValueError(
            f"{out} has {step} steps already, and this run is to end at step {stop}; ask for {step} at least, or train "
            "in another folder"
        )


def goes_through(stored: Json, now: Json) -> bool:
    """Whether the stages are those that the run began with, or these and more behind them that change nothing."""
    before, after = (config.get("stages") for config in (stored, now))
    if before is None or after is None or before == after:
        return True
    count = len(before)
    return after[:count] == before and bool(stored.get("stops")) and (now.get("stops") or [])[:count] == stored["stops"]


def flat(config: Mapping, prefix: str = "") -> Iterator[tuple[str, Json]]:
    """Values by dotted names; a model is one value."""
    for name, value in config.items():
        if isinstance(value, dict) and prefix + name not in MODELS:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def described(name: str, before: Json, now: Json) -> str:
    """One difference, in words."""
    words, shown = name.removeprefix("training."), [listed(value) for value in (before, now)]
    if name in MODELS or max(map(len, shown)) > LONGEST:
        return f"another {words}"
    return f"{words} {shown[0]} instead of {shown[1]}"


def listed(value: Json) -> str:
    """A value as a person writes it."""
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def stages_of(config: Json) -> str:
    """The stages of a run, each with the step at which it ends if it is one."""
    stops = config.get("stops") or [None] * len(config["stages"])
    return ",".join(
        name if stop is None else f"{name}:{stop}" for name, stop in zip(config["stages"], stops, strict=True)
    )

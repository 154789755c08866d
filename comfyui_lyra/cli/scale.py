"""Verbs that may be spread over processes, cards and machines: sdg, batch."""

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..gen3c.modes import MODES, told
from ..gen3c.team import own_device
from ..scale.on_ray import make_on_ray
from ..scale.pictures import PicturesJob, write_page
from ..scale.scenes import ScenesJob
from ..scale.shards import Shard, shard_of
from ..scale.work import Job, Outcome, first_line, make_here
from ..training.data.sdg_memory import SDG_SETTINGS
from .fields import filled
from .models import depth_folder
from .options import progress

SAID = ("meaning", "unit", "near", "far", "fov", "refine", "steps", "guidance", "mode")  # options of pictures
SHOWN = 5  # failures that are listed at the end; all have notes


def run_sdg(options: argparse.Namespace) -> int:
    """Make scenes."""
    shard = shard_for(options)
    job = ScenesJob(
        out=str(options.out), seeds=shard.of(options.seeds), moving=options.moving, lengths=options.lengths,
        steps=options.steps or SDG_SETTINGS.steps,
        guidance=options.guidance or SDG_SETTINGS.guidance,  # 0, and not the 0.0 that recipes tell from it
        mode=options.mode,
        teacher=absolute(options.teacher), tokenizer=absolute(options.tokenizer),
    )  # fmt: skip
    if options.missing:
        return print_missing(",".join(stretches(map(int, job.left()))))
    return run(options, job, len(job.seeds), "moving scenes" if options.moving else "scenes")


def run_batch(options: argparse.Namespace) -> int:
    """Make splats of pictures, and the page that shows them."""
    shard = shard_for(options)
    job = filled(
        PicturesJob(
            folder=str(options.folder.absolute()), out=str(options.out), share=(shard.index, shard.count),
            formats=tuple(options.format),
            depth_model=str(depth_folder(options)) if options.depth == "auto" else None,
            teacher=absolute(options.teacher), tokenizer=absolute(options.tokenizer), recon=absolute(options.recon),
        ),
        argparse.Namespace(**{name: getattr(options, name) for name in SAID}),
    )  # fmt: skip
    if options.missing:
        return print_missing("\n".join(job.left()))
    status = run(options, job, len(job.found()), "pictures")
    shown = write_page(job.place())
    print(f"{shown} scenes: {job.place() / 'index.html'}")
    return status


def run(options: argparse.Namespace, job: ScenesJob | PicturesJob, total: int, what: str) -> int:
    """Make what is left of a job, and say what came of it."""
    left = job.left()
    if len(left) < total:
        print(f"{total - len(left)} of {total} {what} are there already", flush=True)
    if left and options.mode != MODES[0]:  # a worker whose card cannot do all of it says so
        print(told(job.settings), flush=True)
    if options.ray:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        outcome = make_on_ray(
            job, left, address=options.ray, workers=options.workers, gpus=options.gpus_per_worker,
            on_step=progress(what),
        )  # fmt: skip
    else:
        outcome = make_here(job, left, str(own_device(options.device)), progress(what))
    return report(outcome, job, what)


def report(outcome: Outcome, job: Job, what: str) -> int:
    """Say what came of a list of work; 1 if not all of it could be made."""
    print(f"{outcome.made} {what}: {job.place()}")
    for name, problem in list(outcome.failed.items())[:SHOWN]:
        print(f"{name} could not be made: {first_line(problem)}")
    if outcome.is_hopeless:
        print(f"{outcome.in_a_row} failed in a row, so the rest was not tried")
    if outcome.failed:
        notes = job.place().beside / "failed"
        print(f"{len(outcome.failed)} could not be made, see {notes}; the same command tries again")
    return 1 if outcome.failed else 0


def print_missing(text: str) -> int:
    """Print what is missing; 1 if anything is."""
    if text:
        print(text)
    return 1 if text else 0


def shard_for(options: argparse.Namespace) -> Shard:
    """The shard that is asked for, or that this process's starter asks for; all of a Ray cluster's driver."""
    if options.shard:
        return options.shard
    return Shard() if options.ray else shard_of(os.environ)


def absolute(file: Path | None) -> str | None:
    """A file's name that holds in any folder."""
    return None if file is None else str(file.absolute())


def stretches(numbers: Iterable[int]) -> Iterator[str]:
    """Numbers as --seeds takes them: those that follow each other as 3-9."""
    first = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            yield f"{first}-{last}" if last != first else f"{first}"
        first = last = number
    if first is not None:
        yield f"{first}-{last}" if last != first else f"{first}"

"""What the shell command takes to spread work over processes, cards and machines. What it does is in ``scale``."""

import argparse
from pathlib import Path

from ..files.media.depth_values import MEANINGS
from ..files.places import Place
from ..files.splats.formats import WRITTEN
from ..scale.pictures import PicturesJob
from ..scale.shards import Shard
from .fields import add_fields
from .verbs import add_device, add_guess, add_mode, add_unit


def add_spreading(verb: argparse.ArgumentParser, items: str) -> None:
    """Who makes which of the ``items``."""
    group = verb.add_argument_group("many cards and machines, see docs/scale.md")
    group.add_argument(
        "--shard", type=shard, metavar="I/N",
        help=f"make only every N-th of the {items}, from the I-th on, counted from 0; by default as SLURM's array, "
        "Kubernetes' indexed job (with JOB_COMPLETIONS) or torchrun says",
    )  # fmt: skip
    group.add_argument(
        "--missing", action="store_true", help=f"make nothing, print the {items} still to make; exit status 0 if none"
    )
    group.add_argument(
        "--ray", metavar="auto|ADDRESS", help="spread over a Ray cluster: auto starts one on this machine"
    )
    group.add_argument("--workers", type=positive, help="--ray: how many; by default one a GPU, or one a CPU core")
    group.add_argument(
        "--gpus-per-worker", type=float, help="--ray: 0.5 for two on a GPU, 0 to compute on the CPU; by default 1"
    )


def add_batch_verb(verbs: argparse._SubParsersAction) -> None:
    """A folder of pictures and clips to splats."""
    verb = verbs.add_parser("batch", help="every picture and clip of a folder to refined splats, and a page of them")
    verb.add_argument("folder", type=Path, help="of pictures, and of clips from a camera that stood still")
    verb.add_argument("out", type=Place.of, help="folder or URL for <name>.ply and index.html; whole ones are kept")
    verb.add_argument(
        "--depth", choices=["beside", "auto"], default="beside",
        help="beside: x.exr, x.npz, x_depth.png and the like; auto: guessed by Depth Anything where there is none",
    )  # fmt: skip
    add_guess(verb)
    verb.add_argument("--meaning", choices=MEANINGS, help="of depth files; by default by their kind")
    add_unit(verb)
    add_fields(verb, PicturesJob, "near", "far", "fov", "refine", "steps", "guidance")
    add_mode(verb)
    verb.add_argument(
        "--format", nargs="+", choices=tuple(WRITTEN), default=(),
        help="further forms, one or more; PLY is always there, and forms that are added later are made from it",
    )  # fmt: skip
    for model, what in (("teacher", "teacher"), ("tokenizer", "tokenizer"), ("recon", "splat decoder")):
        verb.add_argument(f"--{model}", type=Path, help=f"file of the {what}; by default the mini one")
    add_device(verb)
    add_spreading(verb, "pictures")
    verb.set_defaults(run="scale.run_batch")


def shard(text: str) -> Shard:
    """A shard as people write it."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """A number, 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}'; give a number, 1 or more")
    return int(text)

"""What the shell command takes to spread work over processes, cards and machines. What it does is in ``scale``."""

import argparse

from ..scale.shards import Shard


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

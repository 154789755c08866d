"""The ``lyra`` shell command: the nodes' work without ComfyUI. ``lyra VERB --help`` tells each verb's options."""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from ...kernels_glue.registry import KernelUnavailable
from ..training.run.checkpoint import steps
from ..versions import pack_version
from .options import close_bars
from .scale_verbs import add_batch_verb
from .training_verbs import add_training_verbs
from .verbs import add_scene_verbs, add_splat_verbs

STOPPED = 130  # what shells know as stopped by Ctrl-C
KEPT = {  # of verbs that go on where they were
    "generate": "finished paths are kept, and the same command goes on with the others",
    "sdg": "finished scenes are kept, and the same command goes on with the others",
    "batch": "finished scenes are kept, and the same command goes on with the others",
    "fetch": "what has come is kept, and the same command goes on",
    "train-mini": "parts that were finished are kept; name the others with --parts",
}


def parser() -> argparse.ArgumentParser:
    """Every verb and its options."""
    top = argparse.ArgumentParser(prog="lyra", description=__doc__)
    top.add_argument("--version", action="version", version=f"lyra {pack_version()}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_splat_verbs(verbs)
    add_scene_verbs(verbs)
    add_batch_verb(verbs)
    add_training_verbs(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 when done, 1 with a sentence on standard error if the input cannot be used, 130 if stopped."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    module, function = options.run.split(".")  # imported once it is needed: the networks take seconds
    try:
        status = getattr(import_module(f".{module}", __package__), function)(options)
    except (ValueError, OSError, KernelUnavailable) as error:
        close_bars()
        print(f"lyra {options.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        close_bars()
        print(f"lyra {options.verb}: stopped; {kept(options)}", file=sys.stderr)
        return STOPPED
    return status or 0


def kept(options: argparse.Namespace) -> str:
    """What is there of a verb that was stopped."""
    if options.verb in KEPT or not options.verb.startswith("train-"):
        return KEPT.get(options.verb, "files that were finished are whole")
    if done := steps(options.out):
        return f"step {done[-1]} is kept in {options.out}; the same command with --resume goes on from there"
    return "nothing was trained yet, and nothing is kept"

"""The ``lyra`` shell command: the nodes' work without ComfyUI. ``lyra VERB --help`` tells each verb's options."""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from ...kernels_glue.registry import KernelUnavailable
from .training_verbs import add_training_verbs
from .verbs import add_scene_verbs, add_splat_verbs


def parser() -> argparse.ArgumentParser:
    """Every verb and its options."""
    top = argparse.ArgumentParser(prog="lyra", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_splat_verbs(verbs)
    add_scene_verbs(verbs)
    add_training_verbs(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 when done, 1 with one sentence on standard error when the input cannot be used."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    module, function = options.run.split(".")  # imported once it is needed: the networks take seconds
    try:
        getattr(import_module(f".{module}", __package__), function)(options)
    except (ValueError, OSError, KernelUnavailable) as error:
        print(f"lyra {options.verb}: {error}", file=sys.stderr)
        return 1
    return 0

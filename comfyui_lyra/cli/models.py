"""The models that a verb's options name."""

import argparse
from pathlib import Path

from ...kernels_glue.memory import cache_folder
from ..pipeline import Estimate
from ..released.download import fetch
from ..sources.depth_anything import DepthAnything
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..weights.shipped import shipped_model
from .options import progress
from .verbs import AUTO, DTYPES


def tokenizer_of(options: argparse.Namespace) -> CosmosTokenizer:
    """The tokenizer, where and as it is used."""
    file = options.tokenizer or shipped_model("tokenizer")
    return load_tokenizer(file).to(options.device, DTYPES[options.dtype])


def depth_of(options: argparse.Namespace) -> Path | Estimate | None:
    """The depth that is named, or what guesses it."""
    if options.depth != AUTO:
        return options.depth
    return DepthAnything.load(depth_folder(options), options.device)


def depth_folder(options: argparse.Namespace) -> Path:
    """The folder of Depth Anything, which is fetched once its licence is accepted; ValueError shows it until then."""
    weights = options.weights or cache_folder() / "models"
    try:
        files = fetch("depth-anything", weights, options.accept_licence, progress("Depth Anything"))
    except ValueError as error:
        if options.accept_licence:
            raise
        raise ValueError(f"--depth auto needs {error}: --accept-licence") from error
    return files[0].parent

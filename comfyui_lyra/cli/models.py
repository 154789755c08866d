"""The models that a verb's options name."""

import argparse

from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..weights.shipped import shipped_model
from .verbs import DTYPES


def tokenizer_of(options: argparse.Namespace) -> CosmosTokenizer:
    """The tokenizer, where and as it is used."""
    file = options.tokenizer or shipped_model("tokenizer")
    return load_tokenizer(file).to(options.device, DTYPES[options.dtype])

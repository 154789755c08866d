"""The figures of the README: ``lyra bench NAME`` writes each as a Markdown table."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch

NAMES = (
    "formats", "modes", "ply", "rasterize", "recon", "refine", "scene", "teacher", "tokenizer", "train", "warp",
)  # fmt: skip
SIZES = ("mini", "full")  # of the models of a scene
OPTIONS = {  # that not every one has
    "modes": ("teacher", "tokenizer", "out", "size"),
    "scene": ("teacher", "tokenizer", "recon", "size", "mode", "stored"),
}


def rows(name: str, device: torch.device, **options: Any) -> Iterator[str]:
    """The lines of one table, as they are measured."""
    yield from import_module(f".{name}", __package__).rows(device, **options)

"""The reference's latents: ``torch.save`` of a numpy array [1, 16, T, h, w] in diffusion space, one file a view.

Such a file is a pickle, and a pickle may run anything when opened the usual way. Here it may name nothing but numpy's
arrays and their float types (teacher.md 10.2).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from ..atomic import replacing
from ..reading import open_zip, reading

CHANNELS = 16  # of the Cosmos tokenizer


class Filled(np.ndarray):
    """An array that can only be made empty, and then be filled with the state that follows in a file."""

    def __new__(cls, *_: object) -> "Filled":
        """Whatever size is asked for, none."""
        return super().__new__(cls, (0,), np.uint8)


def named_as(module: str, name: str) -> Callable[..., np.ndarray]:
    """What a file may call by a name of numpy's: an empty array, to be filled."""

    def made(*_: object) -> np.ndarray:
        return Filled()

    made.__module__, made.__qualname__ = module, name  # torch goes by these
    return made


ALLOWED: tuple[Any, ...] = (
    named_as("numpy._core.multiarray", "_reconstruct"),  # as numpy 2 spells it
    named_as("numpy.core.multiarray", "_reconstruct"),  # as numpy 1 does
    named_as("numpy", "ndarray"),  # an argument of both; the class itself would take any amount of memory
    Filled,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float16", "float32", "float64")),
)


def save_latent_pkl(path: Path | str, values: Tensor) -> None:
    """Write the latents [16, T, h, w] of one view as the reference's loader expects them."""
    check_latent(values)
    # through an open file: the archive would otherwise repeat the temporary name inside
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(values.detach().float().cpu().numpy()[None], file)


def load_latent_pkl(path: Path | str) -> Tensor:
    """Read the latents [16, T, h, w], float32, of one view; arrays or tensors of any float type, batch axis or none."""
    # leaving the context forgets what it was given, so what the host allows for good must not be in the list
    added = [kind for kind in ALLOWED if kind not in torch.serialization.get_safe_globals()]
    with reading(path) as file, torch.serialization.safe_globals(added):
        if is_zipfile(file):
            with open_zip(file):
                pass  # its members claim what they can hold
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
            if isinstance(found, Filled):
                found = np.asarray(found)
                if not found.size:
                    raise ValueError("an array that nothing filled")
            values = torch.as_tensor(found) if isinstance(found, np.ndarray | Tensor) else None
        except Exception as error:  # torch names no type: a damaged archive and a refused global both end here
            called = re.search(r"GLOBAL (\S+)", str(error))  # the rest is torch's advice to unpickle it all the same
            reason = f"it calls {called[1]}" if called else "it is damaged, or not written by torch.save"
            raise ValueError(f"not a latent file of numbers only, refused: {reason}") from error
        if values is None:
            raise ValueError(f"expected an array [1 {CHANNELS} T h w], got a {type(found).__name__}")
        claimed, size = values.numel() * values.element_size(), file.stat().st_size
        if claimed > size:  # a window that repeats itself, made large by nothing but its shape
            raise ValueError(
                f"claims {tuple(values.shape)}, {claimed} bytes in {size}; damaged, or made to fill the memory"
            )
        if values.ndim == 5 and len(values) == 1:
            values = values[0]
        check_latent(values)
        return values.float()


def check_latent(values: Tensor) -> None:
    """Raise ValueError unless the values are [16, T, h, w]."""
    if values.ndim != 4 or len(values) != CHANNELS:
        raise ValueError(f"latents of one view: expected [{CHANNELS} T h w], got {tuple(values.shape)}")

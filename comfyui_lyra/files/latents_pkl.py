"""The reference's latents: ``torch.save`` of a numpy array [1, 16, T, h, w] in diffusion space, one file a view.

Such a file is a pickle, and a pickle may run anything when opened the usual way. Here it may name nothing but numpy's
arrays and their float types (teacher.md 10.2).
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .atomic import replacing
from .reading import reading

CHANNELS = 16  # of the Cosmos tokenizer


def empty_array(module: str) -> Callable[..., np.ndarray]:
    """What a file may call as ``<module>._reconstruct``: an empty array, to be filled with the state that follows."""

    def _reconstruct(*_: object) -> np.ndarray:
        return np.empty(0, np.uint8)

    _reconstruct.__module__, _reconstruct.__qualname__ = module, "_reconstruct"  # torch goes by these
    return _reconstruct


ALLOWED = (
    empty_array("numpy._core.multiarray"),  # as numpy 2 spells it
    empty_array("numpy.core.multiarray"),  # as numpy 1 does
    np.ndarray,
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
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
            values = torch.as_tensor(found).float() if isinstance(found, np.ndarray | Tensor) else None
        except Exception as error:  # torch names no type: a damaged archive and a refused global both end here
            called = re.search(r"GLOBAL (\S+)", str(error))  # the rest is torch's advice to unpickle it all the same
            reason = f"it calls {called[1]}" if called else "it is damaged, or not written by torch.save"
            raise ValueError(f"not a latent file of numbers only, refused: {reason}") from error
        if values is None:
            raise ValueError(f"expected an array [1 {CHANNELS} T h w], got a {type(found).__name__}")
        if values.ndim == 5 and len(values) == 1:
            values = values[0]
        check_latent(values)
        return values


def check_latent(values: Tensor) -> None:
    """Raise ValueError unless the values are [16, T, h, w]."""
    if values.ndim != 4 or len(values) != CHANNELS:
        raise ValueError(f"latents of one view: expected [{CHANNELS} T h w], got {tuple(values.shape)}")

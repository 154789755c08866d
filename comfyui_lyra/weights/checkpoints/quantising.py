"""8-bit matrices with a scale each, as ComfyUI writes and computes with them (comfy_quant)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .quantised import Scaled, real

Quant = Literal["fp8", "int8"]
QUANTS = get_args(Quant)
FORMATS = {  # ComfyUI's name, precision, largest number
    "fp8": ("float8_e4m3fn", torch.float8_e4m3fn, 448.0),
    "int8": ("int8_tensorwise", torch.int8, 127.0),
}


@dataclass(frozen=True, eq=False)
class Lazy:
    """A tensor that is made when it is written, so that a large model is never in memory twice."""

    dtype: torch.dtype
    shape: torch.Size
    make: Callable[[], Tensor]


def quantised(
    state: Mapping[str, Tensor | Scaled], kind: Quant, chosen: Callable[[str], bool]
) -> dict[str, Tensor | Scaled | Lazy]:
    """The state with the ``chosen`` matrices ``<layer>.weight`` in 8 bits, each with its scale and ComfyUI's mark.

    ``<layer>.weight_scale`` is max|w| over the format's largest number, ``<layer>.comfy_quant`` the bytes of a JSON.
    """
    name, dtype, largest = FORMATS[kind]
    mark = torch.tensor(list(json.dumps({"format": name}).encode()), dtype=torch.uint8)
    made: dict[str, Tensor | Scaled | Lazy] = {}
    for key, value in state.items():
        if not key.endswith(".weight") or len(value.shape) != 2 or not chosen(key):
            made[key] = value
            continue
        layer = key.removesuffix(".weight")

        def scale(value: Tensor | Scaled = value) -> Tensor:
            return (real(value, torch.float32).abs().amax() / largest).clamp(min=1e-12)

        def weight(value: Tensor | Scaled = value) -> Tensor:
            shrunk = real(value, torch.float32) / scale(value)
            return (shrunk if dtype.is_floating_point else shrunk.round()).clamp(-largest, largest).to(dtype)

        made[key] = Lazy(dtype, value.shape, weight)
        made[f"{layer}.weight_scale"] = Lazy(torch.float32, torch.Size(()), scale)
        made[f"{layer}.comfy_quant"] = mark
    return made

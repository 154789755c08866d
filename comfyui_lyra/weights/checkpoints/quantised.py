"""8-bit weights that come with scales, as ComfyUI and others store them, and what they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...files.reading import parse_json

EIGHT_BITS = frozenset({torch.float8_e4m3fn, torch.float8_e5m2})
SCALES = (".weight_scale", ".scale_weight")  # of "<layer>.weight"; ComfyUI's today, and what it wrote before
BESIDE = (".input_scale", ".scale_input", ".comfy_quant", "scaled_fp8")  # for other ways to compute: not needed here
KNOWN = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2, "int8_tensorwise": torch.int8}


@dataclass(frozen=True, eq=False)
class Scaled:
    """A weight [out, ...] stored in 8 bits, and its scale: one number, or one for each output [out] or [out, 1]."""

    weight: Tensor
    scale: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the weight."""
        return self.weight.shape

    @property
    def stored(self) -> tuple[Tensor, Tensor]:
        """What the file holds."""
        return self.weight, self.scale

    def real(self, dtype: torch.dtype) -> Tensor:
        """The weight it stands for."""
        scale = self.scale.float()
        if scale.numel() > 1:
            scale = scale.reshape(-1, *(1,) * (self.weight.ndim - 1))
        return (self.weight.float() * scale).to(dtype)


def real(value: Tensor | Scaled, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor in ``dtype``, or as it is stored; what is stored in 8-bit floats becomes bfloat16 then.

    Integers stay what they are. A tensor that needs no change is not copied.
    """
    if isinstance(value, Scaled):
        return value.real(dtype or torch.bfloat16)
    if not value.is_floating_point():
        return value
    return value.to(dtype or (torch.bfloat16 if value.dtype in EIGHT_BITS else value.dtype))


def with_scales(state: Mapping[str, Tensor], about: Mapping[str, str], source: str) -> dict[str, Tensor | Scaled]:
    """The state in which every weight has its scale and what only belongs to quantised computing is gone.

    ``about`` is the file's metadata, where ComfyUI may note the layers' formats. Raises ValueError for formats that
    are not read here, with their names.
    """
    formats = formats_of(state, about)
    unread = sorted({kind for kind in formats.values() if kind not in KNOWN})
    if unread:
        raise ValueError(
            f"{source} is quantised as {', '.join(unread)}, which this pack does not read (it reads {', '.join(KNOWN)})"
            "; take the model in bfloat16, float32 or fp8"
        )
    found: dict[str, Tensor | Scaled] = {}
    for name, tensor in state.items():
        layer = name.removesuffix(".weight")
        scale = next((state[layer + suffix] for suffix in SCALES if layer + suffix in state), None)
        if name.endswith((*SCALES, *BESIDE)) and is_beside(name, state):
            continue
        if layer in formats and tensor.dtype == torch.uint8 and layer != name:  # a container of bytes
            tensor = tensor.view(KNOWN[formats[layer]])
        found[name] = tensor if scale is None or layer == name else checked(tensor, scale, name, source)
    return found


def is_beside(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of such a name belongs to a weight's quantisation, or marks the file."""
    return name.endswith("scaled_fp8") or f"{name.rpartition('.')[0]}.weight" in state


def checked(weight: Tensor, scale: Tensor, name: str, source: str) -> Scaled:
    """A weight with a scale that fits it."""
    if scale.numel() not in (1, len(weight) if weight.ndim else 1):
        raise ValueError(
            f"{source}: the scale of '{name}' has {scale.numel()} numbers for a weight {tuple(weight.shape)}; "
            "expected one, or one a row: a way of quantising that this pack does not read"
        )
    return Scaled(weight, scale)


def formats_of(state: Mapping[str, Tensor], about: Mapping[str, str]) -> dict[str, str]:
    """The format of each layer that ComfyUI noted one for, beside the weight or in the metadata."""
    notes: dict[str, object] = {}
    try:
        notes |= parse_json(about.get("_quantization_metadata", "{}")).get("layers", {})
        for name, tensor in state.items():
            if name.endswith(".comfy_quant"):
                notes[name.removesuffix(".comfy_quant")] = parse_json(bytes(tensor.tolist()))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"a note on quantisation that cannot be read ({error})") from error
    return {layer: format_of(note) for layer, note in notes.items()}


def format_of(note: object) -> str:
    """The name of a layer's format; a rotation that a format may add makes it another one."""
    if not isinstance(note, dict):
        return str(note)
    given = note.get("params") if isinstance(note.get("params"), dict) else {}
    rotated = note.get("convrot", given.get("convrot", False))
    return f"{note.get('format')}{' with convrot' if rotated else ''}"

"""glTF with KHR_gaussian_splatting, written: points with the extension's attributes; axes x right, y up, z back.

Khronos' page of the extension is the reference. Programs that do not know it show points in COLOR_0.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ...splats.gaussians import Gaussians
from ...splats.harmonics import C0
from ...versions import pack_version
from ..atomic import replacing

NAME = "KHR_gaussian_splatting"
EXTENSION = {
    "kernel": "ellipse", "colorSpace": "srgb_rec709_display", "projection": "perspective",
    "sortingMethod": "cameraDistance",
}  # fmt: skip
FLOAT, BYTE = 5126, 5121  # glTF's component types
KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
LARGEST = (1 << 32) - 1  # bytes of a GLB, whose length is a 32-bit number
JSON, BIN = 0x4E4F534A, 0x004E4942  # chunks


def write_glb(path: Path | str, splats: Gaussians, metres: float | None = None) -> None:
    """Write prepared splats whose y is up; glTF is in metres, so ``metres`` a unit becomes the node's scale.

    Raises ValueError where the file would have 4 GB or more.
    """
    arrays = dict(attributes(splats))
    document = describe(arrays, metres)
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = sum(array.nbytes for array in arrays.values())
    total = 12 + 8 + len(text) + 8 + binary
    if total > LARGEST:
        raise ValueError(f"{path}: {total / 1e9:.1f} GB; a GLB holds 4: keep fewer splats, or write usdc")
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, total))
        file.write(struct.pack("<II", len(text), JSON) + text)
        file.write(struct.pack("<II", binary, BIN))
        for array in arrays.values():
            file.write(array.data)


def attributes(splats: Gaussians) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of the points by their names, each of 4 bytes a number, or 4 byte numbers, a splat."""
    yield "POSITION", floats(splats.means)
    yield "COLOR_0", fallback(splats)
    yield f"{NAME}:ROTATION", floats(splats.quats[:, [1, 2, 3, 0]])  # x y z w
    yield f"{NAME}:SCALE", floats(splats.scales)
    yield f"{NAME}:OPACITY", floats(splats.opacities.clamp(0, 1)[:, None])
    yield f"{NAME}:SH_DEGREE_0_COEF_0", floats((splats.colors - 0.5) / C0)
    if splats.sh_rest is not None:
        for index, name in enumerate(rest_names(splats.sh_rest.shape[1])):
            yield name, floats(splats.sh_rest[:, index])


def rest_names(count: int) -> list[str]:
    """Names of the coefficients above band 0, band by band."""
    names = [f"{NAME}:SH_DEGREE_{band}_COEF_{index}" for band in (1, 2, 3) for index in range(2 * band + 1)]
    return names[:count]


def floats(values: Tensor) -> np.ndarray:
    """Values [N, C] as float32."""
    return np.ascontiguousarray(values.numpy(), "<f4")


def fallback(splats: Gaussians) -> np.ndarray:
    """Linear colour and opacity [N, 4] as bytes, for programs that draw points."""
    srgb = splats.colors.clamp(0, 1).numpy()
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    alpha = splats.opacities.clamp(0, 1)[:, None].numpy()
    return np.ascontiguousarray(np.rint(np.concatenate((linear, alpha), 1) * 255), np.uint8)


def describe(arrays: dict[str, np.ndarray], metres: float | None) -> dict:
    """The JSON of a file that holds the arrays one behind the other."""
    views, accessors, start = [], [], 0
    for name, array in arrays.items():
        is_bytes = array.dtype == np.uint8
        accessor = {
            "bufferView": len(views), "componentType": BYTE if is_bytes else FLOAT, "count": len(array),
            "type": KINDS[array.shape[1]],
        }  # fmt: skip
        if is_bytes:
            accessor["normalized"] = True
        if name == "POSITION":
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        accessors.append(accessor)
        views.append({"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": 34962})
        start += array.nbytes
    node = {"mesh": 0, "name": "splats"} | ({} if metres in (None, 1.0) else {"scale": [metres] * 3})
    primitive = {
        "mode": 0, "attributes": {name: index for index, name in enumerate(arrays)}, "extensions": {NAME: EXTENSION},
    }  # fmt: skip
    return {
        "asset": {"version": "2.0", "generator": f"Lyra for ComfyUI {pack_version()}"},
        "extensionsUsed": [NAME],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [node],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": start}],
    }

"""OpenUSD's ParticleField3DGaussianSplat, written: as text by ourselves, as .usdc with usd-core.

One prim holds the splats. Of several moments each is a time sample. USD would blend the numbers of neighbours of equal
length, though splat i of one moment is not splat i of the next; so neighbours differ in length, by a splat of opacity 0
if need be, and each moment stays until the next.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...splats.gaussians import Gaussians, concatenate
from ...splats.harmonics import C0, band_of
from ...versions import pack_version
from ..atomic import replacing
from .forge import library
from .formats import Up

AXIS = {"y_up": "Y", "z_up": "Z"}
PRIM, KIND = "Splats", "ParticleField3DGaussianSplat"
BLOCK = 1 << 14  # rows that are written as text at once
REACH = 3  # standard deviations, to which USD's extent counts
RADIANCE = "radiance:sphericalHarmonics"
TYPES = {  # attribute -> its type, and that of usd-core's array
    "extent": ("float3[]", "Float3Array", "Vec3fArray"),
    "positions": ("point3f[]", "Point3fArray", "Vec3fArray"),
    "orientations": ("quatf[]", "QuatfArray", "QuatfArray"),
    "scales": ("float3[]", "Float3Array", "Vec3fArray"),
    "opacities": ("float[]", "FloatArray", "FloatArray"),
    f"{RADIANCE}Coefficients": ("float3[]", "Float3Array", "Vec3fArray"),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a file says of itself."""

    up: Up
    metres: float  # a unit
    degree: int  # of the harmonics
    times: tuple[int, ...] = ()  # frames of the moments; none of one scene
    fps: float = 24.0

    def about(self) -> dict[str, float | int | str]:
        """The metadata of the file, by USD's names."""
        found: dict[str, float | int | str] = {
            "defaultPrim": PRIM, "metersPerUnit": self.metres, "upAxis": AXIS[self.up],
            "doc": f"Lyra for ComfyUI {pack_version()}",
        }  # fmt: skip
        if self.times:
            found |= {"startTimeCode": self.times[0], "endTimeCode": self.times[-1]}
            found |= {"timeCodesPerSecond": self.fps, "framesPerSecond": self.fps}
        return found


def write_usd(
    path: Path | str,
    frames: Sequence[Gaussians],
    *,
    up: Up = "y_up",
    metres: float | None = None,
    times: Sequence[int] = (),
    fps: float = 24.0,
    binary: bool = False,
) -> None:
    """Write prepared splats with ``up``: one scene, or one a moment of ``times``, frames that ``fps`` counts.

    ``metres`` a unit are written as metersPerUnit, which is 1 where they are not known.
    """
    if len(frames) != max(1, len(times)) or list(times) != sorted(set(times)):
        raise ValueError(f"{path}: {len(frames)} moments for times {list(times)}; expected one each, in order")
    bands = max(0 if frame.sh_rest is None else frame.sh_rest.shape[1] for frame in frames)
    frames = [with_bands(frame, bands) for frame in unlike(frames)]
    stage = Stage(
        up=up, metres=metres or 1.0, degree=band_of(frames[0].sh_rest), times=tuple(times), fps=fps,
    )  # fmt: skip
    with replacing(path) as temporary:
        (write_binary if binary else write_text)(temporary, stage, frames)


def unlike(frames: Sequence[Gaussians]) -> list[Gaussians]:
    """Moments of which no two neighbours have equally many splats; a splat of opacity 0 is added to one."""
    found: list[Gaussians] = []
    for frame in frames:
        while found and len(found[-1]) == len(frame):
            last = frame[-1:]
            frame = concatenate([frame, replace(last, opacities=torch.zeros_like(last.opacities))])
        found.append(frame)
    return found


def with_bands(splats: Gaussians, bands: int) -> Gaussians:
    """Splats with that many coefficients above band 0; those that are missing are 0."""
    if not bands or (splats.sh_rest is not None and splats.sh_rest.shape[1] == bands):
        return splats
    rest = splats.means.new_zeros(len(splats), bands, 3)
    if splats.sh_rest is not None:
        rest[:, : splats.sh_rest.shape[1]] = splats.sh_rest
    return replace(splats, sh_rest=rest)


def values_of(splats: Gaussians) -> Iterator[tuple[str, Tensor]]:
    """The attributes that change with time, as rows [., C] of numbers; quaternions as w x y z."""
    reach = REACH * splats.scales.amax(1, keepdim=True)
    yield "extent", torch.stack(((splats.means - reach).amin(0), (splats.means + reach).amax(0)))
    yield "positions", splats.means
    yield "orientations", splats.quats
    yield "scales", splats.scales
    yield "opacities", splats.opacities.clamp(0, 1)[:, None]
    band0 = ((splats.colors - 0.5) / C0)[:, None]
    every = band0 if splats.sh_rest is None else torch.cat((band0, splats.sh_rest), 1)
    yield f"{RADIANCE}Coefficients", every.flatten(0, 1)  # those of a splat one behind the other


def write_text(path: Path, stage: Stage, frames: Sequence[Gaussians]) -> None:
    """The file as text. Moments stand attribute by attribute, so each is gone through once for each attribute."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        lines = [f"    {key} = {json.dumps(value)}" for key, value in stage.about().items()]
        file.write("#usda 1.0\n(\n" + "\n".join(lines) + f'\n)\n\ndef {KIND} "{PRIM}"\n{{\n')
        file.write(f"    uniform int {RADIANCE}Degree = {stage.degree}\n")
        for name in TYPES:
            begin = f"    {TYPES[name][0]} {name}"
            file.write(f"{begin}.timeSamples = {{\n" if stage.times else f"{begin} = ")
            for index, frame in enumerate(frames):
                file.write(f"        {stage.times[index]}: " if stage.times else "")
                file.writelines(rows_as_text(dict(values_of(frame))[name]))
                file.write(",\n" if stage.times else "\n")
            file.write("    }\n" if stage.times else "")
        file.write("}\n")


def rows_as_text(rows: Tensor) -> Iterator[str]:
    """Rows [N, C] as USD writes an array, in blocks; eight digits, so that float32 comes back to 1e-7."""
    columns = rows.shape[1]
    row = "%.8g, " if columns == 1 else f"({', '.join(['%.8g'] * columns)}), "
    yield "["
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        text = row * len(block) % tuple(block.flatten().tolist())
        yield text if start + BLOCK < len(rows) else text[:-2]
    yield "]"


def write_binary(path: Path, stage: Stage, frames: Sequence[Gaussians]) -> None:
    """The file as .usdc, through usd-core."""
    sdf, vt = (library(name, "usd-core", "writing .usdc") for name in ("pxr.Sdf", "pxr.Vt"))
    layer = sdf.Layer.CreateAnonymous("splats.usdc")
    about = stage.about()
    layer.defaultPrim, layer.documentation = str(about.pop("defaultPrim")), str(about.pop("doc"))
    for key, value in about.items():
        layer.pseudoRoot.SetInfo(key, value)
    prim = sdf.CreatePrimInLayer(layer, f"/{PRIM}")
    prim.specifier, prim.typeName = sdf.SpecifierDef, KIND
    degree = sdf.AttributeSpec(prim, f"{RADIANCE}Degree", sdf.ValueTypeNames.Int, sdf.VariabilityUniform)
    degree.default = stage.degree
    specs = {n: sdf.AttributeSpec(prim, n, getattr(sdf.ValueTypeNames, TYPES[n][1])) for n in TYPES}
    for index, frame in enumerate(frames):
        for name, rows in values_of(frame):
            array = as_array(getattr(vt, TYPES[name][2]), name, rows)
            if stage.times:
                layer.SetTimeSample(specs[name].path, float(stage.times[index]), array)
            else:
                specs[name].default = array
    if not layer.Export(str(path), args={"format": "usdc"}):
        raise ValueError(f"usd-core could not write {path}")


def as_array(kind, name: str, rows: Tensor):
    """Rows as an array of usd-core, which takes quaternions as x y z w."""
    rows = rows[:, [1, 2, 3, 0]] if name == "orientations" else rows
    values = np.ascontiguousarray(rows.numpy(), np.float32)
    return kind.FromNumpy(values[:, 0].copy() if values.shape[1] == 1 else values)

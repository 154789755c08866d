"""3D Gaussian splats as PLY. In the file opacity is a logit, scale a logarithm and colour SH band 0; axes are ours."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...splats.gaussians import Gaussians
from ...splats.harmonics import C0
from ...splats.placing import prepared, turned
from ..atomic import replacing
from ..reading import reading
from .formats import UPS, Up, form_of
from .ply_compressed import WORDS, unpack_sh, unpack_splats
from .ply_elements import Columns, read_elements, stack

log = logging.getLogger("lyra")

MEANS = ("x", "y", "z")
COLORS = ("f_dc_0", "f_dc_1", "f_dc_2")
OPACITY = ("opacity",)
SCALES = ("scale_0", "scale_1", "scale_2")
QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
RGB = ("red", "green", "blue")  # what files have that know no harmonics: bytes, or 0..1
SAYS = "lyra:"  # begins our comment of axes and unit
SAID = re.compile(rf"^comment {SAYS} up=(\w+)(?: metres_per_unit=([0-9.e+-]{{1,32}}))?\s*$", re.MULTILINE)
DISC = 1e-3  # thickness of a 2DGS disc, as a share of its smaller radius


def save_ply(path: Path | str, gaussians: Gaussians, *, scale: float = 1.0, min_opacity: float = 0.0) -> None:
    """Write splats as binary PLY, byte-equal to the reference's writer (decoder.md 5.1).

    ``scale`` multiplies the world first; splats below ``min_opacity`` are left out (the reference's renderer class
    uses 0.005). Spherical harmonics above band 0 are written channel by channel, as 3DGS does.
    """
    write_ply(path, prepared(gaussians, scale=scale, min_opacity=min_opacity))


def write_ply(path: Path | str, kept: Gaussians, up: Up = "y_down", metres: float | None = None) -> None:
    """Write prepared splats, in axes with ``up``; a comment says so where that is not y_down or ``metres`` are known.

    ``metres`` is what a unit of the file is.
    """
    chance = kept.opacities.clamp(1e-6, 1 - 1e-6)
    columns = {MEANS: kept.means, COLORS: (kept.colors - 0.5) / C0}
    if kept.sh_rest is not None:
        rest = kept.sh_rest.transpose(1, 2).flatten(1)  # [N, 3 R]: all of red, then green, then blue
        columns[tuple(f"f_rest_{i}" for i in range(rest.shape[1]))] = rest
    columns |= {
        OPACITY: torch.log(chance / (1 - chance))[:, None],
        SCALES: torch.log(kept.scales + 1e-8),
        QUATS: kept.quats,
    }
    unit = "" if metres is None else f" metres_per_unit={metres!r}"
    write_vertices(path, columns, f"{SAYS} up={up}{unit}" if unit or up != "y_down" else "")


def write_vertices(path: Path | str, columns: dict[tuple[str, ...], Tensor], comment: str = "") -> None:
    """Write float columns, as they are, as the vertices of a little-endian PLY: names -> values [N, names]."""
    names = [name for group in columns for name in group]
    rows = np.ascontiguousarray(torch.cat(list(columns.values()), dim=1).numpy(), "<f4")
    header = ["ply", "format binary_little_endian 1.0", *([f"comment {comment}"] if comment else [])]
    header += [f"element vertex {len(rows)}", *(f"property float {name}" for name in names), "end_header\n"]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode())
        file.write(rows.data)


def load_ply(source: Path | str | bytes) -> Gaussians:
    """Read splats from a PLY file or its bytes, whatever the order and types of its properties.

    Reads ascii, binary of either endianness and SuperSplat's compressed form, with spherical harmonics up to degree 3;
    the discs of 2DGS as flat splats, and colours as red, green, blue. Splats with NaN, infinite places or sizes, or a
    quaternion of length zero are dropped with a warning. Quaternions come out with unit length. What ``write_ply``
    turned is turned back. Raises ValueError for what is no PLY, is cut short or holds no splats.
    """
    if isinstance(source, bytes):
        return parse_ply(source, "PLY")
    with reading(source) as file:
        data = file.read_bytes()
        form = form_of(file.name, data[:4096])
        if form and form.suffix != ".ply":
            raise ValueError(f"splats as {form.title}, no PLY")
        return parse_ply(data, str(file))


def parse_ply(data: bytes, what: str) -> Gaussians:
    """As ``load_ply``, from bytes; ``what`` names them in warnings."""
    elements = read_elements(data, ("chunk", "vertex", "sh"))
    vertex = elements.get("vertex", {})
    if vertex.keys() >= set(WORDS):
        splats, rest = unpack_splats(elements.get("chunk", {}), vertex), read_rest(elements.get("sh", {}))
        splats = replace(splats, sh_rest=None if rest is None else unpack_sh(rest))
    else:
        splats = read_splats(vertex, what)
    if not len(splats):
        raise ValueError("the file holds no splats")
    return turned(usable(splats, what), said_up(data), back=True)


def said_up(data: bytes) -> Up:
    """The axes that a file of ours says it has in a comment; y_down for all others."""
    said = SAID.search(data[: data.find(b"end_header")].decode("latin-1"))
    known: dict[str, Up] = {up: up for up in UPS}
    return known.get(said[1], "y_down") if said else "y_down"


def said_metres(data: bytes) -> float | None:
    """What a unit of a file of ours is, where a comment says so."""
    said = SAID.search(data[: data.find(b"end_header")].decode("latin-1"))
    return float(said[2]) if said and said[2] else None


def read_splats(vertex: Columns, what: str) -> Gaussians:
    """Splats from the columns of a plain 3DGS file, or of one of its kin; unusable ones among them."""
    is_flat = SCALES[2] not in vertex and vertex.keys() >= set(SCALES[:2])
    scales = SCALES[:2] if is_flat else SCALES
    colors = COLORS if vertex.keys() >= set(COLORS) or not vertex.keys() >= set(RGB) else RGB
    if missing := [name for name in MEANS + colors + OPACITY + scales + QUATS if name not in vertex]:
        is_cloud = vertex.keys() >= set(MEANS) and not vertex.keys() & set(OPACITY + SCALES + QUATS + COLORS)
        kind = "a point cloud, not splats" if is_cloud else "not splats"
        raise ValueError(f"{kind}: its vertices lack {' '.join(missing)}")
    warn_activated(vertex, scales, what)
    sizes = stack(vertex, scales).exp_()
    if is_flat:
        log.info("%s: two scales a splat, discs as 2DGS makes them; they become thin splats", what)
        sizes = torch.cat((sizes, DISC * sizes.amin(1, keepdim=True)), 1)
    return Gaussians(
        means=stack(vertex, MEANS),
        scales=sizes,
        quats=unit_quats(stack(vertex, QUATS)),
        opacities=stack(vertex, OPACITY).squeeze(1).sigmoid_(),
        colors=stack(vertex, COLORS) * C0 + 0.5 if colors is COLORS else read_rgb(vertex),
        sh_rest=read_rest(vertex),
    )


def unit_quats(quats: Tensor) -> Tensor:
    """Quaternions [N, 4] of unit length, however long or short; NaN where they are zero."""
    return F.normalize(quats / quats.abs().amax(1, keepdim=True), dim=1)


def read_rgb(vertex: Columns) -> Tensor:
    """Colours [N, 3] of the properties red, green, blue; whole numbers span their type."""
    colors = stack(vertex, RGB)
    kinds = {vertex[name].dtype for name in RGB}
    return colors / float(np.iinfo(next(iter(kinds))).max) if all(kind.kind in "iu" for kind in kinds) else colors


def warn_activated(vertex: Columns, scales: tuple[str, ...], what: str) -> None:
    """Warn if all opacities lie in 0..1, as logits hardly do: some programs store the values themselves."""
    opacity = vertex["opacity"]
    if len(opacity) > 1 and (opacity >= 0).all() and (opacity <= 1).all():
        too = " and all scales are positive" if all((vertex[name] >= 0).all() for name in scales) else ""
        log.warning(
            "%s: all opacities lie in 0..1%s: these may be the values themselves, where 3DGS stores logits and "
            "logarithms; if the splats look wrong, export them as 3DGS PLY", what, too,
        )  # fmt: skip


def usable(splats: Gaussians, what: str) -> Gaussians:
    """The splats that can be drawn, with a warning of how many are dropped; ValueError where none is left."""
    good = torch.ones(len(splats), dtype=torch.bool)
    for field in (splats.means, splats.scales, splats.quats, splats.opacities, splats.colors, splats.sh_rest):
        if field is not None:
            good &= torch.isfinite(field).reshape(len(splats), -1).all(1)
    if not good.any():
        raise ValueError(
            f"none of the {len(splats)} splats can be used: each holds NaN or infinity, or a quaternion of length zero"
        )
    if good.all():
        return splats
    log.warning(
        "%s: %d of %d splats dropped: they hold NaN or infinity, or a quaternion of length zero",
        what, int((~good).sum()), len(splats),
    )  # fmt: skip
    return splats[good]


def read_rest(columns: Columns) -> Tensor | None:
    """The properties ``f_rest_*`` as [N, R, 3], or None where there are none."""
    found = [name for name in columns if name.startswith("f_rest_")]
    count = len(found) // 3
    if len(found) not in (0, 9, 24, 45) or set(found) != {f"f_rest_{i}" for i in range(len(found))}:
        raise ValueError(f"{len(found)} f_rest properties; spherical harmonics of degree 0..3 have 0, 9, 24 or 45")
    if not found:
        return None
    names = [f"f_rest_{channel * count + i}" for i in range(count) for channel in range(3)]
    return stack(columns, names).unflatten(1, (count, 3))

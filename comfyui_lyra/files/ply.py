"""3D Gaussian splats as PLY. In the file opacity is a logit, scale a logarithm and colour SH band 0; axes are ours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..gaussians import Gaussians
from .atomic import replacing
from .ply_compressed import WORDS, unpack_sh, unpack_splats
from .ply_elements import Columns, read_elements, stack
from .reading import reading

C0 = 0.28209479177387814  # SH band 0, 1 / (2 sqrt(pi))
MEANS = ("x", "y", "z")
COLORS = ("f_dc_0", "f_dc_1", "f_dc_2")
OPACITY = ("opacity",)
SCALES = ("scale_0", "scale_1", "scale_2")
QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")


def save_ply(path: Path | str, gaussians: Gaussians, *, scale: float = 1.0, min_opacity: float = 0.0) -> None:
    """Write splats as binary PLY, byte-equal to the reference's writer (decoder.md 5.1).

    ``scale`` multiplies the world first; splats below ``min_opacity`` are left out (the reference's renderer class
    uses 0.005). Spherical harmonics above band 0 are written channel by channel, as 3DGS does.
    """
    kept = gaussians.to("cpu").to(torch.float32)
    if min_opacity > 0:
        kept = kept[kept.opacities >= min_opacity]
    if not len(kept):
        raise ValueError(f"no splats to save: of {len(gaussians)}, none has an opacity of {min_opacity} or more")
    kept = kept.check_finite().scaled(scale)
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
    write_vertices(path, columns)


def write_vertices(path: Path | str, columns: dict[tuple[str, ...], Tensor]) -> None:
    """Write float columns, as they are, as the vertices of a little-endian PLY: names -> values [N, names]."""
    names = [name for group in columns for name in group]
    rows = np.ascontiguousarray(torch.cat(list(columns.values()), dim=1).numpy(), "<f4")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in names] + ["end_header\n"]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode())
        file.write(rows.data)


def load_ply(source: Path | str | bytes) -> Gaussians:
    """Read splats from a PLY file or its bytes, whatever the order and types of its properties.

    Reads ascii, binary of either endianness and SuperSplat's compressed form, with spherical harmonics up to degree 3.
    Quaternions come out with unit length. Raises ValueError for what is no PLY, is cut short or holds no splats.
    """
    if isinstance(source, bytes):
        return parse_ply(source)
    with reading(source) as file:
        return parse_ply(file.read_bytes())


def parse_ply(data: bytes) -> Gaussians:
    """As ``load_ply``, from bytes."""
    elements = read_elements(data, ("chunk", "vertex", "sh"))
    vertex = elements.get("vertex", {})
    if vertex.keys() >= set(WORDS):
        splats, rest = unpack_splats(elements.get("chunk", {}), vertex), read_rest(elements.get("sh", {}))
        splats = replace(splats, sh_rest=None if rest is None else unpack_sh(rest))
    else:
        splats = read_splats(vertex)
    if not len(splats):
        raise ValueError("the file holds no splats")
    return splats.check_finite()


def read_splats(vertex: Columns) -> Gaussians:
    """Splats from the columns of a plain 3DGS file."""
    if missing := [name for name in MEANS + COLORS + OPACITY + SCALES + QUATS if name not in vertex]:
        what = "a point cloud, not splats" if vertex.keys() >= set(MEANS) else "not splats"
        raise ValueError(f"{what}: its vertices lack {' '.join(missing)}")
    return Gaussians(
        means=stack(vertex, MEANS),
        scales=stack(vertex, SCALES).exp_(),
        quats=F.normalize(stack(vertex, QUATS), dim=1),
        opacities=stack(vertex, OPACITY).squeeze(1).sigmoid_(),
        colors=stack(vertex, COLORS) * C0 + 0.5,
        sh_rest=read_rest(vertex),
    )


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

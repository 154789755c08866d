"""Niantic's SPZ, read: gzip around one array for each property, quantised; axes x right, y up, z back.

Versions 2 and 3 are read here, version 4 (zstd) with gaussforge. nianticlabs/spz is the reference for the bytes.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...splats.gaussians import Gaussians
from ...splats.harmonics import C0
from ...splats.placing import turned
from ..reading import check_claim
from .forge import as_ply
from .formats import NGSP
from .ply import read_splats
from .ply_elements import read_elements

COLOR = C0 / 0.15  # bytes of colours span more than 0..1: (byte / 255 - 0.5) / 0.15 is band 0
HEADER = struct.Struct("<4sIIBBBB")
NEWER = struct.Struct("<4sIIBBBB4x")  # of version 4, before its list of streams
REST = {0: 0, 1: 3, 2: 8, 3: 15}  # degree -> coefficients a colour above band 0
ROTATION = {2: 3, 3: 4}  # version -> bytes of a quaternion


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the first 16 bytes say."""

    version: int
    count: int
    degree: int
    fraction: int  # bits of a position behind the point


def parse_spz(data: bytes) -> Gaussians:
    """Splats in our axes from a file's bytes; ValueError for what is damaged, or of a version that is not read."""
    if data.startswith(NGSP):
        return turned(read_newer(data), "y_up", back=True)
    stream = zlib.decompressobj(31)
    header = read_header(stream.decompress(data, HEADER.size))
    if header.version not in ROTATION:
        raise ValueError(f"SPZ of version {header.version}; versions 2 to 4 are read")
    sizes = (9, 1, 3, 3, ROTATION[header.version], 3 * REST[header.degree])
    total = header.count * sum(sizes)
    check_claim(total, len(data), f"SPZ of {header.count} splats")
    body = stream.decompress(stream.unconsumed_tail, total) if total else b""
    if len(body) < total:
        raise ValueError(f"cut short: {header.count} splats take {total} bytes, got {len(body)}")
    parts, start = [], 0
    for size in sizes:
        parts.append(np.frombuffer(body, np.uint8, header.count * size, start).reshape(header.count, size))
        start += header.count * size
    return turned(unpacked(header, parts), "y_up", back=True)


def read_header(start: bytes) -> Header:
    """The header of versions 1 to 3."""
    if len(start) < HEADER.size:
        raise ValueError("cut short: no SPZ header of 16 bytes")
    mark, version, count, degree, fraction, _flags, _reserved = HEADER.unpack_from(start)
    if mark != NGSP:
        raise ValueError("not SPZ: it does not hold 'NGSP'")
    if degree not in REST or fraction > 24 or not count:
        raise ValueError(f"SPZ of {count} splats, harmonics of degree {degree}, {fraction} bits; not read")
    return Header(version=version, count=count, degree=degree, fraction=fraction)


def unpacked(header: Header, parts: list[np.ndarray]) -> Gaussians:
    """Splats in the file's axes, from the bytes [N, size] of each property."""
    positions, alphas, colors, scales, quats, rest = parts
    return Gaussians(
        means=fixed_point(positions, header.fraction),
        scales=(as_floats(scales) / 16 - 10).exp(),
        quats=three_bytes(quats) if header.version == 2 else smallest_three(quats),
        opacities=as_floats(alphas)[:, 0] / 255,
        colors=(as_floats(colors) / 255 - 0.5) * COLOR + 0.5,
        sh_rest=((as_floats(rest) - 128) / 128).unflatten(1, (-1, 3)) if rest.shape[1] else None,
    )


def as_floats(values: np.ndarray) -> Tensor:
    """Bytes as float32."""
    return torch.from_numpy(values.astype(np.float32))


def fixed_point(values: np.ndarray, fraction: int) -> Tensor:
    """Positions [N, 3] of signed numbers of 24 bits, little-endian [N, 9]."""
    wide = np.zeros((len(values), 3, 4), np.uint8)
    wide[:, :, 1:] = values.reshape(-1, 3, 3)  # in the upper three bytes, so that a shift carries the sign
    numbers = wide.view("<i4")[:, :, 0] >> 8
    return torch.from_numpy(numbers.astype(np.float32)) / float(1 << fraction)


def three_bytes(values: np.ndarray) -> Tensor:
    """Quaternions wxyz [N, 4] of version 2: x, y, z as bytes; w is what is left, and not negative."""
    xyz = as_floats(values) / 127.5 - 1
    w = (1 - xyz.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    return torch.nn.functional.normalize(torch.cat((w, xyz), 1), dim=1)


def smallest_three(values: np.ndarray) -> Tensor:
    """Quaternions wxyz [N, 4] of version 3: two bits name the largest of x, y, z, w, ten each hold the others."""
    words = torch.from_numpy(np.ascontiguousarray(values).view("<u4")[:, 0].astype(np.int64))
    fields = torch.stack([words >> shift & 1023 for shift in (20, 10, 0)], 1)
    magnitude = (fields & 511) * (2**-0.5 / 511)
    others = torch.where(fields >> 9 > 0, -magnitude, magnitude).float()
    largest = (1 - others.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    order = torch.tensor([[2, 3, 0, 1], [2, 0, 3, 1], [2, 0, 1, 3], [3, 0, 1, 2]])  # of w x y z; 3 is the largest
    return torch.cat((others, largest), 1).gather(1, order[words >> 30 & 3])


def read_newer(data: bytes) -> Gaussians:
    """Splats of version 4, in the file's axes, through gaussforge; what it claims is looked at first."""
    if len(data) < NEWER.size:
        raise ValueError("cut short: no SPZ header")
    _mark, version, count, degree, fraction, _flags, _streams = NEWER.unpack_from(data)
    if version != 4 or degree not in REST or fraction > 24 or not count:
        raise ValueError(f"SPZ of version {version} with {count} splats of degree {degree}; versions 2 to 4 are read")
    check_claim(count * (20 + 3 * REST[degree]), len(data), f"SPZ of {count} splats")
    return read_splats(read_elements(as_ply(data, "spz"), ("vertex",))["vertex"], "SPZ")

"""SPZ and SOG through gaussforge, an optional library: it writes both, and reads SPZ's newest version."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from ...splats.gaussians import Gaussians
from ...splats.harmonics import C0, band_of
from ..atomic import replacing

VERSIONS = (2, 3, 4)  # of SPZ
SPZ_REACH = 2048  # units: 24 bits a position, 12 of them behind the point


def library(module: str, package: str, what: str) -> ModuleType:
    """An optional library; ValueError with the command that installs it where it is not there."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} needs {package}, which is not installed; run: pip install {package}") from error


def write_forged(path: Path | str, splats: Gaussians, kind: str, version: int = 3) -> None:
    """Write prepared splats as "spz" or "sog"; ``version`` is SPZ's."""
    if version not in VERSIONS:
        raise ValueError(f"SPZ of version {version}; expected one of {', '.join(map(str, VERSIONS))}")
    farthest = float(splats.means.abs().max())
    if kind == "spz" and farthest >= SPZ_REACH:
        raise ValueError(f"{path}: SPZ holds positions below {SPZ_REACH}, got {farthest:.0f}; scale the scene down")
    forge = library("gaussforge", "gaussforge", f"writing .{kind}").GaussForge()
    chance = splats.opacities.clamp(1e-6, 1 - 1e-6)
    rest = splats.sh_rest
    content = {
        "numPoints": len(splats),
        "positions": packed(splats.means),
        "scales": packed(torch.log(splats.scales + 1e-8)),
        "rotations": packed(splats.quats),
        "alphas": packed(torch.log(chance / (1 - chance))),
        "colors": packed((splats.colors - 0.5) / C0),
        "sh": b"" if rest is None else packed(rest),
        "extras": {},
        "meta": {"shDegree": band_of(rest), "sourceFormat": "ply"},
    }
    found = forge.write(content, kind, spz_version=version)
    if "error" in found:
        raise ValueError(f"cannot write {path}: gaussforge says '{found['error']}'")
    with replacing(path) as temporary:
        temporary.write_bytes(found["data"])


def packed(values: torch.Tensor) -> bytes:
    """Numbers as float32, one after another."""
    return np.ascontiguousarray(values.numpy(), "<f4").tobytes()


def as_ply(data: bytes, kind: str) -> bytes:
    """The bytes of a PLY, in the file's axes, of whatever gaussforge reads; ValueError with what it says otherwise."""
    forge = library("gaussforge", "gaussforge", f"reading this .{kind}").GaussForge()
    found = forge.convert(data, kind, "ply")
    if "error" in found:
        raise ValueError(f"gaussforge cannot read it: '{found['error']}'")
    if not found["data"].startswith(b"ply"):
        raise ValueError("damaged: gaussforge finds no splats in it")
    return found["data"]

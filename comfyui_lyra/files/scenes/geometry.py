"""Our geometry file: one safetensors with pictures, depth, validity and cameras.

Tensors: ``frames`` [F, H, W, 3] and ``valid`` [F, H, W] as bytes, ``depth`` [F, H, W], ``c2w`` [F, 4, 4], ``K``
[F, 3, 3] as float32. The metadata holds ``format`` "lyra-geometry", ``version`` "1", ``name``, ``fps``, ``scale``, and
``metric`` "0" where lengths are relative.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...cameras.path import CameraTrajectory
from ...geometry.geometry import Geometry
from ...versions import pack_version
from ..atomic import replacing
from ..reading import reading

FORMAT = {"format": "lyra-geometry", "version": "1"}


def save_geometry(path: Path | str, geometry: Geometry) -> None:
    """Write a geometry; its pictures keep 256 levels a colour."""
    cameras = geometry.cameras
    tensors = {
        "frames": geometry.frames.clamp(0, 1).mul_(255).round_().to(torch.uint8),
        "depth": geometry.depth,
        "valid": geometry.valid.to(torch.uint8),
        "c2w": cameras.c2w,
        "K": cameras.K,
    }
    about = {"pack": pack_version(), "name": cameras.name, "fps": repr(cameras.fps), "scale": repr(geometry.scale)}
    about |= {} if geometry.metric else {"metric": "0"}
    with replacing(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, FORMAT | about)


def load_geometry(path: Path | str) -> Geometry:
    """Read a geometry."""
    with reading(path) as file:
        try:
            with safe_open(file, "pt") as tensors:
                about = tensors.metadata() or {}
                values = {key: tensors.get_tensor(key).clone() for key in tensors.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file, or cut short: {error}") from error
        for key, expected in FORMAT.items():
            if about.get(key) != expected:
                raise ValueError(f"expected {key} '{expected}' in the metadata, got {about.get(key)!r}")
        try:
            height, width = values["depth"].shape[1:]
            return Geometry(
                frames=values["frames"].float() / 255,
                depth=values["depth"],
                valid=values["valid"] > 0,
                cameras=CameraTrajectory(
                    c2w=values["c2w"], K=values["K"], height=height, width=width,
                    fps=float(about["fps"]), name=about["name"],
                ),
                scale=float(about["scale"]),
                metric=about.get("metric", "1") == "1",
            )  # fmt: skip
        except KeyError as error:
            raise ValueError(f"incomplete geometry: no {error}") from error

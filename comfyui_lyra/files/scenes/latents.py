"""Our latents file: one safetensors with the values, the cameras and what is known about them.

Tensors: ``values`` [V, C, T, h, w], and ``c2w.<view>`` [F, 4, 4], ``K.<view>`` [F, 3, 3]. The metadata holds
``format`` "lyra-latents", ``version`` "1" and ``about``, a JSON object with everything else.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...callbacks import part
from ...cameras.path import CameraTrajectory
from ...latents import MultiViewLatents, VideoLatents
from ...versions import pack_version
from ..atomic import replacing
from ..reading import parse_json, reading

FORMAT = {"format": "lyra-latents", "version": "1"}


@part("save latents")
def save_latents(path: Path | str, latents: MultiViewLatents) -> None:
    """Write latents with their cameras."""
    tensors = {"values": latents.latents.values.detach().cpu().contiguous()}
    for view, cameras in enumerate(latents.cameras):
        # copies, since paths of one set may share a tensor and safetensors refuses that
        tensors[f"c2w.{view}"] = cameras.c2w.detach().cpu().clone(memory_format=torch.contiguous_format)
        tensors[f"K.{view}"] = cameras.K.detach().cpu().clone(memory_format=torch.contiguous_format)
    about = {
        "space": latents.latents.space,
        "family": latents.family,
        "dynamic": latents.dynamic,
        "provenance": latents.provenance,
        "paths": [{"name": c.name, "fps": c.fps, "height": c.height, "width": c.width} for c in latents.cameras],
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, FORMAT | {"pack": pack_version(), "about": json.dumps(about)})


def load_latents(path: Path | str) -> MultiViewLatents:
    """Read latents with their cameras."""
    with reading(path) as file:
        try:
            with safe_open(file, "pt") as tensors:
                metadata = tensors.metadata() or {}
                # copies, since these are windows into the file, which somebody may want to replace
                values = {key: tensors.get_tensor(key).clone() for key in tensors.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file, or cut short: {error}") from error
        for key, expected in FORMAT.items():
            if metadata.get(key) != expected:
                raise ValueError(f"expected {key} '{expected}' in the metadata, got {metadata.get(key)!r}")
        try:
            about = parse_json(metadata["about"])
            cameras = tuple(
                CameraTrajectory(c2w=values[f"c2w.{view}"], K=values[f"K.{view}"], **path)
                for view, path in enumerate(about["paths"])
            )
            return MultiViewLatents(
                latents=VideoLatents(values=values["values"], space=about["space"]),
                cameras=cameras,
                family=about["family"],
                dynamic=about["dynamic"],
                provenance=about["provenance"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"incomplete latents: {error}") from error


def load_provenance(path: Path | str) -> dict[str, str]:
    """What a file's latents were made from, without reading them; empty where it does not say."""
    with reading(path) as file:
        try:
            with safe_open(file, "pt") as tensors:
                return dict(parse_json((tensors.metadata() or {})["about"])["provenance"])
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file, or cut short: {error}") from error
        except (KeyError, TypeError, ValueError):  # of something else, which load_latents will name
            return {}

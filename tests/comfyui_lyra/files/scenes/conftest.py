from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents


@pytest.fixture
def paths() -> tuple[CameraTrajectory, ...]:
    return camera_paths(replace(pinhole_camera(32, 16, 50), fps=12.0), PathSettings("six_paths", 17))[:2]


@pytest.fixture
def scenes(paths) -> tuple[MultiViewLatents, ...]:
    """Each path as a scene of its own: two chunks of 9 frames."""
    gen = torch.Generator().manual_seed(0)
    return tuple(
        MultiViewLatents(
            latents=VideoLatents(values=torch.randn(1, 16, 4, 2, 4, generator=gen)),
            cameras=(path,),
            family="mini",
            dynamic=True,
            provenance={"teacher": "a", "seed": "1"},
        )
        for path in paths
    )

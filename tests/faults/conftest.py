"""What files are made of here."""

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry

HEIGHT, WIDTH = 32, 48


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors: threads of several test runs on few cores would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def picture() -> Geometry:
    """One picture with depth: a wall two units away."""
    frames = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(3))
    depth = torch.full((1, HEIGHT, WIDTH), 2.0)
    return Geometry(frames=frames, depth=depth, valid=depth > 0, cameras=pinhole_camera(WIDTH, HEIGHT, 50), scale=2.5)


@pytest.fixture
def two_moves(picture) -> tuple[CameraTrajectory, ...]:
    """The first two of the six paths around the picture's camera."""
    return camera_paths(picture.cameras, PathSettings("six_paths", 9))[:2]

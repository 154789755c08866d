import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory
from scipy.spatial.transform import Rotation


def random_path(name: str, frames: int, seed: int, **changes) -> CameraTrajectory:
    rng = np.random.default_rng(seed)
    c2w = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    c2w[:, :3, :3] = Rotation.random(frames, rng=rng).as_matrix()
    c2w[:, :3, 3] = rng.normal(size=(frames, 3))
    K = torch.zeros(frames, 3, 3)
    K[:, 0, 0], K[:, 1, 1] = torch.from_numpy(rng.uniform(30, 40, (2, frames)).astype(np.float32))
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = 16.25, 7.75, 1
    size = {"height": 16, "width": 32, "fps": 24.0} | changes
    return CameraTrajectory(c2w=torch.from_numpy(c2w), K=K, name=name, **size)


@pytest.fixture
def two_paths() -> tuple[CameraTrajectory, ...]:
    """Twelve and three frames, in an order that is not the alphabet's."""
    return random_path("right", 12, seed=1), random_path("left", 3, seed=2)


@pytest.fixture
def looking_along_x() -> CameraTrajectory:
    """A camera at (1, 2, 3) of a world with z up, looking along +x: its right is -y, its down is -z."""
    c2w = torch.tensor([[[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1.0]]])
    K = torch.tensor([[[30, 0, 16], [0, 31, 8], [0, 0, 1.0]]])
    return CameraTrajectory(c2w=c2w, K=K, height=16, width=32, name="along_x")


@pytest.fixture
def same_path():
    """Check that two paths agree: poses to ``atol``, everything else exactly."""

    def check(found: CameraTrajectory, expected: CameraTrajectory, atol: float = 0.0) -> None:
        assert torch.allclose(found.c2w, expected.c2w, atol=atol, rtol=0)
        assert torch.equal(found.K, expected.K)
        for field in ("name", "height", "width", "fps"):
            assert getattr(found, field) == getattr(expected, field)

    return check

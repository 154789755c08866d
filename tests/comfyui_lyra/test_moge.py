import sys
from types import ModuleType

import pytest
import torch
from lyra_pack.comfyui_lyra.moge import Moge


@pytest.fixture
def package(monkeypatch):
    """The part of the moge package that is called; its model finds a slope below a sky."""

    class MoGeModel(torch.nn.Module):
        @classmethod
        def from_pretrained(cls, path: str):
            model = cls()
            model.path = path
            return model

        def infer(self, image):
            assert image.shape[0] == 3 and image.dtype == torch.float32
            height, width = image.shape[1:]
            depth = torch.linspace(8, 2, height)[:, None].expand(height, width)
            mask = depth < 6
            K = torch.tensor([[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]])
            return {"depth": torch.where(mask, depth, torch.inf), "mask": mask, "intrinsics": K, "points": None}

    modules = {name: ModuleType(name) for name in ("moge", "moge.model", "moge.model.v1")}
    modules["moge.model.v1"].MoGeModel = MoGeModel
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    return tmp_path / "model.pt"


def test_a_picture_gets_depth_camera_and_background(package, weights):
    found = Moge(weights).geometry(torch.rand(20, 30, 3))
    assert found.frames.shape == (1, 20, 30, 3) and found.center_depth == pytest.approx(1)
    assert found.depth[0, 0].isinf().all() and not found.valid[0, 0].any() and found.valid[0, -1].all()
    torch.testing.assert_close(found.cameras.K[0], torch.tensor([[27.0, 0, 15], [0, 24, 10], [0, 0, 1]]))
    assert found.depth[0, -1, 0] * found.scale == pytest.approx(2)


def test_depth_for_later_chunks_keeps_its_unit(package, weights):
    depth = Moge(weights).depth(torch.rand(20, 30, 3))
    assert depth.shape == (20, 30) and depth[-1, 0] == 2 and depth[0].isinf().all()


def test_what_is_missing_is_named(weights, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no MoGe weights at .*; download model.pt of Ruicheng/moge-vitl"):
        Moge(tmp_path / "none.pt")
    monkeypatch.setitem(sys.modules, "moge", None)
    with pytest.raises(ValueError, match="the moge package cannot be imported .*, or give a depth picture"):
        Moge(weights)

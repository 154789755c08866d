from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes.geometry import load_geometry, save_geometry
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry
from safetensors.torch import save_file


@pytest.fixture
def geometry(two_paths) -> Geometry:
    gen = torch.Generator().manual_seed(0)
    depth = torch.rand(3, 16, 32, generator=gen) + 1
    depth[:, 0], depth[:, 1] = torch.inf, 0
    return Geometry(
        frames=torch.rand(3, 16, 32, 3, generator=gen),
        depth=depth,
        valid=depth.isfinite() & (depth > 0),
        cameras=replace(two_paths[1], fps=12.5),
        scale=3.25,
    )


def test_a_geometry_is_read_back_with_pictures_of_256_levels(tmp_path, geometry, same_path):
    save_geometry(tmp_path / "g.safetensors", geometry)
    found = load_geometry(tmp_path / "g.safetensors")
    for name in ("depth", "valid"):
        assert torch.equal(getattr(found, name), getattr(geometry, name))
    assert (found.frames - geometry.frames).abs().max() <= 0.5 / 255 + 1e-6
    same_path(found.cameras, geometry.cameras)
    assert found.scale == 3.25 and found.metric
    save_geometry(tmp_path / "h.safetensors", replace(found, metric=False))
    again = load_geometry(tmp_path / "h.safetensors")
    assert torch.equal(again.frames, found.frames) and not again.metric


def test_other_files_are_refused(tmp_path, geometry):
    path = tmp_path / "g.safetensors"
    with pytest.raises(FileNotFoundError, match="g.safetensors: no such file"):
        load_geometry(path)
    save_geometry(path, geometry)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="g.safetensors: not a safetensors file, or cut short"):
        load_geometry(path)
    save_file({"depth": torch.zeros(1, 2, 2)}, path)
    with pytest.raises(ValueError, match="expected format 'lyra-geometry' in the metadata, got None"):
        load_geometry(path)
    save_file({"depth": torch.zeros(1, 2, 2)}, path, {"format": "lyra-geometry", "version": "1"})
    with pytest.raises(ValueError, match="incomplete geometry: no 'frames'"):
        load_geometry(path)

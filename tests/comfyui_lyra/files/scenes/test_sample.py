from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.media.depth import load_depth
from lyra_pack.comfyui_lyra.files.scenes.sample import load_sample, sample_files, save_sample, shipped_sample
from lyra_pack.comfyui_lyra.pipeline import picture_geometry
from lyra_pack.comfyui_lyra.training.world.draw_scenes import draw_scene, source_geometry
from lyra_pack.comfyui_lyra.weights import shipped


@pytest.mark.parametrize(("kind", "frames"), [("picture", 1), ("clip", 3)])
def test_a_sample_comes_back_with_its_sky_and_camera(tmp_path, kind, frames):
    geometry = source_geometry(draw_scene(900_003, moving=frames > 1), 32, 48, frames)
    assert not geometry.valid.all()
    assert save_sample(tmp_path, geometry) == sample_files(tmp_path, kind)
    found = load_sample(tmp_path, kind)
    assert (found.frames - geometry.frames).abs().mean() < (0.003 if kind == "picture" else 0.03)
    assert torch.equal(found.valid, geometry.valid) and found.depth[~found.valid].isinf().all()
    torch.testing.assert_close(found.depth, geometry.depth, rtol=1e-3, atol=0)
    assert torch.equal(found.cameras.K, geometry.cameras.K)
    assert torch.equal(found.cameras.c2w, torch.eye(4).expand(frames, 4, 4))


def test_a_sample_s_depth_is_read_as_any_other(tmp_path):
    geometry = source_geometry(draw_scene(900_003), 32, 48)
    _, depth = save_sample(tmp_path, geometry)
    torch.testing.assert_close(load_depth(depth), geometry.depth, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["picture", "clip"])
def test_the_shipped_pictures_lose_nothing_on_the_way_of_any_other(kind):
    shown, depth = sample_files(shipped.MINI, kind)
    found, own = picture_geometry(shown, depth, scale="as_is"), shipped_sample(kind)
    assert torch.equal(found.valid, own.valid) and torch.equal(found.depth, own.depth)
    assert found.depth.isinf().any()


def test_what_is_unknown_is_no_sky(tmp_path):
    geometry = source_geometry(draw_scene(900_003), 32, 48)
    depth, valid = geometry.depth.clone(), geometry.valid.clone()
    depth[0, 20], valid[0, 20] = 0, False
    save_sample(tmp_path, replace(geometry, depth=depth, valid=valid))
    found = load_sample(tmp_path, "picture")
    assert (found.depth[0, 20] == 0).all() and not found.valid[0, 20].any()
    assert torch.equal(found.depth.isinf(), depth.isinf()) and torch.equal(found.valid, valid)

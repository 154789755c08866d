import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.comfyui_lyra.files.scenes.sample import shipped_sample  # noqa: E402
from lyra_pack.nodes.geometry.sample import SampleScene  # noqa: E402
from lyra_pack.nodes.geometry.sources import GeometryFromDepth  # noqa: E402
from lyra_pack.nodes.latents.latents import LoadLatents  # noqa: E402


@pytest.mark.parametrize(("kind", "count"), [("picture", 1), ("clip", 17)])
def test_a_sample_is_given_whole(kind, count):
    geometry, frames, depth = SampleScene.execute(kind).args
    assert torch.equal(geometry.depth, shipped_sample(kind).depth)
    assert frames.shape == depth.shape == (count, 96, 160, 3)
    assert torch.equal(frames, geometry.frames)
    assert depth[~geometry.valid].isinf().all()
    assert torch.equal(depth[..., 1], geometry.depth)


def test_a_samples_depth_makes_geometry_again():
    geometry, frames, depth = SampleScene.execute("picture").args
    (again,) = GeometryFromDepth.execute(
        frames, depth, meaning="depth", near=1.0, far=10.0, fov=41.112, width=160, height=96, fit="crop", scale="as_is"
    ).args
    assert torch.equal(again.depth, geometry.depth) and torch.equal(again.valid, geometry.valid)
    torch.testing.assert_close(again.cameras.K, geometry.cameras.K, rtol=1e-4, atol=1e-3)


def test_the_shipped_latents_load_by_their_name(folders):
    assert LoadLatents.validate_inputs("mini/latents") is True
    (scene,) = LoadLatents.execute("mini/latents", "", False).args
    assert scene.latents.values.shape == (6, 16, 3, 12, 20) and not scene.dynamic and scene.family == "mini"
    assert [path.name for path in scene.cameras] == ["left", "right", "up", "zoom_out", "zoom_in", "clockwise"]
    assert "'mini/gone' is neither in" in LoadLatents.validate_inputs("mini/gone")
    assert "'training' is neither in" in LoadLatents.validate_inputs("training")

import pytest
import torch

pytest.importorskip("comfy_api")

from comfy_api.latest import Types  # noqa: E402
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets  # noqa: E402


def gaussians(count: int, bands: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(count)
    return Gaussians(
        means=torch.randn(count, 3, generator=g),
        scales=torch.rand(count, 3, generator=g) + 0.1,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=-1),
        opacities=torch.rand(count, generator=g),
        colors=torch.rand(count, 3, generator=g),
        sh_rest=torch.randn(count, bands, 3, generator=g) if bands else None,
    )


def same(a: Gaussians, b: Gaussians) -> bool:
    names = ("means", "scales", "quats", "opacities", "colors")
    return all(torch.allclose(getattr(a, n), getattr(b, n), atol=1e-6) for n in names)


@pytest.mark.parametrize("bands", [0, 3, 15])
def test_a_scene_survives_cores_splat(bands):
    scene = gaussians(7, bands)
    splat = sockets.to_splat([scene])
    assert isinstance(splat, Types.SPLAT)
    assert splat.counts is None
    assert splat.sh.shape == (1, 7, 1 + bands, 3)
    (back,) = sockets.from_splat(splat)
    assert same(back, scene)
    assert torch.equal(back.sh_rest, scene.sh_rest) if bands else back.sh_rest is None


def test_scenes_of_different_length_and_bands_share_a_padded_batch():
    scenes = [gaussians(5), gaussians(3, bands=3), gaussians(4, bands=8)]
    splat = sockets.to_splat(scenes)
    assert splat.counts.tolist() == [5, 3, 4]
    assert splat.positions.shape == (3, 5, 3)
    assert splat.opacities[1, 3:].abs().sum() == 0  # what core must not see is transparent
    back = sockets.from_splat(splat)
    assert [len(scene) for scene in back] == [5, 3, 4]
    assert all(same(a, b) for a, b in zip(back, scenes, strict=True))
    assert torch.equal(back[1].sh_rest[:, :3], scenes[1].sh_rest)
    assert back[1].sh_rest[:, 3:].abs().sum() == 0


def test_bullet_times_travel_with_their_splats():
    splat = sockets.to_splat([gaussians(3), gaussians(2)], (8, 0))
    assert isinstance(splat, Types.SPLAT) and sockets.times_of(splat) == (8, 0)
    assert sockets.times_of(splat, "4, 2") == (4, 2)  # what a person writes counts
    plain = Types.SPLAT(*(getattr(splat, name) for name in ("positions", "scales", "rotations", "opacities", "sh")))
    assert sockets.times_of(plain) == () == sockets.times_of(sockets.to_splat([gaussians(2)]))
    splat.positions, splat.counts = splat.positions[:1], splat.counts[:1]  # as a node of others may cut it
    assert sockets.times_of(splat) == ()
    with pytest.raises(ValueError, match="1 sets of splats for the bullet times"):
        sockets.to_splat([gaussians(2)], (8, 0))


def test_our_colour_is_cores_colour():
    dc = torch.tensor([[[[1.0, -0.5, 0.0]]]])
    splat = Types.SPLAT(
        torch.zeros(1, 1, 3), torch.ones(1, 1, 3), torch.tensor([[[2.0, 0, 0, 0]]]), torch.ones(1, 1, 1), dc
    )
    (scene,) = sockets.from_splat(splat)
    assert torch.allclose(scene.colors, torch.tensor([[0.78209479, 0.3589526, 0.5]]))
    assert torch.equal(scene.quats, torch.tensor([[1.0, 0, 0, 0]]))


def test_broken_splats_are_named():
    splat = sockets.to_splat([gaussians(3)])
    splat.rotations[0, 1] = 0
    with pytest.raises(ValueError, match="quaternion of length zero"):
        sockets.from_splat(splat)
    splat.positions[0, 2, 0] = float("nan")
    with pytest.raises(ValueError, match="means: 1 of 3 splats hold NaN"):
        sockets.from_splat(splat)


def test_several_bullet_times_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="2 bullet times and the node takes one: choose one with Select Bullet Time"):
        sockets.single(sockets.to_splat([gaussians(2), gaussians(2)]), "choose one with Select Bullet Time")


def test_pictures_are_clamped_and_depth_is_not():
    assert sockets.to_image(torch.tensor([[[[-1.0, 0.5, 3.0]]]])).tolist() == [[[[0, 0.5, 1]]]]
    depth = sockets.to_depth_image(torch.tensor([[[0.0, 7.5]]]))
    assert depth.shape == (1, 1, 2, 3)
    assert depth[0, 0, 1].tolist() == [7.5] * 3


def test_colours_are_hexadecimal():
    assert sockets.rgb("#ff8000") == pytest.approx((1, 128 / 255, 0))
    for wrong in ("white", "#fff", "#ff80000"):
        with pytest.raises(ValueError, match="not of the form #RRGGBB"):
            sockets.rgb(wrong)

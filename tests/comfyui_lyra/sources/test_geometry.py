import logging
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera, pinhole_K
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry
from lyra_pack.comfyui_lyra.sources.geometry import depth_of_size, from_da3, from_depth, from_moge

HEIGHT, WIDTH = 36, 64


def frames(count: int = 1) -> torch.Tensor:
    return torch.rand(count, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))


def ramp(count: int = 1) -> torch.Tensor:
    """Depth 2 .. 4 from left to right."""
    return torch.linspace(2, 4, WIDTH).expand(count, HEIGHT, WIDTH).clone()


def moge(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    depth, mask = ramp(), torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, :10] = False
    intrinsics = torch.tensor([[[0.9, 0, 0.5], [0, 1.6, 0.5], [0, 0, 1]]])
    return {"depth": depth.where(mask, torch.inf), "mask": mask, "intrinsics": intrinsics} | changes


def test_moge_intrinsics_belong_to_a_picture_of_size_one():
    found = from_moge(frames(), moge(), "as_is")
    expected = [[0.9 * WIDTH, 0, WIDTH / 2], [0, 1.6 * HEIGHT, HEIGHT / 2], [0, 0, 1]]
    assert torch.allclose(found.cameras.K[0], torch.tensor(expected))
    assert torch.equal(found.cameras.c2w[0], torch.eye(4))
    assert found.scale == 1
    assert torch.equal(found.depth[:, 10:], ramp()[:, 10:])


@pytest.mark.parametrize("masked", [torch.inf, 3.0])
def test_what_moge_masks_is_background_whether_or_not_it_has_depth(masked):
    known = moge()
    found = from_moge(frames(), moge(depth=known["depth"].nan_to_num(posinf=masked)))
    assert found.depth[:, :10].isinf().all()
    assert torch.equal(found.valid, known["mask"])
    assert found.scale == pytest.approx(3, rel=1e-3)
    assert found.center_depth == pytest.approx(1)


def test_moge_without_intrinsics_or_with_several_frames_is_refused():
    panorama = moge()
    del panorama["intrinsics"]
    with pytest.raises(ValueError, match="panorama"):
        from_moge(frames(), panorama)
    with pytest.raises(ValueError, match="MoGe gives no camera poses, so 2 frames"):
        from_moge(frames(2), moge(depth=ramp(2)))
    with pytest.raises(ValueError, match="compute the depth from these very pictures"):
        from_moge(frames()[:, ::2], moge())


def da3(count: int = 3, model_width: int = 56, model_height: int = 28) -> dict[str, torch.Tensor]:
    """Multiview: K of the picture that the model saw, its camera going right."""
    K = torch.tensor([[50.0, 0, model_width / 2], [0, 40.0, model_height / 2], [0, 0, 1]])
    w2c = torch.eye(4)[:3].repeat(1, count, 1, 1)
    w2c[0, :, 0, 3] = -0.03 * torch.arange(count)
    return {"depth": ramp(count), "extrinsics": w2c, "intrinsics": K.repeat(1, count, 1, 1)}


@pytest.mark.parametrize("size", [(56, 28), (WIDTH, HEIGHT)])
def test_depth_anything_intrinsics_are_brought_to_the_pictures_size(size):
    found = from_da3(frames(3), da3(3, *size), scale="as_is")
    sx, sy = WIDTH / size[0], HEIGHT / size[1]
    expected = torch.tensor([[50 * sx, 0, WIDTH / 2], [0, 40 * sy, HEIGHT / 2], [0, 0, 1]])
    assert torch.allclose(found.cameras.K, expected.expand(3, 3, 3))
    assert torch.allclose(found.cameras.c2w[:, 0, 3], 0.03 * torch.arange(3))  # w2c came, c2w is kept
    four = da3(3, *size)
    four["extrinsics"] = torch.cat([four["extrinsics"], torch.eye(4)[3].expand(1, 3, 1, 4)], 2)
    assert torch.equal(from_da3(frames(3), four, scale="as_is").cameras.c2w, found.cameras.c2w)


def test_depth_anything_sky_is_background():
    sky = torch.zeros(1, HEIGHT, WIDTH)
    sky[:, :4] = 0.7
    found = from_da3(frames(), {"depth": ramp(), "sky": sky}, fov=50)
    assert found.depth[:, :4].isinf().all()
    assert not found.valid[:, :4].any()
    assert found.valid[:, 4:].all()
    assert torch.equal(found.cameras.K[0], pinhole_K(WIDTH, HEIGHT, 50))


def test_depth_anything_without_cameras_is_refused():
    silent = da3(2)
    silent["intrinsics"] = torch.eye(3).repeat(1, 2, 1, 1)
    lost = da3(2)
    lost["extrinsics"][0, 1] = torch.nan
    for known, count, message in (
        (silent, 2, "every K is the identity"),
        (lost, 2, "NaN poses"),
        ({"depth": ramp(2)}, 2, "mono mode gives no poses for 2 frames"),
        ({"depth": ramp()}, 1, "set fov"),
    ):
        with pytest.raises(ValueError, match=message):
            from_da3(frames(count), known)


def test_depth_pictures_mean_what_is_said():
    depth = ramp()
    depth[:, 0] = torch.tensor([torch.nan, -1, 0, 0]).repeat(WIDTH // 4)
    depth[:, 1] = torch.tensor([torch.inf, 1e10]).repeat(WIDTH // 2)
    found = from_depth(frames(), depth, fov=40, scale="as_is")
    assert torch.equal(found.depth[:, 2:], depth[:, 2:])
    assert found.metric
    assert not found.valid[:, :2].any()
    assert (found.depth[:, 0] == 0).all()  # nothing known, so nothing to draw
    assert found.depth[:, 1].isinf().all()  # background
    disparity = 1 / ramp()
    disparity[:, 0] = 0
    found = from_depth(frames(), disparity, "disparity", fov=40, scale="as_is")
    assert torch.allclose(found.depth[:, 1:], ramp()[:, 1:])
    assert found.depth[:, 0].isinf().all()
    assert not found.metric
    white_is_near = torch.linspace(0, 1, WIDTH).expand(1, HEIGHT, WIDTH)
    found = from_depth(frames(), white_is_near, "near-far", near=2.0, far=10.0, fov=40, scale="as_is")
    assert found.depth[0, 0, [0, -1]].tolist() == pytest.approx([10, 2])
    assert not found.metric
    assert torch.allclose((1 / found.depth[0, 0]).diff(), torch.tensor(0.4 / (WIDTH - 1)), atol=1e-6)


def test_a_clip_of_depth_pictures_takes_cameras():
    camera = pinhole_camera(2 * WIDTH, 2 * HEIGHT, 40)
    cameras = replace(camera, c2w=camera.c2w.repeat(3, 1, 1), K=camera.K.repeat(3, 1, 1))
    found = from_depth(frames(3), ramp(3), cameras=cameras)
    assert torch.allclose(found.cameras.K, pinhole_K(WIDTH, HEIGHT, 40).expand(3, 3, 3))
    with pytest.raises(ValueError, match="3 cameras of 128x72 for 2 pictures of 64x36"):
        from_depth(frames(2), ramp(2), cameras=cameras)
    with pytest.raises(ValueError, match="so 2 frames cannot be placed; use one picture, a ViPE folder"):
        from_depth(frames(2), ramp(2), fov=40)


def test_a_clip_of_a_camera_that_stood_still_takes_its_view_angle():
    found = from_depth(frames(3), ramp(3), fov=40, still=True, fps=12.0)
    assert torch.equal(found.cameras.K, pinhole_K(WIDTH, HEIGHT, 40).repeat(3, 1, 1))
    assert torch.equal(found.cameras.c2w, torch.eye(4).repeat(3, 1, 1)) and found.cameras.fps == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"picture": (ramp() * 60).round() / 255, "fov": 40.0}, "8-bit levels from 0 to 1, not lengths; use near-far"),
        ({"picture": ramp() / 4, "meaning": "near-far", "near": 2.0, "far": 1.0, "fov": 40.0}, "0 < near < far"),
        ({"picture": ramp(), "meaning": "metres", "fov": 40.0}, "'metres' is none of depth, disparity, near-far"),
        ({"picture": ramp()}, "set fov"),
        ({"picture": ramp()[:, 1:], "fov": 40.0}, "expected"),
        ({"picture": ramp() * 0, "fov": 40.0}, "no pixel with a valid depth"),
    ],
)
def test_unusable_depth_pictures_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_depth(frames(), **arguments)


def test_a_smaller_depth_picture_is_enlarged_and_one_of_another_shape_refused():
    small = ramp()[:, ::2, ::2]
    found = depth_of_size(small, HEIGHT, WIDTH, "it")
    assert torch.equal(found[:, ::2, ::2], small) and torch.equal(found[:, 1::2, 1::2], small)
    assert depth_of_size(found, HEIGHT, WIDTH, "it") is found
    with pytest.raises(ValueError, match="depth.exr: depth of 32x36 for a picture of 64x36; make the depth from this"):
        depth_of_size(ramp()[:, :, ::2], HEIGHT, WIDTH, "depth.exr")


INFINITE, UNKNOWN = 7, 9  # columns


def spoiled(values: torch.Tensor) -> torch.Tensor:
    """Depth that is infinite in one column and unknown in the next but one."""
    values = values.clone()
    values[..., INFINITE] = torch.inf
    values[..., UNKNOWN] = torch.tensor([torch.nan, 0, -2]).repeat(HEIGHT // 3)
    return values


def of_moge() -> Geometry:
    known = moge(depth=spoiled(ramp()))
    del known["mask"]
    return from_moge(frames(), known)


def of_disparity() -> Geometry:
    values = 1 / ramp()
    values[..., INFINITE], values[..., UNKNOWN] = 0, torch.nan
    return from_depth(frames(), values, "disparity", fov=40)


@pytest.mark.parametrize(
    "source",
    [
        of_moge,
        of_disparity,
        lambda: from_da3(frames(3), da3() | {"depth": spoiled(ramp(3))}),
        lambda: from_da3(frames(), {"depth": spoiled(ramp())}, fov=50),
        lambda: from_depth(frames(), spoiled(ramp()), fov=40),
        lambda: from_depth(frames(2), spoiled(ramp(2)), fov=40, still=True),
    ],
)
def test_in_every_source_infinity_is_background_and_nan_and_0_are_unknown(source):
    found = source()
    assert found.depth[..., INFINITE].isinf().all() and (found.depth[..., UNKNOWN] == 0).all()
    rest = torch.ones(WIDTH, dtype=torch.bool)
    rest[[INFINITE, UNKNOWN]] = False
    assert found.valid[..., rest].all() and not found.valid[..., ~rest].any()


def test_lengths_are_not_taken_for_levels_nor_levels_for_lengths(caplog):
    with pytest.raises(ValueError, match="near-far pictures hold levels from 0 to 1, these run from 2 to 4"):
        from_depth(frames(), ramp(), "near-far", near=1.0, far=10.0, fov=40)
    numbers = (ramp() * 1000).round()
    with caplog.at_level(logging.WARNING, "lyra"):
        from_depth(frames(), numbers / 65535, fov=40)
        assert "16-bit levels, read as numbers / 65535 of an unknown unit" in caplog.text
        caplog.clear()
        from_depth(frames(), numbers / 1000, fov=40, unit="m")
        from_depth(frames(), numbers / 65535, "near-far", near=1.0, far=10.0, fov=40)
        assert not caplog.text


def test_a_number_of_depth_pictures_is_that_of_the_frames():
    with pytest.raises(ValueError, match="the depth picture: 2 depth pictures for 3 frames; expected one a frame"):
        from_depth(frames(3), ramp(2), fov=40, still=True)


@pytest.mark.parametrize(("size", "is_named"), [((512, 1024), True), ((544, 1024), False), ((64, 128), False)])
def test_a_panorama_is_named(caplog, size, is_named):
    with caplog.at_level(logging.WARNING, "lyra"):
        from_depth(torch.zeros(1, *size, 3), torch.full((1, *size), 2.0), fov=40)
    assert ("as 360-degree panoramas are" in caplog.text) == is_named

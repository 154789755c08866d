import logging
import math
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry, pixel_rays, point_cloud, unproject

HEIGHT, WIDTH = 6, 8


def clip(frames: int = 1, step: float = 0.0, turn: float = 0.0) -> Geometry:
    """Frame i is a wall at depth 4 + i seen from a camera ``i * step`` to the right, turned by ``i * turn`` radians."""
    camera = pinhole_camera(WIDTH, HEIGHT, 60)
    c2w = camera.c2w.repeat(frames, 1, 1)
    for i in range(frames):
        cosine, sine = math.cos(i * turn), math.sin(i * turn)
        c2w[i, :3, :3] = torch.tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        c2w[i, 0, 3] = 5 + i * step
    return Geometry(
        frames=torch.zeros(frames, HEIGHT, WIDTH, 3),
        depth=(4 + torch.arange(frames))[:, None, None].expand(-1, HEIGHT, WIDTH).float(),
        valid=torch.ones(frames, HEIGHT, WIDTH, dtype=torch.bool),
        cameras=replace(camera, c2w=c2w, K=camera.K.repeat(frames, 1, 1)),
    )


def test_points_project_back_onto_their_pixels():
    g = torch.Generator().manual_seed(0)
    K = torch.tensor([[[9.0, 0, 3.5], [0, 7, 2], [0, 0, 1]]])
    c2w = torch.linalg.qr(torch.randn(1, 3, 3, generator=g)).Q
    c2w = torch.cat([torch.cat([c2w, torch.randn(1, 3, 1, generator=g)], 2), torch.tensor([[[0.0, 0, 0, 1]]])], 1)
    depth = 1 + torch.rand(1, HEIGHT, WIDTH, generator=g)
    points = unproject(depth, K, c2w)
    camera = (torch.linalg.inv(c2w)[0, :3] @ torch.nn.functional.pad(points[0], (0, 1), value=1)[..., None])[..., 0]
    pixels = (K[0] @ camera[..., None])[..., 0]
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    assert torch.allclose(pixels[..., 2], depth[0], atol=1e-5)
    assert torch.allclose(pixels[..., 0] / pixels[..., 2], u.float(), atol=1e-4)
    assert torch.allclose(pixels[..., 1] / pixels[..., 2], v.float(), atol=1e-4)
    assert (pixel_rays(K, HEIGHT, WIDTH)[..., 2] == 1).all()


def test_pixels_without_depth_lie_at_the_origin():
    depth = torch.tensor([[[1.0, 0.0, -1.0]]])
    c2w = torch.eye(4)[None].clone()
    c2w[:, 2, 3] = 7
    points = unproject(depth, torch.eye(3)[None], c2w)
    assert points[0, 0, :, 2].tolist() == [8, 0, 0]


def test_auto_scale_divides_depth_and_translations_by_the_median_of_frame_0():
    geometry = clip(3, step=0.4)
    geometry.depth[0, 0, :] = torch.inf  # background
    geometry.valid[0, 0, :] = False
    geometry.depth[0, 1, :] = 1e9
    geometry.valid[0, 1, :] = False
    found = geometry.normalized("auto")
    assert found.scale == 4
    assert found.depth[:, 3, 3].tolist() == [1, 1.25, 1.5]
    assert found.depth[0, 0].isinf().all()
    assert torch.allclose(found.cameras.c2w[:, 0, 3], torch.tensor([0, 0.1, 0.2]), atol=1e-6)
    assert torch.equal(found.cameras.c2w[0], torch.eye(4))
    assert found.normalized("auto").scale == pytest.approx(4)
    points = [unproject(g.depth[1:], g.cameras.K[1:], g.cameras.c2w[1:]) for g in (geometry, found)]
    assert torch.allclose(points[0] - torch.tensor([5.0, 0, 0]), points[1] * found.scale, atol=1e-4)


def test_as_is_keeps_the_unit_and_still_moves_the_world():
    found = clip(2, step=0.4).normalized("as_is")
    assert found.scale == 1
    assert found.depth[1, 0, 0] == 5
    assert torch.allclose(found.cameras.c2w[1, :3, 3], torch.tensor([0.4, 0, 0]), atol=1e-6)


def test_the_median_of_an_even_number_lies_between_the_middle_two():
    geometry = clip()
    geometry.depth.copy_(torch.arange(1.0, HEIGHT * WIDTH + 1).view(1, HEIGHT, WIDTH))
    assert geometry.center_depth == (HEIGHT * WIDTH + 1) / 2


@pytest.mark.parametrize(
    ("step", "turn", "warns"), [(0.0, 0.0, False), (0.02, 0.002, False), (0.2, 0.0, True), (0, 0.1, True)]
)
def test_a_moving_source_camera_is_warned_about(step, turn, warns, caplog):
    with caplog.at_level(logging.WARNING, "lyra"):
        clip(3, step, turn).normalized()
    assert ("trained on clips from a still camera" in caplog.text) == warns


def test_no_valid_depth_is_an_error():
    geometry = clip()
    with pytest.raises(ValueError, match="frame 0 has no pixel with a valid depth"):
        replace(geometry, valid=torch.zeros_like(geometry.valid)).normalized()
    with pytest.raises(ValueError, match="scale 'metres' is neither"):
        geometry.normalized("metres")


def test_frames_and_cameras_must_match():
    geometry = clip(2)
    with pytest.raises(ValueError, match="2 frames of 8x6, but 1 camera of"):
        replace(geometry, cameras=geometry.cameras[:1])
    with pytest.raises(ValueError, match="valid: expected bool"):
        replace(geometry, valid=geometry.depth)
    assert isinstance(geometry[:1].cameras, CameraTrajectory)
    assert len(geometry[:1].cameras) == len(geometry[:1].frames) == 1


def test_the_point_cloud_is_what_the_first_frame_measured_in_the_world():
    geometry = clip(2, step=0.4)
    geometry.valid[0, 0] = False
    geometry.depth[0, 1] = torch.inf
    geometry.frames[0, 2] = torch.tensor([1.0, 0.5, 0.25])
    points, colors = point_cloud(geometry)
    assert points.shape == colors.shape == ((HEIGHT - 2) * WIDTH, 3)
    assert (points[:, 2] == 4).all()
    assert points[:, 0].mean() == pytest.approx(5, abs=0.5)  # its camera stands there
    assert colors[0].tolist() == [1.0, 0.5, 0.25] and (colors[WIDTH:] == 0).all()
    some, their_colors = point_cloud(geometry, most=HEIGHT * WIDTH // 4)
    assert 0 < len(some) == len(their_colors) <= HEIGHT * WIDTH // 4
    assert (torch.cdist(some, points).amin(1) < 1e-6).all()  # every second point of every second row

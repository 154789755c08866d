from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.gen3c.cache import cache3d
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import (
    RELIABLE,
    Cache3D,
    PointBuffer,
    chunks,
    edge_range,
    reliability,
    remember,
)
from lyra_pack.comfyui_lyra.gen3c.cache.warp import PAIR
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry

HEIGHT, WIDTH = 24, 32


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=2e-5 * max(1, expected.abs().max().item()))


def check(golden, name: str, cache: Cache3D, w2c: torch.Tensor, K: torch.Tensor, fg: bool) -> None:
    """Compare what one buffer shows in cameras with the golden's pixels and masks [1, F, 1, ...]."""
    warped = cache.warp(w2c, K, cache.meshes() if fg else None)
    pixels, masks = golden[f"{name}pixels"][0, :, 0], golden[f"{name}masks"][0, :, 0]
    same = warped.mask == masks
    assert (~same).float().mean() <= (0.005 if fg else 0)
    assert close(warped.image * same, pixels * same)


def picture_buffer(golden) -> PointBuffer:
    assert golden.meta["warp_chunk_size"] == PAIR
    assert golden.meta["frame_buffer_max"] == cache3d.BUFFERS
    threshold = golden.meta["filter_points_threshold"]
    K, c2w = golden["K"][None], torch.eye(4)[None]
    return remember(golden["image"], golden["depth"][:, 0], K, c2w, threshold=threshold)


@pytest.mark.golden("teacher/cache")
def test_a_picture_is_remembered_and_drawn_as_in_the_reference(golden):
    buffer = picture_buffer(golden)
    assert close(buffer.points, golden["static.points"][0, :, 0, 0])
    assert torch.equal(buffer.mask, golden["static.input_mask"][0, :, 0, 0])
    assert torch.equal(buffer.boundary.float(), golden["static.boundary_mask"][0, :, 0, 0, 0])
    targets = golden["target_w2c"]
    for name, fg in (("static.", False), ("static.fg.", True)):
        check(golden, name, Cache3D(buffers=(buffer,)), targets, golden["K"].expand(len(targets), 3, 3), fg)


@pytest.mark.golden("teacher/cache")
def test_two_pictures_are_drawn_as_in_the_reference(golden):
    first, w2c, K = picture_buffer(golden), golden["update.w2c"][None], golden["K"][None]
    seen = Cache3D(buffers=(first,)).warp(w2c, K)
    assert close(seen.depth, golden["update.target_depth"][0, :, 0])
    assert torch.equal(seen.mask, golden["update.target_mask"][0, :, 0])
    points, mask = golden["update.points_after"][0, :, :, 0], golden["update.mask_after"][0, :, :, 0]
    assert close(first.points, points[:, 1])
    newest = replace(first, image=golden["update.image"], points=points[:, 0], mask=mask[:, 0])
    targets = golden["target_w2c"]
    warped = Cache3D(buffers=(newest, first)).warp(targets, K.expand(len(targets), 3, 3))
    assert torch.equal(warped.mask.unflatten(0, (-1, 2)), golden["update.masks"][0])
    seed, strength = golden.meta["generator_seed"], golden.meta["update_noise_aug_strength"]
    noise = golden[f"update.noise_seed{seed}"][0]
    assert torch.equal(torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed)), noise)
    noisy = warped.image.unflatten(0, (-1, 2)) + noise * strength * torch.tensor([1.0, 0.0])[:, None, None, None]
    assert close(noisy, golden[f"update.pixels_noise{strength}"][0])


@pytest.mark.golden("teacher/cache")
def test_a_clip_is_drawn_as_in_the_reference(golden):
    video, depth, mask = golden["dyn.image"], golden["dyn.depth"][:, 0], golden["dyn.mask"][:, 0] > 0
    K, c2w = golden["dyn.K"], torch.linalg.inv(golden["dyn.w2c"])
    buffer = remember(video, depth, K, c2w, mask, golden.meta["filter_points_threshold"])
    assert close(buffer.points, golden["dyn.points"][0, :, 0, 0])
    assert torch.equal(buffer.mask, golden["dyn.input_mask"][0, :, 0, 0])
    for name, fg in (("dyn.", False), ("dyn.fg.", True)):
        check(golden, name, Cache3D(buffers=(buffer,)), golden["dyn.target_w2c"], K, fg)
    height, width = depth.shape[1:]
    geometry = Geometry(
        frames=video.movedim(1, -1) / 2 + 0.5,
        depth=depth,
        valid=mask,
        cameras=CameraTrajectory(c2w=c2w, K=K, height=height, width=width),
    )
    everywhere = replace(geometry, valid=torch.ones_like(mask))
    assert everywhere.center_depth == pytest.approx(golden["dyn.center_depth_median_frame0"].item())
    threshold = golden.meta["filter_points_threshold"]
    assert torch.equal(Cache3D.of(geometry, threshold).buffers[0].mask, golden["dyn.input_mask"][0, :, 0, 0])


def scene(frames: int = 1, seed: int = 0) -> Geometry:
    """A step from depth 1 to 2 with a background above it."""
    depth = torch.ones(frames, HEIGHT, WIDTH)
    depth[:, :, WIDTH // 2 :] = 2
    depth[:, :6] = torch.inf
    camera = pinhole_camera(WIDTH, HEIGHT, 50)
    return Geometry(
        frames=torch.rand(frames, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(seed)),
        depth=depth,
        valid=depth.isfinite(),
        cameras=replace(camera, c2w=camera.c2w.repeat(frames, 1, 1), K=camera.K.repeat(frames, 1, 1)),
    )


def sideways(frames: int) -> CameraTrajectory:
    path = pinhole_camera(WIDTH, HEIGHT, 50)
    c2w = path.c2w.repeat(frames, 1, 1)
    c2w[:, 0, 3] = torch.arange(frames) * 0.05
    return replace(path, c2w=c2w, K=path.K.repeat(frames, 1, 1))


def test_depth_edges_are_not_reliable_and_picture_borders_less():
    assert [edge_range(width) for width in (1920, 1280, 320, 64)] == [RELIABLE, RELIABLE, 4 * RELIABLE, 0.5]
    found = reliability(scene().depth.nan_to_num(100, 100))
    edge = WIDTH // 2
    assert not found[0, 12, edge - 2 : edge + 2].any()
    assert found[0, 12, [2, edge - 3, edge + 2]].all()
    slope = torch.linspace(1, 1.4, WIDTH).expand(1, HEIGHT, WIDTH)  # 5 % in 5 pixels, against a mean with zeros
    assert reliability(slope, 0.05)[0, 12, WIDTH // 2]
    assert not reliability(slope, 0.05)[0, 0, WIDTH // 2]
    assert not reliability(torch.zeros(1, 9, 9)).any()


def test_background_is_drawn_far_away_and_holes_are_not_drawn():
    geometry = scene()
    geometry.valid[:, 18:] = False
    buffer = Cache3D.of(geometry).buffers[0]
    assert (buffer.points[0, :4, :, 2] == cache3d.FARTHEST).all()
    assert buffer.mask[0, 0, :4].all()
    assert not buffer.mask[0, 0, 18:].any()


def test_a_clip_shows_each_frame_at_its_own_time_and_its_chunks_fit():
    geometry = scene(frames=5)
    cache, path = Cache3D.of(geometry), sideways(5)
    whole = cache.render(path, foreground_masking=True)
    assert cache.is_dynamic
    for i in range(5):
        alone = Cache3D.of(geometry[i : i + 1]).render(path[i : i + 1], foreground_masking=True)
        assert torch.allclose(whole.pixels[i], alone.pixels[0], atol=1e-4)
    part = cache[2:4].render(path[2:4])
    assert torch.equal(part.pixels, whole.pixels[2:4])
    with pytest.raises(ValueError, match="4 cameras for a clip of 5 frames"):
        cache.render(path[:4])


def test_batches_do_not_change_what_is_drawn(monkeypatch):
    cache = Cache3D.of(scene())
    two, done = Cache3D(buffers=(Cache3D.of(scene(seed=1)).buffers[0], *cache.buffers)), []
    for shown in (cache, two):
        monkeypatch.undo()
        whole = shown.render(sideways(7))
        monkeypatch.setattr(cache3d, "BATCH_BYTES", 1)
        parts = shown.render(sideways(7), on_step=lambda *step: done.append(step))
        assert torch.equal(parts.pixels, whole.pixels)
        assert torch.equal(parts.masks, whole.masks)
    assert done[:4] == [(2, 7), (4, 7), (6, 7), (7, 7)]


def test_cameras_of_another_size_are_refused():
    with pytest.raises(ValueError, match="cameras of 64x48 for pictures of 32x24"):
        Cache3D.of(scene()).render(pinhole_camera(64, 48, 50))


def test_new_pictures_come_first_and_the_first_of_all_stays():
    ramp = torch.linspace(1, 1.12, HEIGHT)[None, :, None] * torch.linspace(1, 1.05, WIDTH)
    first, camera = Cache3D.of(replace(scene(), depth=ramp)), sideways(3)[1:2]
    cache = first
    for value in (0.1, 0.2):
        cache = cache.updated(torch.full((1, 3, HEIGHT, WIDTH), value), 3 * ramp, camera)  # another scale
    newest, oldest = cache.buffers
    assert newest.image.unique() == pytest.approx([0.2])
    assert torch.equal(oldest.image, first.buffers[0].image)
    error = newest.points[..., 2] / ramp - 1
    assert error.abs().median() < 0.01
    assert cache.render(sideways(3)).pixels.shape == (3, 2, 3, HEIGHT, WIDTH)


def test_a_clip_takes_no_further_picture():
    with pytest.raises(ValueError, match="takes no further picture"):
        Cache3D.of(scene(2)).updated(torch.zeros(1, 3, HEIGHT, WIDTH), torch.ones(1, HEIGHT, WIDTH), sideways(1))


def test_chunks_share_a_frame():
    assert chunks(121) == [slice(0, 121)]
    assert chunks(361) == [slice(0, 121), slice(120, 241), slice(240, 361)]
    assert chunks(17, 9) == [slice(0, 9), slice(8, 17)]
    for wrong, remedy in ((120, "241"), (200, "241"), (1, "241"), (250, "241 or 361")):
        with pytest.raises(ValueError, match=rf"use 121 \(one chunk\) or {remedy}$"):
            chunks(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_what_the_cpu_draws():
    cache, path = Cache3D.of(scene(7)), sideways(7)
    here, there = cache.render(path), Cache3D.of(scene(7).to("cuda")).render(path)
    same = here.masks == there.masks.cpu()
    assert (~same).float().mean() < 1e-3  # points that land on integers but for rounding
    difference = (here.pixels - there.pixels.cpu()).abs() * same
    assert difference.quantile(0.999) < 1e-3  # sums in another order

from dataclasses import replace

import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians  # noqa: E402
from lyra_pack.nodes.comfy import devices  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets
from lyra_pack.nodes.splats import render as module  # noqa: E402
from lyra_pack.nodes.splats.render import CropSplats, RenderSplats  # noqa: E402

WIDGETS = {"width": 0, "height": 0, "every": 1, "background": "#ff0000", "backend": "torch", "mode": "ut_eval3d"}


@pytest.fixture
def scene() -> Gaussians:
    """A green splat at the lower left, two units ahead, and a faint one far off."""
    return Gaussians(
        means=torch.tensor([[-0.5, 0.4, 2.0], [0.0, 0.0, 50.0]]),
        scales=torch.full((2, 3), 0.15),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(2, 1),
        opacities=torch.tensor([0.99, 0.002]),
        colors=torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    )


@pytest.fixture
def paths():
    start = pinhole_camera(48, 32, 60)
    left, right = (camera_paths(start, PathSettings(name, 4, rotation="no_rotation")) for name in ("left", "right"))
    return left + right


def test_all_paths_are_drawn_one_after_another(scene, paths):
    frames, alpha, depth, view, fps = RenderSplats.execute(sockets.to_splat([scene]), paths, **WIDGETS).args
    assert frames.shape == depth.shape == view.shape == (8, 32, 48, 3)
    assert alpha.shape == (8, 32, 48)
    assert fps == 24
    assert torch.equal(frames[0], frames[4])  # both paths start at the same camera
    center = alpha[0].argmax()
    row, column = center // 48, center % 48
    assert row > 16 and column < 24  # lower left: y points down, x right
    assert frames[0, row, column, 1] > 0.9 and frames[0, 0, 0].tolist() == [1, 0, 0]
    assert depth[0, row, column, 0] == pytest.approx(2, abs=0.05)
    assert depth[0, 0, 0, 0] == view[0, 0, 0, 0] == 0
    assert view[0, row, column, 0] >= 0.1
    drift = [alpha[i].sum(0).argmax().item() for i in (3, 7)]
    assert drift[0] > column > drift[1]  # a camera that goes left sees it go right


def test_every_nth_frame_and_another_size(scene, paths):
    frames, alpha, *_, fps = RenderSplats.execute(
        sockets.to_splat([scene]), paths, **WIDGETS | {"every": 3, "width": 24}
    ).args
    assert frames.shape == (4, 16, 24, 3)
    assert fps == 8
    assert alpha[0].max() > 0.9


def test_several_bullet_times_are_refused(scene, paths):
    with pytest.raises(ValueError, match="2 bullet times .* Select Bullet Time"):
        RenderSplats.execute(sockets.to_splat([scene, scene]), paths, **WIDGETS)


def test_out_of_memory_is_tried_again_with_the_device_to_itself(scene, paths, monkeypatch, caplog):
    expected = RenderSplats.execute(sockets.to_splat([scene]), paths, **WIDGETS).args
    rooms, failures, draw = [], [1], module.render

    def scarce(*args):
        if failures and failures.pop():
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return draw(*args)

    monkeypatch.setattr(devices, "make_room", rooms.append)
    monkeypatch.setattr(module, "render", scarce)
    found = RenderSplats.execute(sockets.to_splat([scene]), paths, **WIDGETS).args
    assert all(torch.equal(a, b) for a, b in zip(found[:4], expected[:4], strict=True))
    assert rooms == [2 * module.SPLAT_BYTES, devices.total_memory()] and "out of memory, trying again" in caplog.text


def test_cropping_each_bullet_time(scene):
    limits = {"min_opacity": 0.0, "max_scale": 0.0, "max_distance": 0.0, "box_width": 0.0, "box_height": 0.0}
    limits |= {"box_depth": 0.0, "center_x": 0.0, "center_y": 0.0, "center_z": 2.0}
    batch = sockets.to_splat([scene, scene[:1]])
    (near,) = CropSplats.execute(batch, **limits | {"max_distance": 1.0}).args
    assert [len(item) for item in sockets.from_splat(near)] == [1, 1]
    (solid,) = CropSplats.execute(batch, **limits | {"min_opacity": 0.005}).args
    assert sockets.from_splat(solid)[0].opacities.tolist() == pytest.approx([0.99])
    (box,) = CropSplats.execute(batch, **limits | {"box_width": 1.2, "box_height": 1.0, "box_depth": 96.1}).args
    assert [len(item) for item in sockets.from_splat(box)] == [2, 1]
    with pytest.raises(ValueError, match="none of 2 splats is left"):
        CropSplats.execute(batch, **limits | {"center_x": 99.0, "max_distance": 1.0})


def test_every_picture_has_memory_of_its_own(scene, paths):
    frames, alpha, depth, view, _ = RenderSplats.execute(sockets.to_splat([scene]), paths, **WIDGETS).args
    for picture in (frames, alpha, depth, view):
        assert picture.is_contiguous() and picture.untyped_storage().nbytes() >= picture.nbytes
    before = depth[..., 1].clone()
    depth[..., 0] = -1  # as another node may
    assert torch.equal(depth[..., 1], before)


def test_memory_peaks_little_above_the_result(scene, paths):
    """The working memory of a frame is small beside long paths of it."""
    path = tuple(replace(p, c2w=p.c2w.repeat(8, 1, 1), K=p.K.repeat(8, 1, 1)) for p in paths)
    splat = sockets.to_splat([scene])
    result = sum(tensor.nbytes for tensor in RenderSplats.execute(splat, path, **WIDGETS).args[:4])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as watched:
        RenderSplats.execute(splat, path, **WIDGETS)
    level = peak = 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    assert result < peak < 1.25 * result, peak / result

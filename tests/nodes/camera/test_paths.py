import math
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS  # noqa: E402
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry  # noqa: E402
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene  # noqa: E402
from lyra_pack.nodes.camera.paths import CameraPaths, CombineCameras, PreviewCameras, unused  # noqa: E402
from lyra_pack.nodes.camera.view import CamerasFromCore, CameraToCore  # noqa: E402
from lyra_pack.nodes.comfy import progress  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets  # noqa: E402
from lyra_pack.nodes.geometry.preview_cache import PreviewCache  # noqa: E402

WIDGETS = {
    "preset": "six_paths", "movement": 1.0, "rotation": "center_facing", "seed": 3, "frames": 5, "fps": 8.0,
    "width": 64, "height": 48, "fov": 50.0, "center_depth": 1.0, "draw": "seeded",
}  # fmt: skip


def geometry(cameras: CameraTrajectory) -> Geometry:
    shape = (len(cameras), cameras.height, cameras.width)
    valid = torch.ones(shape, dtype=torch.bool)
    return Geometry(frames=torch.zeros(*shape, 3), depth=torch.ones(shape), valid=valid, cameras=cameras)


def moved(cameras: CameraTrajectory) -> CameraTrajectory:
    c2w = cameras.c2w.clone()
    c2w[:, 0, 3] = 7
    return CameraTrajectory(c2w=c2w, K=cameras.K, width=cameras.width, height=cameras.height, fps=30)


def test_the_six_paths_start_at_the_origin_with_the_widgets_picture():
    (paths,) = CameraPaths.execute(**WIDGETS).args
    assert [path.name for path in paths] == ["left", "right", "up", "zoom_out", "zoom_in", "clockwise"]
    for path in paths:
        assert (len(path), path.width, path.height, path.fps) == (5, 64, 48, 8)
        assert torch.allclose(path.c2w[0], torch.eye(4), atol=1e-6)
        assert path.K[0, 1, 1] == pytest.approx(24 / math.tan(math.radians(25)))


def test_movement_depth_and_seed_change_the_paths():
    (paths,) = CameraPaths.execute(**WIDGETS).args
    (far,) = CameraPaths.execute(**WIDGETS | {"movement": 2.0, "center_depth": 10.0}).args
    assert torch.allclose(far[3].c2w[:, :3, 3], paths[3].c2w[:, :3, 3] * 20, atol=1e-4)
    (other,) = CameraPaths.execute(**WIDGETS | {"seed": 4}).args
    assert not torch.allclose(other[0].c2w, paths[0].c2w)


def test_how_far_a_widget_says_is_how_far_the_points_move():
    """Widget, PathSettings, move, warp: a point at depth 1 shifts by distance times focal length."""
    scene, one = geometry(pinhole_camera(64, 48, 50)), WIDGETS | {"preset": "left", "rotation": "no_rotation"}
    (left,), focal = CameraPaths.execute(**one, geometry=scene).args[0], float(scene.cameras.K[0, 0, 0])
    for movement in (1.0, 2.0):
        (paths,) = CameraPaths.execute(**one | {"movement": movement}, geometry=scene).args
        _, known = PreviewCache.execute(scene, paths, path=0, every=4, foreground_masking=False).args
        new = int((known[-1][24] == 0).sum())  # columns that come into view at frame 4 of 5
        assert new == pytest.approx(0.25 * movement * 4 / 5 * focal, abs=1.5)
    assert torch.equal(left.c2w, camera_paths(scene.cameras, PathSettings("left", 5, rotation="no_rotation"))[0].c2w)


def test_geometry_brings_its_camera_and_a_clip_its_number_of_frames():
    start = moved(pinhole_camera(80, 40, 30))
    (picture,) = CameraPaths.execute(**WIDGETS | {"preset": "up"}, geometry=geometry(start)).args
    assert (len(picture), len(picture[0]), picture[0].width, picture[0].fps) == (1, 5, 80, 8)
    assert picture[0].c2w[0, 0, 3] == pytest.approx(7)
    (clip,) = CameraPaths.execute(**WIDGETS, geometry=geometry(start[torch.zeros(9, dtype=torch.long)])).args
    assert [(len(path), path.fps) for path in clip] == [(9, 30)] * 6


def test_a_teacher_brings_its_frames_and_without_geometry_its_size():
    teacher = SimpleNamespace(config=TEACHER_PRESETS["mini"])
    (alone,) = CameraPaths.execute(**WIDGETS, teacher=teacher).args
    assert {(len(path), path.width, path.height, path.fps) for path in alone} == {(17, 160, 96, 8)}
    (placed,) = CameraPaths.execute(**WIDGETS, geometry=geometry(pinhole_camera(80, 40, 30)), teacher=teacher).args
    assert {(len(path), path.width, path.height) for path in placed} == {(17, 80, 40)}
    (info,) = CameraToCore.execute(alone, 0, 0).args
    ((path,),) = CamerasFromCore.execute({"keyframe0": info}, 5, "linear", 12.0, 64, 48, teacher=teacher).args
    assert len(path) == 17


def test_sets_are_combined_in_the_order_of_the_sockets():
    left, up = (camera_paths(pinhole_camera(64, 48, 50), PathSettings(name, frames=2)) for name in ("left", "up"))
    (paths,) = CombineCameras.execute({"cameras0": up, "cameras1": left, "cameras2": up}).args
    assert [path.name for path in paths] == ["up", "left", "up 2"]


def test_the_drawing_has_the_size_asked_for_and_shows_the_scene(folders):
    paths = camera_paths(pinhole_camera(64, 48, 50), PathSettings("left", frames=5))
    bare = PreviewCameras.execute(paths, 320, 192)
    (full,) = PreviewCameras.execute(paths, 320, 192, sockets.to_splat([demo_scene()])).args
    assert bare.args[0].shape == full.shape == (1, 192, 320, 3)
    assert not torch.equal(bare.args[0], full)
    (shown,) = bare.ui.as_dict()["images"]
    assert (folders / "temp" / shown["filename"]).is_file()


def test_a_camera_goes_to_the_3d_view_and_comes_back():
    paths = camera_paths(pinhole_camera(64, 48, 50), PathSettings("six_paths", frames=5))
    infos = [CameraToCore.execute(paths, 5, frame).args[0] for frame in (0, 4)]
    keyframes = dict(zip(("keyframe0", "keyframe1"), infos, strict=True))
    ((path,),) = CamerasFromCore.execute(keyframes, 7, "linear", 12.0, 64, 48).args
    assert (len(path), path.fps, path.width, path.height) == (7, 12, 64, 48)
    for found, expected in ((0, 0), (-1, -1)):
        assert torch.allclose(path.c2w[found], paths[5].c2w[expected], atol=1e-5)
        assert torch.allclose(path.K[found], paths[5].K[expected], atol=1e-3)


def test_with_geometry_the_path_starts_at_its_camera():
    start = moved(pinhole_camera(80, 40, 30))
    (info,) = CameraToCore.execute((start,), 0, 0).args
    info = info | {"position": info["position"] | {"y": 2.0}}
    ((path,),) = CamerasFromCore.execute({"keyframe0": info}, 3, "smooth", 12.0, 64, 48, geometry(start)).args
    assert (path.width, path.height) == (80, 40)
    assert torch.allclose(path.c2w[0], start.c2w[0])
    assert path.c2w[-1, :3, 3].tolist() == pytest.approx([7, -2, 0])  # the view's y is up


def test_a_path_that_the_set_lacks_is_named():
    paths = camera_paths(pinhole_camera(64, 48, 50), PathSettings("left", frames=5))
    with pytest.raises(ValueError, match=r"path 1: the set holds 1 \(0 left\)"):
        CameraToCore.execute(paths, 1, 0)
    with pytest.raises(ValueError, match="frame 5"):
        CameraToCore.execute(paths, 0, 5)


def test_lists_of_cameras_are_given_and_taken():
    path = camera_paths(pinhole_camera(64, 48, 50), PathSettings("left", 4))
    (infos,) = CameraToCore.execute(path, 0, -1).args
    assert len(infos) == 4 and infos[2] == CameraToCore.execute(path, 0, 2).args[0]
    ((found,),) = CamerasFromCore.execute({"keyframe0": infos}, 4, "linear", 24.0, 64, 48).args
    torch.testing.assert_close(found.c2w, path[0].c2w, rtol=0, atol=1e-5)
    ((same,),) = CamerasFromCore.execute(
        {"keyframe0": infos[:2], "keyframe1": infos[2], "keyframe2": (infos[3],)}, 4, "linear", 24.0, 64, 48
    ).args
    assert torch.equal(same.c2w, found.c2w)


def test_widgets_that_do_nothing_are_told(monkeypatch):
    shown = []
    monkeypatch.setattr(progress, "show_text", lambda node, text: shown.append(text))
    start = pinhole_camera(64, 48, 50)
    widgets = ("left", 1.0, "center_facing", 1, 9, 24.0, 160, 96, 41.0, 1.0, "seeded")
    CameraPaths.execute(*widgets)
    assert not shown
    CameraPaths.execute(*widgets, geometry=geometry(start))
    assert shown.pop() == "9 frames of 64x48; not used, as geometry or teacher say it: width, height, fov"
    assert unused(None, object()) == ["frames", "width", "height"]


def test_splats_on_the_gpu_are_drawn_beside_a_geometry_on_the_cpu(card):
    """With --gpu-only, where files are read into RAM all the same."""
    splat = sockets.to_splat([demo_scene()])
    for name in ("positions", "scales", "rotations", "opacities", "sh"):
        setattr(splat, name, torch.empty_like(getattr(splat, name), device=card))
    start = pinhole_camera(64, 48, 50)
    picture, *_ = PreviewCameras.execute((start,), 320, 200, splat=splat, geometry=geometry(start)).args
    assert picture.shape == (1, 200, 320, 3)

import math

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, six_paths
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_K
from lyra_pack.comfyui_lyra.cameras.viewer import from_viewer, keyframes_from_viewer, to_viewer

# A camera that Create Camera Info of ComfyUI 0.33 makes (mode look_at, roll 20), and the rows right, down and forward
# that Render Splat derives from it in the frame of the splats, once with the quaternion and once without.
INFO = {
    "position": {"x": 1.5, "y": 0.75, "z": 2.0},
    "target": {"x": 0.25, "y": -0.5, "z": -1.0},
    "quaternion": {"x": -0.14280973, "y": 0.22097623, "z": 0.20267314, "w": 0.94323838},
    "fov": 40.0,
    "cameraType": "perspective",
    "zoom": 1.25,
}
ROLLED = torch.tensor(
    [[0.820186, -0.319223, 0.474754], [0.445453, 0.877058, -0.179835], [-0.358979, 0.358979, 0.86155]]
)
LEVEL = torch.tensor([[0.923077, 0.0, 0.384615], [0.138069, 0.933346, -0.331365], [-0.358979, 0.358979, 0.86155]])


def paths(width: int = 96, height: int = 64) -> tuple[CameraTrajectory, ...]:
    """The six paths from a camera that is turned about all axes."""
    base = CameraTrajectory(
        c2w=from_viewer(INFO, width, height)[0][None],
        K=pinhole_K(width, height, 50)[None],
        width=width,
        height=height,
        fps=12,
    )
    return six_paths(base, PathSettings(frames=5))


@pytest.mark.parametrize(("info", "rows"), [(INFO, ROLLED), ({**INFO, "quaternion": None}, LEVEL)])
def test_cameras_stand_where_render_splat_puts_them(info, rows):
    c2w, _ = from_viewer(info, 640, 360)
    assert torch.allclose(c2w[:3, 3], torch.tensor([1.5, -0.75, -2.0]))
    assert torch.allclose(c2w[:3, :3].T, rows, atol=2e-6)


@pytest.mark.parametrize(
    ("y", "rows"), [(2, [[1, 0, 0], [0, 0, -1], [0, 1, 0]]), (-2, [[1, 0, 0], [0, 0, 1], [0, -1, 0]])]
)
def test_a_camera_right_above_its_target_is_turned_as_in_render_splat(y, rows):
    c2w, _ = from_viewer({"position": {"x": 0, "y": y, "z": 0}, "target": {"x": 0, "y": 0, "z": 0}}, 64, 64)
    assert torch.allclose(c2w[:3, :3].T, torch.tensor(rows).float(), atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(640, 360), (360, 640), (360, 360)])
def test_the_view_angle_spans_the_smaller_side_and_zoom_lengthens_the_lens(width, height):
    _, K = from_viewer(INFO, width, height)
    focal = 180 / math.tan(math.radians(20)) * 1.25
    assert torch.allclose(K, torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]))


def test_a_missing_view_angle_is_the_one_render_splat_takes():
    _, K = from_viewer({**INFO, "fov": 0, "zoom": 1}, 100, 100)
    assert K[0, 0].item() == pytest.approx(50 / math.tan(math.radians(17.5)), rel=1e-6)


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96)])
def test_our_cameras_survive_the_way_to_the_view_and_back(width, height):
    for path in paths(width, height):
        for frame in range(len(path)):
            c2w, K = from_viewer(to_viewer(path, frame), width, height)
            assert torch.allclose(c2w, path.c2w[frame], atol=1e-6)
            assert torch.allclose(K, path.K[frame], atol=1e-4)


def test_cameras_of_the_view_survive_the_way_to_ours_and_back():
    c2w, K = from_viewer(INFO, 96, 64)
    found = to_viewer(CameraTrajectory(c2w=c2w[None], K=K[None], width=96, height=64), 0)
    for entry in ("position", "quaternion"):
        assert found[entry] == pytest.approx(INFO[entry], abs=1e-6)
    # the angle becomes part of zoom, the target lies on the same line of sight
    assert found["zoom"] / 1.25 == pytest.approx(math.tan(math.radians(17.5)) / math.tan(math.radians(20)))
    sight = [[i["target"][a] - i["position"][a] for a in "xyz"] for i in (INFO, found)]
    assert torch.cosine_similarity(*torch.tensor(sight), dim=0).item() == pytest.approx(1)
    assert (found["fov"], found["cameraType"], found["aspect"]) == (35.0, "perspective", 1.5)


def test_an_exported_target_says_the_same_as_the_quaternion_of_a_level_camera():
    c2w, _ = from_viewer({**INFO, "quaternion": None}, 96, 64)
    info = to_viewer(CameraTrajectory(c2w=c2w[None], K=pinhole_K(96, 64, 50)[None], width=96, height=64), 0)
    assert torch.allclose(from_viewer({**info, "quaternion": None}, 96, 64)[0], c2w, atol=1e-6)


def test_the_identity_is_a_view_that_looks_down_its_own_minus_z():
    start = CameraTrajectory(c2w=torch.eye(4)[None], K=pinhole_K(96, 64, 50)[None], width=96, height=64)
    info = to_viewer(start, 0)
    assert info["target"] == {"x": 0, "y": 0, "z": -1}
    assert info["quaternion"] == pytest.approx({"x": 0, "y": 0, "z": 0, "w": 1})
    assert info["fov"] == 35  # the view's own, which it keeps; zoom widens it to 50 degrees
    assert info["zoom"] == pytest.approx(math.tan(math.radians(17.5)) / math.tan(math.radians(25)))


def test_keyframes_begin_with_the_start_camera_in_its_size():
    path = paths()[1]
    keys = keyframes_from_viewer([to_viewer(path, 2), to_viewer(path, 4)], 7, 7, start=path)
    assert torch.allclose(keys.c2w, path.c2w[[0, 2, 4]], atol=1e-6)
    assert torch.allclose(keys.K, path.K[[0, 2, 4]], atol=1e-4)
    assert (keys.width, keys.height, keys.fps) == (96, 64, 12)
    assert len(keyframes_from_viewer([INFO], 7, 5)) == 1


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: from_viewer(None, 64, 64), "a camera of the 3D view with a position, got NoneType"),
        (lambda: from_viewer({}, 64, 64), "a camera of the 3D view with a position, got dict"),
        (lambda: from_viewer({**INFO, "cameraType": "orthographic"}, 64, 64), "switch it to perspective"),
        (lambda: from_viewer({**INFO, "zoom": -1}, 64, 64), "with zoom -1.0; fov lies in 0..180"),
        (lambda: from_viewer({**INFO, "fov": 180}, 64, 64), "fov 180.0 degrees"),
        (lambda: from_viewer({**INFO, "position": {"x": 1, "y": 2}}, 64, 64), "expected position with finite x, y, z"),
        (lambda: from_viewer({**INFO, "position": {"x": 1, "y": 2, "z": math.inf}}, 64, 64), "with finite x, y, z"),
        (lambda: from_viewer({**INFO, "quaternion": dict.fromkeys("xyzw", 0)}, 64, 64), "quaternion has length zero"),
        (lambda: from_viewer({**INFO, "quaternion": None, "target": None}, 64, 64), "expected target with .* got None"),
        (
            lambda: from_viewer({**INFO, "quaternion": None, "target": INFO["position"]}, 64, 64),
            "cannot look at the point where it stands",
        ),
        (lambda: to_viewer(paths()[0], 5), r"frame 5: the path 'left' has frames 0\.\.4"),
        (lambda: keyframes_from_viewer([], 64, 64), "at least one camera of a 3D view"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(act, message):
    with pytest.raises(ValueError, match=message):
        act()

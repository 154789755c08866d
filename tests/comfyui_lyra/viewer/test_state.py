import json

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, six_paths, through_keyframes
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.viewer.state import view_of

START = pinhole_camera(96, 64, 50)
PATHS = six_paths(START, PathSettings(frames=5))


def key(path: int, frame: int, zoom: float = 1.0) -> dict:
    return {"c2w": PATHS[path].c2w[frame].flatten().tolist(), "zoom": zoom}


def test_no_state_is_the_first_camera():
    view = view_of("  ", START, 3)
    assert view.camera is START and view.moment == 0
    assert view.path(4).c2w.equal(START.c2w.repeat(4, 1, 1))


def test_a_state_is_a_camera_a_moment_and_keyframes():
    state = {"camera": key(1, 4, 2.0), "moment": 1, "keyframes": [key(0, 4), key(2, 4)]}
    view = view_of(json.dumps(state), START, 3)
    assert view.camera.c2w[0].allclose(PATHS[1].c2w[4]) and view.moment == 1
    assert view.camera.K[0].equal(START.K[0] * torch.tensor([[2.0, 1, 1], [1, 2.0, 1], [1, 1, 1]]))
    path = view.path(9, "linear", fps=12.0)
    assert path.fps == 12 and len(path) == 9
    assert path.c2w[0].allclose(PATHS[0].c2w[4], atol=1e-5) and path.c2w[-1].allclose(PATHS[2].c2w[4], atol=1e-5)
    assert path.c2w.allclose(through_keyframes(view.keyframes, 9, "linear").c2w)


def test_a_path_for_a_teacher_begins_at_the_first_camera_once():
    away, here = {"keyframes": [key(0, 4)]}, {"keyframes": [key(0, 0), key(0, 4)]}
    paths = [view_of(json.dumps(state), START, 1).path(9, start=START) for state in (away, here)]
    assert paths[0].c2w[0].equal(START.c2w[0]) and paths[0].c2w[-1].allclose(PATHS[0].c2w[4], atol=1e-5)
    assert paths[0].c2w.allclose(paths[1].c2w, atol=1e-5)


def test_a_moment_that_is_gone_is_the_last_one():
    assert view_of(json.dumps({"moment": 7}), START, 3).moment == 2


@pytest.mark.parametrize(
    "state",
    [
        "{", "[]", '{"moment": -1}', '{"moment": "a"}', '{"keyframes": {}}', '{"camera": {"c2w": [1, 2]}}',
        '{"camera": {"zoom": 1}}', '{"camera": 5}', json.dumps({"camera": key(0, 0, 0.0)}),
        json.dumps({"camera": {"c2w": [float("nan")] * 16}}), json.dumps({"keyframes": [{"c2w": [2.0] * 16}]}),
    ],
)  # fmt: skip
def test_what_is_no_state_is_told(state):
    with pytest.raises(ValueError, match="state of the view"):
        view_of(state, START, 3)

import json

import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.viewer import from_viewer  # noqa: E402
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians  # noqa: E402
from lyra_pack.comfyui_lyra.splats.render import RenderSettings, render  # noqa: E402
from lyra_pack.nodes.comfy import folders as places  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets
from lyra_pack.nodes.splats.explore import ExploreSplats  # noqa: E402

WIDGETS = {"fps": 12.0, "frames": 9, "easing": "smooth", "background": "#ff0000", "mode": "ewa", "state": ""}


@pytest.fixture
def paths():
    return camera_paths(pinhole_camera(48, 32, 60), PathSettings("right", 4))


def scene(x: float) -> Gaussians:
    return Gaussians(
        means=torch.tensor([[x, 0.1, 2.0]]), scales=torch.full((1, 3), 0.2), quats=torch.tensor([[1.0, 0, 0, 0]]),
        opacities=torch.tensor([0.99]), colors=torch.tensor([[0.0, 1.0, 0.0]]),
    )  # fmt: skip


def explored(folders, paths, times=(0, 8), **changes):
    splat = sockets.to_splat([scene(-0.3), scene(0.3)], times)
    return ExploreSplats.execute(splat, cameras=paths, **WIDGETS | changes)


def test_without_a_state_one_stands_at_the_first_camera(folders, paths):
    image, info, (path,) = explored(folders, paths).args
    wanted = render(scene(-0.3), paths[0][:1], RenderSettings(background=(1.0, 0.0, 0.0), mode="ewa")).rgb
    assert image.allclose(wanted.clamp(0, 1), atol=1e-5)
    assert image.std() > 0.1
    assert from_viewer(info, 48, 32)[0].allclose(paths[0].c2w[0], atol=1e-5)
    assert len(path) == 9 and path.fps == 12 and path.c2w.equal(paths[0].c2w[:1].repeat(9, 1, 1))


def test_the_state_says_where_one_stands_when_and_which_way_one_flies(folders, paths):
    keys = [{"c2w": c2w.flatten().tolist(), "zoom": 1.0} for c2w in paths[0].c2w[[3, 0]]]
    state = {"camera": keys[0] | {"zoom": 1.5}, "moment": 1, "keyframes": keys}
    image, info, (path,) = explored(folders, paths, state=json.dumps(state)).args
    camera = paths[0][3:4]
    K = camera.K * torch.tensor([[1.5, 1, 1], [1, 1.5, 1], [1, 1, 1]])
    wanted = render(scene(0.3), camera.at(camera.c2w, K), RenderSettings(background=(1.0, 0.0, 0.0), mode="ewa")).rgb
    assert image.allclose(wanted.clamp(0, 1), atol=1e-4)
    pose, lens = from_viewer(info, 48, 32)
    assert pose.allclose(camera.c2w[0], atol=1e-4) and lens.allclose(K[0], rtol=1e-4)
    assert path.c2w[0].allclose(paths[0].c2w[3], atol=1e-5) and path.c2w[-1].allclose(paths[0].c2w[0], atol=1e-5)


def test_the_page_gets_the_moments_with_their_times_and_the_paths(folders, paths):
    (shown,) = explored(folders, paths).ui["lyra_view"]
    folder = folders / "temp" / shown["subfolder"]
    scene = json.loads((folder / shown["filename"]).read_text())
    assert shown["type"] == "temp" and folder.parent == places.views()
    assert [moment["time"] for moment in scene["moments"]] == [0, 8]
    assert (scene["fps"], scene["background"], [path["name"] for path in scene["paths"]]) == (12, [1, 0, 0], ["right"])
    assert all((folder / moment["url"]).stat().st_size == moment["bytes"] for moment in scene["moments"])


def test_a_splat_of_other_nodes_counts_its_moments(folders):
    (shown,) = explored(folders, (), times=()).ui["lyra_view"]
    scene = json.loads((folders / "temp" / shown["subfolder"] / shown["filename"]).read_text())
    assert [moment["time"] for moment in scene["moments"]] == [0, 1]


def test_with_a_teacher_the_path_begins_where_the_picture_was_taken(folders, paths, tiny_teacher):
    state = {"keyframes": [{"c2w": paths[0].c2w[3].flatten().tolist(), "zoom": 1.0}]}
    _, _, (path,) = explored(folders, paths, state=json.dumps(state), teacher=tiny_teacher, frames=5).args
    assert len(path) == tiny_teacher.config.trained_frames
    assert path.c2w[0].equal(paths[0].c2w[0]) and path.c2w[-1].allclose(paths[0].c2w[3], atol=1e-5)

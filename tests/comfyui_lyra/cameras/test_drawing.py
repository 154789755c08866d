from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.drawing import COLORS, draw_paths
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, move, six_paths, still
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_K
from PIL import ImageColor


def one_camera() -> CameraTrajectory:
    return CameraTrajectory(c2w=torch.eye(4)[None], K=pinhole_K(96, 64, 50)[None], width=96, height=64)


def places(picture: torch.Tensor, color: tuple[float, ...], tolerance: float = 0.1) -> list[torch.Tensor]:
    """Rows and columns [P, 2] of pixels of one colour in the left and the right view, without the legend."""
    height, width = picture.shape[:2]
    hit = (picture - torch.tensor(color)).abs().amax(-1) < tolerance
    hit[int(0.92 * height) :] = False
    return [hit[:, : width // 2].nonzero().float(), hit[:, width // 2 :].nonzero().float()]


RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def dimmed(color: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(0.55 * channel + 0.05 for channel in color)


def color_of(index: int) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in ImageColor.getrgb(COLORS[index]))


@pytest.mark.parametrize(
    ("first", "second", "view", "axis"),
    [
        ("left", "right", "above", "column"),
        ("zoom_in", "zoom_out", "above", "row"),
        ("zoom_out", "zoom_in", "side", "column"),
        ("up", "down", "side", "row"),
    ],
)
def test_each_move_goes_its_way_on_the_page(first, second, view, axis):
    paths = [move(still(one_camera(), 9), name, 0.5, "no_rotation") for name in (first, second)]
    picture = draw_paths(paths)
    found = [places(picture, color_of(i))[["above", "side"].index(view)] for i in range(2)]
    assert min(map(len, found)) > 50
    before, after = (place[:, ["row", "column"].index(axis)].mean() for place in found)
    assert after > before + 50


def test_six_paths_fill_a_picture_of_the_size_asked_for():
    picture = draw_paths(six_paths(one_camera(), PathSettings(frames=17)), width=700, height=420)
    assert picture.shape == (420, 700, 3)
    assert picture.dtype == torch.float32
    assert 0 <= picture.min() < picture.max() <= 1
    for index in range(6):
        assert max(map(len, places(picture, color_of(index)))) > 30


def test_points_lie_where_the_scene_is_and_are_dimmed():
    box = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    cloud = torch.cat((box + torch.tensor([-0.5, 0.1, 0.5]), box + torch.tensor([0.3, -0.4, 0.8])))
    colors = torch.tensor([RED] * 4000 + [GREEN] * 4000)
    picture = draw_paths((move(still(one_camera(), 5), "right", 0.5),), cloud, colors)
    red, green = places(picture, dimmed(RED)), places(picture, dimmed(GREEN))
    assert all(len(place) > 500 for place in (*red, *green))
    for view in (0, 1):  # from above red is nearer, from the side it is lower: below green on the page in both
        assert red[view][:, 0].mean() > green[view][:, 0].mean() + 20
        assert red[view][:, 1].mean() < green[view][:, 1].mean() - 20


def test_of_two_points_the_one_nearer_to_the_eye_is_seen():
    path = move(still(one_camera(), 5), "zoom_in", 0.5)
    floor = torch.cartesian_prod(torch.linspace(-0.3, 0.3, 120), torch.tensor([0.1]), torch.linspace(0.2, 0.5, 120))
    ceiling = floor * torch.tensor([1.0, -1.0, 1.0])
    colors = torch.tensor([RED]).repeat(len(floor), 1), torch.tensor([GREEN]).repeat(len(floor), 1)
    for order in (1, -1):
        cloud, shades = torch.cat((floor, ceiling)[::order]), torch.cat(colors[::order])
        picture = draw_paths((path,), cloud, shades)
        red, green = places(picture, dimmed(RED))[0], places(picture, dimmed(GREEN))[0]
        assert len(green) > 500
        assert len(red) < 0.05 * len(green)


def test_far_and_broken_points_do_not_shrink_the_paths():
    paths = six_paths(one_camera(), PathSettings(frames=17))
    sky = torch.tensor([[0.0, 0, 1000.0], [float("nan"), 0, 1], [0, 0, 1], [float("inf"), 1, 1]]).repeat(99, 1)
    plain, with_sky = (max(map(len, places(draw_paths(paths, p), color_of(4)))) for p in (None, sky))
    assert with_sky > 0.3 * plain


def test_a_still_camera_and_no_points_still_make_a_picture():
    assert draw_paths((still(one_camera(), 3),)).std() > 0.01
    assert draw_paths((one_camera(),), torch.zeros(0, 3)).std() > 0.01


def test_many_paths_with_long_names_leave_room_for_the_views():
    paths = [replace(one_camera(), name="a very long name of a path " * 3)] * 60
    picture = draw_paths(paths, width=256, height=160)
    assert picture.shape == (160, 256, 3)
    page = (picture - picture[0, 0]).abs().amax(-1) < 0.01
    assert page[40:60, 60:120].float().mean() < 0.05
    assert page[155:].float().mean() > 0.5


def test_drawing_twice_gives_the_same_picture():
    paths = six_paths(one_camera(), PathSettings(frames=5))
    assert torch.equal(draw_paths(paths), draw_paths(paths))


def nan_path() -> CameraTrajectory:
    path = still(one_camera(), 2)
    path.c2w[1] = float("nan")
    return path


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: draw_paths(()), "no camera paths to draw"),
        (lambda: draw_paths((one_camera(),), width=100), "100x512 is too small"),
        (lambda: draw_paths((one_camera(),), torch.zeros(3, 2)), r"points: expected \[P 3\], got \(3, 2\)"),
        (lambda: draw_paths((one_camera(),), torch.zeros(3, 3), torch.zeros(2, 3)), "colors: expected one a point"),
        (lambda: draw_paths((nan_path(),)), "'still' holds NaN"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(act, message):
    with pytest.raises(ValueError, match=message):
        act()

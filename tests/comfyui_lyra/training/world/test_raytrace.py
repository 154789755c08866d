import math
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.training.world import raytrace
from lyra_pack.comfyui_lyra.training.world.draw_scenes import base_camera, draw_scenes, scene_paths, source_geometry
from lyra_pack.comfyui_lyra.training.world.raytrace import seen_from, trace
from lyra_pack.comfyui_lyra.training.world.scenes import SHAPES, Scenes, about_vertical

HEIGHT, WIDTH = 48, 80
START = torch.zeros(1)


def empty_room(seed: int = 3, ground: float = 1.5) -> Scenes:
    """A scene without objects whose world is its room."""
    scene = draw_scenes([seed])
    nothing = torch.zeros_like(scene.present)
    return replace(scene, present=nothing, room=torch.eye(3)[None], ground=torch.tensor([ground]))


def with_body(scene: Scenes, shape: str, center, size, angle: float = 0.0) -> Scenes:
    place = SHAPES.index(shape)
    changed = {name: getattr(scene, name).clone() for name in ("present", "centers", "sizes", "turns")}
    changed["present"][0, place] = True
    changed["centers"][0, place], changed["sizes"][0, place] = torch.tensor(center), torch.tensor(size)
    changed["turns"][0, place] = about_vertical(torch.tensor(angle))
    return replace(scene, **changed)


def test_depth_of_the_ground_is_the_plane_s(pixel_rays):
    camera = base_camera(HEIGHT, WIDTH)
    depth = trace(empty_room(), [camera], START).depth[0, 0]
    rays = pixel_rays(camera)
    expected = 1.5 / rays[..., 1]
    expected[(expected <= 0) | ((rays * expected[..., None]).norm(dim=-1) >= raytrace.HAZE[1])] = torch.inf
    assert torch.allclose(depth, expected, rtol=1e-5) and 0.2 < depth.isinf().float().mean() < 0.8


def test_depth_of_a_ball_is_the_sphere_s(pixel_rays):
    camera = base_camera(HEIGHT, WIDTH)
    depth = trace(with_body(empty_room(), "ball", (0.2, -0.3, 4.0), (0.9, 0.9, 0.9)), [camera], START).depth[0, 0]
    rays, center = pixel_rays(camera).double(), torch.tensor([0.2, -0.3, 4.0]).double()
    a, b = rays.square().sum(-1), rays @ center
    root = b * b - a * (center @ center - 0.81)
    hit = root > 1e-9
    expected = (b - root.clamp_min(0).sqrt()) / a
    assert hit.sum() > 100 and torch.allclose(depth.double()[hit], expected[hit], rtol=1e-5)
    ground = trace(empty_room(), [camera], START).depth[0, 0]
    assert torch.equal(depth[~hit], ground[~hit])


def test_depth_of_a_box_face_and_of_a_drum_is_closed_form(pixel_rays):
    camera = base_camera(HEIGHT, WIDTH)
    room = empty_room(ground=9.0)
    box = trace(with_body(room, "box", (0.0, 0.0, 5.0), (0.5, 0.7, 1.0)), [camera], START).depth[0, 0]
    x, y = (pixel_rays(camera)[..., :2] * 4.0).unbind(-1)
    face = (x.abs() < 0.5) & (y.abs() < 0.7)
    assert torch.allclose(box[face], torch.tensor(4.0)) and box[~face].isinf().float().mean() > 0.4
    turned = trace(with_body(room, "box", (0.0, 0.0, 5.0), (1.0, 0.7, 1.0), math.pi / 4), [camera], START)
    edge = turned.depth[0, 0, HEIGHT // 2 - 1 : HEIGHT // 2 + 1, WIDTH // 2 - 1 : WIDTH // 2 + 1]
    half_pixel = 0.5 / (0.8 * WIDTH)  # beside the edge, whose sides fall back by as much as they go aside
    assert torch.allclose(edge, torch.tensor((5 - math.sqrt(2)) / (1 - half_pixel)), rtol=1e-5)
    drum = trace(with_body(room, "drum", (0.0, 0.0, 5.0), (0.8, 1.0, 0.8)), [camera], START).depth[0, 0]
    x = pixel_rays(camera)[HEIGHT // 2, :, 0].double()  # z with (x z)^2 + (z - 5)^2 = 0.64
    hit = (10 * 10 - 4 * (1 + x * x) * (25 - 0.64)) > 0
    expected = (10 - (100 - 4 * (1 + x * x) * (25 - 0.64)).clamp_min(0).sqrt()) / (2 * (1 + x * x))
    assert hit.sum() > 10 and torch.allclose(drum[HEIGHT // 2, hit].double(), expected[hit], rtol=1e-5)
    assert drum[HEIGHT // 2, ~hit].isinf().all()


def test_depth_is_along_the_camera_axis_of_a_moved_and_turned_camera(pixel_rays):
    scene = with_body(empty_room(), "box", (0.0, 0.0, 5.0), (1.0, 1.0, 0.5))
    c2w = torch.eye(4)[None].repeat(2, 1, 1)
    c2w[1, :3, :3] = about_vertical(torch.tensor(0.2))
    c2w[1, :3, 3] = torch.tensor([-0.9, 0.1, 0.5])
    camera = base_camera(HEIGHT, WIDTH)
    path = replace(camera, c2w=c2w, K=camera.K.repeat(2, 1, 1))
    depth = trace(scene, [path], torch.zeros(2)).depth[0, 1]
    points = (pixel_rays(camera) * depth[..., None]) @ c2w[1, :3, :3].T + c2w[1, :3, 3]
    front = (points[..., 2] - 4.5).abs() < 1e-4
    assert front.sum() > 200 and (points[front][:, :2].abs() < 1 + 1e-4).all()


@pytest.mark.parametrize("moving", [False, True], ids=["static", "moving"])
def test_views_of_one_time_agree_with_one_another_through_their_depth(moving, warp_error):
    scene = draw_scenes([21], moving)
    times = torch.linspace(0, 1, 5)
    paths = scene_paths(21, 5, HEIGHT, WIDTH, "large")[:3]
    traced = trace(scene[[0] * 3], paths, times)
    for frame in (2, 4):
        first, second = ((traced.rgb[v, frame], traced.depth[v, frame], paths[v][frame : frame + 1]) for v in (0, 1))
        seen, error = warp_error(*first, *second)
        assert seen > 0.3 and error < 0.02
        shifted = replace(paths[1], c2w=paths[1].c2w.roll(2, 0))[frame : frame + 1]
        assert warp_error(*first, traced.rgb[1, frame], traced.depth[1, frame], shifted)[1] > 2 * error


def test_a_moving_scene_changes_with_time_and_starts_as_the_static_one():
    static, moving = draw_scenes([4]), draw_scenes([4], moving=True)
    camera = base_camera(HEIGHT, WIDTH)
    held = camera[torch.zeros(3, dtype=torch.long)]
    still, moved = (trace(scene, [held], torch.linspace(0, 1, 3)).rgb[0] for scene in (static, moving))
    assert torch.equal(still[0], still[2]) and torch.equal(moved[0], still[0])
    assert ((moved[2] - moved[0]).abs().amax(-1) > 0.05).float().mean() > 0.01


def test_a_pattern_moves_and_turns_with_its_object():
    scene = with_body(empty_room(), "box", (0.0, 0.0, 5.0), (0.9, 0.9, 0.9))
    place = SHAPES.index("box")
    scene.spins[0, place], scene.velocities[0, place, 0] = math.pi / 2, 0.4
    seen = trace(scene, [pinhole_camera(64, 64, 30)[torch.zeros(2, dtype=torch.long)]], torch.tensor([0.0, 1.0]))
    # a quarter turn on: the face that looked at the camera now looks to the side, so look from there
    side = about_vertical(torch.tensor(math.pi / 2))
    c2w = torch.eye(4)
    c2w[:3, :3], c2w[:3, 3] = side, torch.tensor([0.4, 0.0, 5.0]) - side @ torch.tensor([0.0, 0.0, 5.0])
    camera = replace(pinhole_camera(64, 64, 30), c2w=c2w[None])
    dark = replace(scene, sun=torch.tensor([[0.0, 1.0, 0.0]]))  # light that does not depend on the side
    before = trace(dark, [pinhole_camera(64, 64, 30)], torch.zeros(1)).rgb[0, 0]
    after = trace(dark, [camera], torch.ones(1)).rgb[0, 0]
    assert (before[16:48, 16:48] - after[16:48, 16:48]).abs().max() < 2e-3
    assert (seen.rgb[0, 1] - seen.rgb[0, 0]).abs().max() > 0.05


def test_a_camera_sees_all_that_it_sees_and_holes_open_on_the_way(pixel_rays):
    scene = draw_scenes([900_000])
    times = torch.linspace(0, 1, 5)
    for path in scene_paths(900_000, 5, HEIGHT, WIDTH, "large")[:4]:
        traced = trace(scene, [path], times, supersample=0)
        seen = seen_from(scene, traced.depth, [path], base_camera(HEIGHT, WIDTH), times)[0]
        assert seen[0].float().mean() > 0.995 and 0.05 < 1 - seen[-1].float().mean() < 0.8
        # against the depth picture of the first camera: equal but along its edges
        base = trace(scene, [base_camera(HEIGHT, WIDTH)], START, supersample=0).depth[0, 0]
        rays = pixel_rays(base_camera(HEIGHT, WIDTH))
        ground = traced.depth[0, -1].isfinite()
        points = rays * torch.where(ground, traced.depth[0, -1], 1)[..., None]
        x, y, z = (points @ path.c2w[-1, :3, :3].T + path.c2w[-1, :3, 3]).unbind(-1)
        u, v = 0.8 * WIDTH * x / z + WIDTH / 2, 0.8 * WIDTH * y / z + HEIGHT / 2
        inside = (z > 0) & (u > 0) & (u < WIDTH) & (v > 0) & (v < HEIGHT)
        found = base[v.long().clamp(0, HEIGHT - 1), u.long().clamp(0, WIDTH - 1)]
        expected = inside & (z < found * 1.03)
        assert (seen[-1] == expected)[ground].float().mean() > 0.93


def test_a_hole_is_what_is_hidden_at_the_same_time():
    scene = with_body(empty_room(), "ball", (0.0, 0.0, 3.0), (0.8, 0.8, 0.8))
    scene.velocities[0, SHAPES.index("ball"), 0] = 20.0  # out of sight at the end
    held = base_camera(HEIGHT, WIDTH)[torch.zeros(2, dtype=torch.long)]
    aside = replace(held, c2w=held.c2w.clone())
    aside.c2w[:, 0, 3] = 1.0
    times = torch.tensor([0.0, 1.0])
    depth = trace(scene, [aside], times, supersample=0).depth
    seen = seen_from(scene, depth, [aside], held, times)[0]
    middle = seen[:, HEIGHT // 2 + 8 :, : WIDTH // 2].float().mean((1, 2))
    assert middle[0] < middle[1] == 1


def test_several_scenes_at_once_and_in_parts_equal_each_alone(monkeypatch):
    scenes, paths = draw_scenes([1, 2, 3], moving=True), [scene_paths(s, 4, 24, 40)[0] for s in (1, 2, 3)]
    times = torch.linspace(0, 1, 4)
    whole = trace(scenes, paths, times)
    monkeypatch.setitem(raytrace.RAYS, "cpu", 24 * 40 * 3)
    parts = trace(scenes, paths, times)
    assert torch.allclose(parts.rgb, whole.rgb, atol=1e-5) and torch.allclose(parts.depth, whole.depth, rtol=1e-5)
    alone = trace(scenes[1:2], paths[1:2], times)
    assert torch.allclose(alone.rgb[0], whole.rgb[1], atol=1e-5)


def test_supersampling_smooths_edges_towards_the_true_mean():
    scene, camera = draw_scenes([7]), base_camera(HEIGHT, WIDTH)
    exact = trace(scene, [camera], START, supersample=8).rgb
    errors = [(trace(scene, [camera], START, supersample=n).rgb - exact).square().mean() for n in (1, 2, 4)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_what_the_teacher_is_given():
    geometry = source_geometry(draw_scenes([5], moving=True), 24, 40, frames=3)
    assert geometry.frames.shape == (3, 24, 40, 3) and torch.equal(geometry.valid, geometry.depth.isfinite())
    assert (
        (geometry.depth > 0).all() and not geometry.valid.all() and torch.equal(geometry.cameras.c2w[2], torch.eye(4))
    )
    assert len(source_geometry(draw_scenes([5]), 24, 40).frames) == 1


def test_pictures_can_be_learned_from():
    picture = trace(draw_scenes([0]), [base_camera(8, 16)], START).rgb
    guess = torch.full_like(picture, 0.5).requires_grad_()
    (picture * guess).sum().backward()
    assert torch.equal(guess.grad, picture)

import random
from dataclasses import fields, replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import (
    MOVES,
    ROTATIONS,
    SIX_CIRCLES,
    SIX_PATHS,
    PathSettings,
    camera_paths,
    draw_distances,
    move,
    six_paths,
    still,
    through_keyframes,
)
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_K
from scipy.spatial.transform import Rotation

ATOL = 1e-6  # of the cameras golden


def cameras_at(w2c: torch.Tensor, K: torch.Tensor) -> CameraTrajectory:
    """Cameras of w2c [F, 4, 4] and K [F, 3, 3]; no move depends on the size of the pictures."""
    c2w = torch.linalg.inv(w2c.double()).float()
    return CameraTrajectory(c2w=c2w, K=K.expand(len(w2c), 3, 3), width=64, height=48)


def one_camera() -> CameraTrajectory:
    return cameras_at(torch.eye(4)[None], pinhole_K(64, 48, 60)[None])


def keyframes(count: int) -> CameraTrajectory:
    g = torch.Generator().manual_seed(count)
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, :3, :3] = torch.from_numpy(Rotation.from_rotvec(torch.randn(count, 3, generator=g).numpy()).as_matrix())
    c2w[:, :3, 3] = torch.randn(count, 3, generator=g)
    K = torch.stack([pinhole_K(64, 48, fov) for fov in torch.linspace(40, 70, count).tolist()])
    return CameraTrajectory(c2w=c2w, K=K, width=64, height=48)


def angles(cameras: CameraTrajectory) -> torch.Tensor:
    """Turn from frame to frame in radians, [F-1]."""
    turns = cameras.c2w[:-1, :3, :3].mT.double() @ cameras.c2w[1:, :3, :3].double()
    return torch.from_numpy(Rotation.from_matrix(turns.numpy()).magnitude())


@pytest.mark.golden("teacher/cameras*")
def test_each_move_and_rotation_equals_the_reference(golden):
    meta, cases = golden.meta, [key for key in golden if key.split(".")[0] in MOVES]
    starts = {"identity": torch.eye(4), "rotated_initial": golden["initial_w2c_rot"]}
    for key in cases:
        name, rotation, start = key.split(".")
        base = still(cameras_at(starts[start][None], golden["intrinsics"][None]), len(golden[key]))
        found = move(base, name, meta["movement_distance"], rotation, center_depth=meta["center_depth"])
        assert torch.allclose(found.viewmats, golden[key], rtol=0, atol=ATOL), key
        assert found.name == name
    assert {key.split(".")[1] for key in cases} == set(ROTATIONS)


@pytest.mark.golden("teacher/cameras*")
def test_the_six_paths_equal_the_reference_from_a_picture(golden):
    distances = [item["distance_used"] for item in golden.meta["six"]]
    base = cameras_at(torch.eye(4)[None], golden["intrinsics"][None])
    paths = six_paths(base, PathSettings(frames=golden.meta["num_frames"]), distances=distances)
    for path, item in zip(paths, golden.meta["six"], strict=True):
        assert path.name == item["trajectory"]
        assert torch.allclose(path.viewmats, golden[f"multi.{item['dir']}.static_w2c"], rtol=0, atol=ATOL)
        assert torch.allclose(path.c2w, golden[f"multi.{item['dir']}.static_c2w"], rtol=0, atol=ATOL)


@pytest.mark.golden("teacher/cameras*")
def test_the_six_paths_equal_the_reference_over_moving_cameras(golden):
    base = cameras_at(golden["initial_w2c_sequence"], golden["intrinsics_sequence"])
    distances = [item["distance_used"] for item in golden.meta["six"]]
    for item, index in zip(golden.meta["six"], range(6), strict=True):
        depth = item["dynamic_center_depth"]
        path = six_paths(base, PathSettings(frames=len(base), center_depth=depth), distances=distances)[index]
        assert torch.allclose(path.viewmats, golden[f"multi.{item['dir']}.dynamic_w2c"], rtol=0, atol=ATOL)
        assert torch.equal(path.K, golden[f"multi.{item['dir']}.dynamic_K"])


@pytest.mark.golden("teacher/cameras*")
def test_reference_distances_share_the_first_number_of_the_seed(golden):
    meta = golden.meta
    found = draw_distances(PathSettings(seed=1, movement=meta["total_movement_distance_factor"], draw="reference"))
    for distance, item in zip(found, meta["six"], strict=True):
        assert list(SIX_PATHS[item["trajectory"]]) == item["range"]
        assert distance == pytest.approx(item["seed1_distance_after_reseed"], abs=1e-12)
    assert random.Random(1).random() == meta["first_uniform_after_random_seed_1"]


def test_seeded_distances_differ_within_their_ranges_and_repeat():
    drawn = draw_distances(PathSettings(seed=3))
    shares = [(d - lo) / (hi - lo) for d, (lo, hi) in zip(drawn, SIX_PATHS.values(), strict=True)]
    assert all(0 <= share <= 1 for share in shares)
    assert len({round(share, 9) for share in shares}) == 6
    assert draw_distances(PathSettings(seed=3)) == drawn != draw_distances(PathSettings(seed=4))
    assert draw_distances(PathSettings(seed=3, movement=2.0)) == tuple(2 * d for d in drawn)


def test_drawing_leaves_the_global_generator_alone():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    draw_distances(PathSettings(seed=1))
    assert random.random() == expected


@pytest.mark.parametrize("name", MOVES)
def test_center_facing_keeps_its_axis_on_the_centre(name):
    depth = 2.0
    path = move(still(one_camera(), 9), name, 0.4, center_depth=depth)
    p = -path.viewmats[:, :3, 3]  # where the reference means to stand
    to_centre = torch.tensor([0.0, 0, depth]) - p
    assert torch.allclose(path.c2w[:, :3, 2], to_centre / to_centre.norm(dim=1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("name", MOVES)
def test_no_rotation_only_translates(name):
    path = move(still(one_camera(), 9), name, 0.4, "no_rotation")
    assert torch.equal(path.c2w[:, :3, :3], torch.eye(3).expand(9, 3, 3))
    assert path.c2w[:, :3, 3].norm(dim=1).max() > 0.2


def test_straight_moves_stop_one_step_short_in_their_direction():
    axes = {"left": (-1, 0, 0), "right": (1, 0, 0), "up": (0, -1, 0), "down": (0, 1, 0)}
    axes |= {"zoom_out": (0, 0, -1), "zoom_in": (0, 0, 1)}
    for name, axis in axes.items():
        path = move(still(one_camera(), 8), name, 0.4, "no_rotation", center_depth=2.0)
        assert torch.allclose(path.c2w[-1, :3, 3], 0.4 * 2 * 7 / 8 * torch.tensor(axis), atol=1e-6)


def test_circles_end_where_they_start_and_turn_opposite_ways():
    ways = [
        move(still(one_camera(), 41), name, 0.5, "no_rotation", circles=2, radius_x=0.4, radius_y=0.2)
        for name in ("clockwise", "counterclockwise")
    ]
    centres = [way.c2w[:, :3, 3] for way in ways]
    assert torch.allclose(centres[0][[0, 20, 40]], torch.zeros(3, 3), atol=1e-6)
    assert torch.allclose(centres[0][10], torch.tensor([-0.4, 0, 0]), atol=1e-6)
    assert torch.allclose(centres[0] * torch.tensor([-1.0, 1, 1]), centres[1], atol=1e-6)


def test_every_path_starts_at_the_base_camera():
    base = keyframes(1)
    for rotation in ROTATIONS:
        for path in six_paths(base, PathSettings(frames=5, rotation=rotation)):
            assert torch.allclose(path.c2w[0], base.c2w[0], atol=1e-6)
            assert len(path) == 5


def test_a_moving_base_keeps_its_own_motion():
    base = keyframes(6)
    for path in six_paths(base, PathSettings(frames=6, movement=0)):
        assert torch.allclose(path.c2w, base.c2w, atol=1e-6)
        assert torch.equal(path.K, base.K)


@pytest.mark.parametrize(
    ("name", "distance"),
    [("left", 0.25), ("down", 0.15), ("zoom_in", 0.35), ("clockwise", 0.5), ("counterclockwise", 0.5)],
)
def test_a_single_move_goes_as_far_as_the_middle_of_its_range(name, distance):
    (path,) = camera_paths(one_camera(), PathSettings(name, frames=9, movement=2.0, rotation="no_rotation"))
    circles = SIX_CIRCLES if "clock" in name else {}
    expected = move(still(one_camera(), 9), name, 2 * distance, "no_rotation", **circles)
    assert torch.allclose(path.c2w, expected.c2w, atol=1e-7)
    assert path.name == name


def test_the_six_path_preset_is_the_six_paths():
    settings = PathSettings("six_paths", 5, seed=3, movement=1.5, rotation="no_rotation", center_depth=2.0)
    made, wanted = camera_paths(one_camera(), settings), six_paths(one_camera(), settings)
    for path, expected in zip(made, wanted, strict=True):
        assert torch.equal(path.c2w, expected.c2w)


@pytest.mark.parametrize("field", fields(PathSettings), ids=lambda field: field.name)
def test_every_setting_reaches_the_paths(field):
    other = {"preset": "left", "rotation": "no_rotation", "draw": "reference"}.get(field.name, 3)
    before = camera_paths(one_camera(), PathSettings(frames=5))
    after = camera_paths(one_camera(), replace(PathSettings(frames=5), **{field.name: other}))
    assert len(after) != len(before) or not torch.equal(after[1].c2w, before[1].c2w)


@pytest.mark.parametrize("easing", ["linear", "smooth"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_paths_pass_their_keyframes_at_equal_intervals(count, easing):
    keys = keyframes(count)
    path = through_keyframes(keys, 10 * (count - 1) + 1, easing)
    assert torch.allclose(path.c2w[::10], keys.c2w, atol=1e-6)
    assert torch.allclose(path.K[::10], keys.K, atol=1e-5)
    rotation = path.c2w[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-6)


def test_linear_paths_keep_their_speed_and_smooth_ones_start_and_stop_gently():
    keys = keyframes(2)
    even, eased = (through_keyframes(keys, 21, easing) for easing in ("linear", "smooth"))
    steps = [path.c2w[:, :3, 3].diff(dim=0).norm(dim=1) for path in (even, eased)]
    assert torch.allclose(steps[0], steps[0].mean().expand(20), atol=1e-6)
    assert torch.allclose(angles(even), angles(even).mean().expand(20), atol=1e-5)
    for step in (steps[1], angles(eased), eased.K[:, 0, 0].diff().abs()):
        assert max(step[0], step[-1]) < 0.2 * step.max()


def test_smooth_paths_have_no_kink_at_a_keyframe():
    keys = keyframes(4)
    for easing, kinked in (("linear", True), ("smooth", False)):
        path = through_keyframes(keys, 301, easing)
        change = path.c2w[:, :3, 3].double().diff(n=2, dim=0).norm(dim=1)
        assert bool(change.max() > 20 * change.median()) is kinked


def test_keyframes_turn_the_short_way_round():
    keys = keyframes(2)
    turn = Rotation.from_rotvec([0, 0, 3.0])
    keys.c2w[0, :3, :3], keys.c2w[1, :3, :3] = torch.eye(3), torch.from_numpy((turn * turn).as_matrix())
    for easing in ("linear", "smooth"):
        assert angles(through_keyframes(keys, 31, easing)).sum() == pytest.approx(2 * torch.pi - 6, abs=1e-3)


def test_one_keyframe_is_held_still():
    path = through_keyframes(keyframes(1), 7)
    assert torch.equal(path.c2w, keyframes(1).c2w.expand(7, 4, 4))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: move(one_camera(), "sideways", 0.1), "unknown camera move 'sideways'; use one of left, right, up"),
        (lambda: move(one_camera(), "left", 0.1, "spin"), "unknown rotation 'spin'; use one of center_facing"),
        (lambda: move(one_camera(), "left", -0.1), "left: distance -0.1 must be zero or positive"),
        (lambda: move(one_camera(), "left", float("nan")), "distance nan must be"),
        (lambda: move(one_camera(), "clockwise", 0.1, radius_x=-1), "radius_x -1 must be"),
        (lambda: move(one_camera(), "left", 0.1, center_depth=0), "center_depth 0 must be positive"),
        (lambda: move(still(one_camera(), 10), "zoom_in", 2), "by 2 center depths reaches the point .* at frame 5"),
        (lambda: still(one_camera(), 0), "at least one frame, got 0"),
        (lambda: six_paths(one_camera(), PathSettings(frames=0)), "at least one frame, got 0"),
        (lambda: six_paths(keyframes(3), PathSettings(frames=5)), "3 cameras for 5 frames"),
        (lambda: camera_paths(keyframes(3), PathSettings("left", 5)), "3 cameras for 5 frames"),
        (lambda: PathSettings("seven_paths", 5), "unknown camera preset 'seven_paths'; use one of six_p"),
        (lambda: six_paths(one_camera(), PathSettings(), [0.1]), "1 distances for the six paths left, right"),
        (lambda: PathSettings(draw="dice"), "unknown draw 'dice'; use one of seeded, reference"),
        (lambda: PathSettings(rotation="spin"), "unknown rotation 'spin'; use one of center_facing"),
        (lambda: PathSettings(movement=-1), "movement -1 must be zero or positive"),
        (lambda: PathSettings(movement=float("nan")), "movement nan must be"),
        (lambda: PathSettings(seed=-1), "seed -1 of the paths must lie in 0..4294967295"),
        (lambda: PathSettings(center_depth=0), "center_depth 0 must be positive"),
        (lambda: through_keyframes(keyframes(3), 2), "3 keyframes need at least 3 frames, got 2"),
        (lambda: through_keyframes(keyframes(3), 9, "bouncy"), "unknown easing 'bouncy'; use one of linear, smooth"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(act, message):
    with pytest.raises(ValueError, match=message):
        act()

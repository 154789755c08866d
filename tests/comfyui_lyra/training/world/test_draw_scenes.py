from itertools import combinations

import pytest
import torch
from lyra_pack.comfyui_lyra.training.world.draw_scenes import (
    LENGTHS,
    SPLITS,
    base_camera,
    draw_scenes,
    has_room,
    scene_paths,
)
from lyra_pack.comfyui_lyra.training.world.raytrace import trace
from lyra_pack.comfyui_lyra.training.world.scenes import SHAPES, WALL

SEEDS = (0, 1, 2, 3, 10_000, 800_000, 900_063)


def test_a_seed_is_one_scene_whatever_is_drawn_with_it():
    together, alone = draw_scenes(SEEDS, moving=True), draw_scenes([SEEDS[3]], moving=True)
    for name in ("centers", "colors", "waves", "velocities", "room", "sun", "present"):
        found = getattr(together, name)
        assert torch.equal(found[3], getattr(alone, name)[0])
        assert not torch.equal(found[0], found[1])
    assert together.seeds == SEEDS and together[2:4].seeds == SEEDS[2:4] and together[[1, 1]].seeds == (1, 1)


def test_the_median_depth_of_the_first_picture_is_one():
    scenes = draw_scenes(SEEDS)
    for size in ((24, 40), (48, 80)):
        depth = trace(scenes, [base_camera(*size)] * len(SEEDS), torch.zeros(1), supersample=0).depth
        medians = torch.stack([d[d.isfinite()].median() for d in depth])
        assert torch.allclose(medians, torch.ones(len(SEEDS)), atol=1e-4 if size == (24, 40) else 0.1)


def test_scenes_are_furnished_and_leave_room_for_every_camera():
    scenes = draw_scenes(SEEDS, moving=True)
    there = scenes.present.sum(1) - scenes.present[:, WALL].long()
    assert (there >= 3).all() and scenes.present[:, WALL].any() and not scenes.present[:, WALL].all()
    assert (scenes.velocities.abs().amax((1, 2)) > 0).all()
    for row, seed in enumerate(SEEDS):
        for lengths in LENGTHS:
            eyes = torch.cat([path.c2w[:, :3, 3] for path in scene_paths(seed, 9, 24, 40, lengths)])
            assert has_room(scenes[row : row + 1], eyes)


def test_no_room_inside_an_object_or_under_the_ground():
    scene = draw_scenes([3])
    place = SHAPES.index("ball")
    inside = torch.linalg.solve(scene.room[0], scene.centers[0, place])
    below = torch.linalg.solve(scene.room[0], torch.tensor([0.0, scene.ground.item() + 0.1, 1.0]))
    assert has_room(scene, torch.zeros(1, 3))
    assert not has_room(scene, inside[None]) and not has_room(scene, below[None])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_paths_are_as_long_as_asked_for_and_start_at_the_first_camera(lengths):
    reached = []
    for seed in range(40):
        paths = scene_paths(seed, 17, 24, 40, lengths)
        assert [path.name for path in paths] == list(LENGTHS[lengths])
        assert all(torch.allclose(path.c2w[0], torch.eye(4), atol=1e-6) for path in paths)
        reached.append([path.c2w[-1, :3, 3].norm().item() * 17 / 16 for path in paths[:5]])
    low, high = torch.tensor([*LENGTHS[lengths].values()][:5]).T
    reached = torch.tensor(reached)
    assert (reached > low - 0.01).all() and (reached < high + 0.01).all()
    spread = high - low
    assert (reached.amax(0) - reached.amin(0) > 0.6 * spread).all()


def test_unknown_lengths_are_refused():
    with pytest.raises(ValueError, match="unknown path lengths 'long'; use one of paper, large"):
        scene_paths(0, 9, 24, 40, "long")


def test_splits_share_no_scene():
    assert all(not set(a) & set(b) for a, b in combinations(SPLITS.values(), 2))
    assert [len(SPLITS[name]) for name in ("validation", "test")] == [64, 64]

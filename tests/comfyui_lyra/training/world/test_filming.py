"""Films of procedural scenes, and their 3D caches many clips at a time."""

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import still
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import Cache3D
from lyra_pack.comfyui_lyra.training.world.draw_scenes import SPLITS
from lyra_pack.comfyui_lyra.training.world.filming import film, film_mix, warped

SHAPE = {"size": (24, 40), "frames": 5}


@pytest.mark.parametrize("moving", [False, True])
def test_all_clips_at_once_are_drawn_as_the_cache_draws_each(moving):
    """Five frames: the last one of a clip makes no pair with the first of the next."""
    filmed = film([3, 4], moving=moving, lengths="large", **SHAPE)
    pixels, drawn = warped(filmed)
    geometry, moments = filmed.geometry(), filmed.source.shape[1]
    for clip, path in ((0, filmed.paths[0][0]), (7, filmed.paths[1][1]), (11, filmed.paths[1][5])):
        scene = slice(clip // 6 * moments, clip // 6 * moments + moments)
        rendered = Cache3D.of(geometry[scene]).render(path)
        assert torch.equal(drawn[clip], rendered.masks[:, 0, 0] > 0)
        found = pixels[clip].permute(0, 3, 1, 2).float() / 127.5 - 1
        torch.testing.assert_close(found, rendered.pixels[:, 0], atol=1.01 / 255, rtol=0)


def test_a_film_begins_with_its_source_and_leaves_it():
    filmed = film([5], **SHAPE)
    assert (filmed.rgb[0, :, 0] == filmed.source[0, 0]).float().mean() > 0.99
    assert (filmed.rgb[0, :, -1] != filmed.source[0, 0]).float().mean() > 0.3
    visible = filmed.visible()
    assert visible[:, :, 0].float().mean() > 0.97
    assert 0.5 < visible[:, :, -1].float().mean() < 0.99


def test_only_a_moving_scene_changes_before_a_camera_at_rest():
    rest, moving = (film([6], moving=moving, **SHAPE) for moving in (False, True))
    assert rest.source.shape[1] == 1
    assert moving.source.shape[1] == SHAPE["frames"]
    assert torch.equal(moving.source[:, 0], rest.source[:, 0])
    assert (moving.source[:, -1] != moving.source[:, 0]).any()


def test_a_mix_holds_both_path_lengths_and_moving_scenes(monkeypatch):
    monkeypatch.setattr("lyra_pack.comfyui_lyra.training.world.filming.AT_ONCE", 1)
    parts = list(film_mix(range(3), size=(16, 16), frames=2))
    assert [part.source.shape[1] for part in parts] == [1, 1, 2]
    reach = [part.paths[0][2].c2w[-1, :3, 3].norm().item() for part in parts]  # up: 0.1-0.2 or 0.2-0.6
    assert reach[0] < 0.1 <= reach[1]


def test_splits_share_no_scene():
    seeds = [seed for split in SPLITS.values() for seed in split]
    assert len(seeds) == len(set(seeds))


def test_clips_come_with_cameras_of_their_size():
    filmed = film([7], **SHAPE)
    assert len(still(filmed.base, 3)) == 3
    assert {(path.height, path.width, len(path)) for path in filmed.paths[0]} == {(24, 40, 5)}

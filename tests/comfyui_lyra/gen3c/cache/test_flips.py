from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import Cache3D
from lyra_pack.comfyui_lyra.gen3c.cache.flips import flip


@pytest.fixture
def moving(clip):
    """A clip whose own camera moves and zooms."""
    c2w, K = clip.cameras.c2w.clone(), clip.cameras.K.clone()
    c2w[:, 1, 3] = 0.02 * torch.arange(9)
    K[:, :2, :2] *= 1 + 0.01 * torch.arange(9)[:, None, None]
    return replace(clip, cameras=replace(clip.cameras, c2w=c2w, K=K))


def seen(geometry, path) -> torch.Tensor:
    """Each time of a clip drawn into the path's camera of that time, by itself."""
    cache = Cache3D.of(geometry)
    return torch.cat([cache[t : t + 1].render(path[t : t + 1]).pixels[:, 0] for t in range(len(path))])


def test_flipped_paths_end_where_the_forward_ones_begin(moving):
    paths = camera_paths(moving.cameras, PathSettings("six_paths", 9))
    reverse, flipped = flip(moving, paths)
    assert torch.equal(reverse.frames[0], moving.frames[-1]) and torch.equal(reverse.depth[0], moving.depth[-1])
    for forward, path in zip(paths, flipped, strict=True):
        turned = path.backwards()
        assert path.name == forward.name
        torch.testing.assert_close(path.c2w[0], moving.cameras.c2w[-1])  # at the source camera of the last time
        moves = [p.viewmats @ moving.cameras.c2w for p in (forward, turned)]
        torch.testing.assert_close(moves[1], moves[0].flip(0))  # the same moves, near to far and far to near
        assert torch.equal(turned.K, forward.K)


def test_a_flipped_view_agrees_with_its_saved_camera_at_every_time(moving):
    paths = camera_paths(moving.cameras, PathSettings("right", 9, movement=3))
    reverse, flipped = flip(moving, paths)
    video = seen(reverse, flipped[0]).flip(0)  # what a perfect teacher makes, turned round as it is saved
    torch.testing.assert_close(video, seen(moving, flipped[0].backwards()), rtol=0, atol=1e-5)
    wrong = seen(moving, flipped[0])  # the pose as generated: the reference saves this one
    assert (video - wrong).abs().mean() > 0.05


def test_what_cannot_be_flipped_is_named(picture, clip, two_moves):
    with pytest.raises(ValueError, match="a single picture cannot be played backwards"):
        flip(picture, two_moves)
    with pytest.raises(ValueError, match="'left' has 5 frames, the clip 9"):
        flip(clip, (two_moves[0][:5],))

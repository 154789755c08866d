from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import Cache3D
from lyra_pack.comfyui_lyra.gen3c.preview import LatentColors, preview_cache


def test_the_first_frame_shows_the_picture_where_its_depth_is_reliable(picture, two_moves):
    frames, mask = preview_cache(picture, two_moves[0])
    assert (frames.shape, mask.shape) == ((9, 32, 48, 3), (9, 32, 48))
    assert frames.isfinite().all() and frames.min() >= 0 and frames.max() <= 1
    shown = mask[0] > 0
    assert 0.5 < shown.float().mean() < 1  # depth edges are left out
    assert shown[0].all()  # sky, at infinite depth, is drawn
    off = (frames[0] - picture.frames[0]).abs().amax(-1)[shown]
    assert (off < 2e-3).float().mean() > 0.97  # rounding spreads a point over the edge here and there
    assert (frames[0][~shown] == 0).all()


@pytest.mark.parametrize("moving", [False, True])
def test_every_nth_frame_is_that_of_the_whole_path(moving, picture, clip, two_moves):
    geometry = clip if moving else picture
    frames, mask = preview_cache(geometry, two_moves[0])
    some, their_mask = preview_cache(geometry, two_moves[0], every=4)
    assert len(some) == 3
    assert torch.equal(their_mask, mask[::4])
    torch.testing.assert_close(some, frames[::4], atol=2e-3, rtol=0)


def test_the_preview_is_what_the_cache_draws(clip, two_moves):
    steps = []
    frames, mask = preview_cache(clip, two_moves[1], 1, False, on_step=lambda *step: steps.append(step))
    drawn = Cache3D.of(clip).render(two_moves[1], foreground_masking=False)
    torch.testing.assert_close(frames.permute(0, 3, 1, 2) * 2 - 1, drawn.pixels[:, 0])
    assert torch.equal(mask, drawn.masks[:, 0, 0])
    assert steps[-1] == (9, 9)
    masked, _ = preview_cache(clip, two_moves[1])
    assert not torch.equal(masked, frames)


def test_a_path_of_another_length_is_refused(clip, two_moves):
    with pytest.raises(ValueError, match="a clip of 9 frames for camera path 'left' of 5; make the path from this"):
        preview_cache(clip, replace(two_moves[0], c2w=two_moves[0].c2w[:5], K=two_moves[0].K[:5]))


def test_colours_are_found_where_they_depend_on_the_latents_linearly():
    generator = torch.Generator().manual_seed(0)
    latents, others = torch.randn(2, 16, 12, 20, generator=generator)
    weights = 0.05 * torch.randn(16, 3, generator=generator)
    rgb = [torch.einsum("chw,cr->hwr", x, weights) + 0.5 for x in (latents, others)]
    picture = rgb[0].repeat_interleave(8, 0).repeat_interleave(8, 1)
    colors = LatentColors.of(latents, picture)
    torch.testing.assert_close(colors(others), rgb[1].clamp(0, 1), atol=0.01, rtol=0)


def test_a_picture_of_one_colour_makes_no_wild_colours():
    latents = torch.randn(16, 1, 1, generator=torch.Generator().manual_seed(0)).expand(16, 4, 6)
    colors = LatentColors.of(latents, torch.full((32, 48, 3), 0.25))
    torch.testing.assert_close(colors(latents), torch.full((4, 6, 3), 0.25), atol=0.01, rtol=0)
    assert (colors(2 * latents) - 0.25).abs().max() < 0.5

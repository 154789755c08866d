import logging
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.rays import rays
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.recon.inputs import EncodeCache, view_order
from lyra_pack.comfyui_lyra.recon.reconstruct import reconstruct
from lyra_pack.comfyui_lyra.recon.schedule import Schedule


@pytest.fixture
def scene(two_paths) -> MultiViewLatents:
    values = torch.randn(2, 4, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    return MultiViewLatents(latents=VideoLatents(values=values), cameras=two_paths, family="lyra", dynamic=True)


def test_splats_lie_on_the_rays_of_the_returned_cameras(tiny, random_model, pool, scene):
    model = random_model(replace(tiny, bf16_rays=False))
    found, cameras = reconstruct(model, pool, scene, (3,), keep=1)
    (gaussians,) = found.frames
    torch.testing.assert_close(cameras[-1].c2w[0], torch.eye(4), rtol=0, atol=1e-6)
    traced = [rays(cameras[view], 8) for view in view_order(2)]  # splats are in the decoder's order of views
    origins, directions = (torch.cat(part).movedim(1, -1).reshape(-1, 3) for part in zip(*traced, strict=True))
    offset = gaussians.means - origins
    distance = (offset * directions).sum(-1, keepdim=True)
    torch.testing.assert_close(offset, distance * directions, rtol=1e-4, atol=1e-3)
    assert tiny.near <= distance.min() and distance.max() <= tiny.far
    gaussians.check_finite()


def test_many_times_equal_one_call_each(tiny_model, pool, scene, columns):
    together, _ = reconstruct(tiny_model, pool, scene, (0, 4, 8))
    shared = pool.encodes
    assert together.times == (0, 4, 8)
    for time, frame in zip(together.times, together.frames, strict=True):
        alone, _ = reconstruct(tiny_model, pool, scene, (time,), schedule=Schedule(segment=11))
        torch.testing.assert_close(columns(alone.frames[0]), columns(frame), rtol=1e-5, atol=1e-5)
    assert not torch.equal(together.frames[0].colors, together.frames[2].colors)
    # two halves of two views; times of the frames and of each target; nothing else, and nothing twice
    assert shared == 2 * 2 + 3 * 2 and pool.encodes == shared + 3 * (2 * 2 + 2)


def test_splats_go_where_they_are_to_be_stored(tiny_model, pool, scene):
    found, cameras = reconstruct(tiny_model, pool, scene, (0, 8), store=torch.device("meta"))
    assert {frame.means.device.type for frame in found.frames} == {"meta"}
    assert cameras[0].c2w.device.type == "cpu"


def test_a_static_decoder_makes_one_set_and_encodes_no_times(tiny, random_model, pool, scene):
    still = replace(scene, dynamic=False)
    found, _ = reconstruct(random_model(replace(tiny, dynamic=False)), pool, still, (5, 6))
    assert found.times == (0,) and pool.encodes == 4
    assert len(found.frames[0]) == int(2 * 9 * 4 * 6 * tiny.keep)


def test_encodes_are_kept_for_later_calls(tiny_model, pool, scene):
    cache = EncodeCache()
    first, _ = reconstruct(tiny_model, pool, scene, (0, 8), cache=cache)
    encodes = pool.encodes
    again, _ = reconstruct(tiny_model, pool, scene, (8, 0), cache=cache)
    assert pool.encodes == encodes
    assert torch.equal(first.frames[0].means, again.frames[1].means)
    moved = replace(scene.cameras[0], c2w=scene.cameras[0].c2w.roll(1, 0))
    reconstruct(tiny_model, pool, replace(scene, cameras=(moved, scene.cameras[1])), cache=cache)
    assert pool.encodes == encodes + 2  # one path is new


def test_latents_are_denormalised_with_the_statistics_of_their_frames(tiny_model, pool, scene, columns):
    values = scene.latents.values
    found, _ = reconstruct(tiny_model, pool, scene)
    pool.mean, pool.std = torch.zeros(4, 2), torch.full((4, 2), 0.5)
    raw = (
        values / 0.5 * torch.linspace(1, 2, 12).view(4, 3, 1, 1)[:, :2]
        + torch.linspace(-1, 1, 12).view(4, 3, 1, 1)[:, :2]
    )
    same, _ = reconstruct(tiny_model, pool, replace(scene, latents=VideoLatents(values=raw)))
    torch.testing.assert_close(columns(same.frames[0]), columns(found.frames[0]), rtol=1e-4, atol=1e-4)


def test_progress_counts_views_and_blocks(tiny, tiny_model, pool, scene):
    seen = []
    reconstruct(tiny_model, pool, scene, (0, 1), on_step=lambda done, total: seen.append((done, total)))
    total = 2 + 2 * tiny.blocks
    assert seen == [(i + 1, total) for i in range(total)]


def test_untrained_sizes_and_moving_scenes_warn(tiny, random_model, pool, scene, caplog):
    with caplog.at_level(logging.WARNING, "lyra"):
        reconstruct(random_model(tiny), pool, scene)
        assert not caplog.records
        reconstruct(random_model(replace(tiny, trained_frames=121, dynamic=False)), pool, scene)
    size, moving = (record.getMessage() for record in caplog.records)
    assert size == "the splat decoder was trained on 121 frames of 48x32; 9 frames of 48x32 may leave holes"
    assert "moving scene" in moving


def changed(scene, **latents):
    return replace(scene, latents=replace(scene.latents, **latents))


@pytest.mark.parametrize(
    ("change", "times", "message"),
    [
        (lambda s: replace(s, family="mini"), (0,), "latents of family 'mini', tokenizer 'lyra' and .* 'lyra'"),
        (lambda s: changed(s, space="tokenizer"), (0,), "in tokenizer space already; expected diffusion space"),
        (
            lambda s: changed(s, values=s.latents.values[..., :-1]),
            (0,),
            r"\(4, 2, 4, 5\) do not fit their cameras.*4, 6\)",
        ),
        (lambda s: s, (), r"bullet times \[\]: give one or more frame indices in 0..8"),
        (lambda s: s, (0, 9), r"bullet times \[0, 9\]: .* in 0..8"),
        (lambda s: s, (-1,), r"bullet times \[-1\]"),
        (
            lambda s: replace(s, cameras=(s.cameras[0][:8], s.cameras[1])),
            (0,),
            "'clockwise' has 9 frames of 48x32, 'left' has 8",
        ),
        (lambda s: replace(s, cameras=tuple(c[:8] for c in s.cameras)), (0,), r"8 frames of 48x32: .* 1 \+ 8 n frames"),
        (lambda s: replace(s, cameras=s.cameras[:1]), (0,), "2 views of latents, 1 camera paths"),
    ],
)
def test_what_does_not_belong_together_is_named(change, times, message, tiny_model, pool, scene):
    with pytest.raises(ValueError, match=message):
        reconstruct(tiny_model, pool, change(scene), times)


def test_a_clip_longer_than_the_statistics_is_refused(tiny_model, pool, scene):
    pool.mean, pool.std = pool.mean[:, :1], pool.std[:, :1]
    with pytest.raises(ValueError, match="cover 1 latent frame, the clip has 2; use at most 1 frame$"):
        reconstruct(tiny_model, pool, scene)


@pytest.mark.slow
def test_the_cosmos_tokenizer_serves(tiny_model, scene):
    from lyra_pack.comfyui_lyra.configs import TokenizerConfig
    from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder

    torch.manual_seed(0)
    config = TokenizerConfig(channels=8, multipliers=(1, 2, 3), layers=1, latent_channels=4)
    tokenizer = CosmosTokenizer(config, build_autoencoder(config), torch.zeros(4, 16), torch.ones(4, 16))
    found, _ = reconstruct(tiny_model, tokenizer, scene, (0, 8))
    assert found.times == (0, 8) and not torch.equal(found.frames[0].means, found.frames[1].means)
    found.frames[1].check_finite()

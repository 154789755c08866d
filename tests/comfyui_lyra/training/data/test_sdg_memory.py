"""Generated scenes in memory and on disk: those of ``generate``, the same in any company, twins in the clip's time."""

from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes.sdg import find_views, load_sdg, load_sdg_cameras, read_view
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import BATCH_BYTES, BYTES_A_PIXEL, Cache3D
from lyra_pack.comfyui_lyra.gen3c.cache.warp import PAIR
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings, generate
from lyra_pack.comfyui_lyra.tokenizer.clips import decode_clip
from lyra_pack.comfyui_lyra.tokenizer.model import to_uint8
from lyra_pack.comfyui_lyra.training.data import clips
from lyra_pack.comfyui_lyra.training.data.dataset import SdgDataset
from lyra_pack.comfyui_lyra.training.data.samples import Clip
from lyra_pack.comfyui_lyra.training.data.sdg_disk import write_sdg
from lyra_pack.comfyui_lyra.training.data.sdg_memory import (
    Generated,
    as_scene,
    draw_sources,
    film_scenes,
    generate_many,
    make_scenes,
    source_caches,
)
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES
from lyra_pack.comfyui_lyra.training.world import filming
from lyra_pack.comfyui_lyra.training.world.draw_scenes import draw_scenes
from lyra_pack.comfyui_lyra.training.world.raytrace import trace

pytestmark = pytest.mark.slow  # seconds together

SETTINGS = GenerateSettings(steps=3, solver="dpmpp_2m")


@pytest.fixture(scope="module")
def shape(nano_size):
    return {"size": nano_size, "frames": 9}


@pytest.mark.parametrize("moving", [False, True])
def test_one_of_many_clips_is_what_generate_makes(moving, shape, nano_teacher, nano_tokenizer):
    sources = draw_sources([10_000, 10_001], moving=moving, **shape)
    sources = [replace(source, paths=source.paths[4:]) for source in sources]
    made = generate_many(nano_teacher, nano_tokenizer, sources, SETTINGS)
    source, clip = sources[1], made[1].clips[0]
    alone = generate(
        nano_teacher, nano_tokenizer, source.geometry, source.paths[:1], settings=replace(SETTINGS, seed=source.seed)
    )
    expected = alone.latents.values[0]
    torch.testing.assert_close(clip.latents.float(), expected, atol=3e-3 * float(expected.abs().max()), rtol=0)
    frames = to_uint8(decode_clip(nano_tokenizer, expected))
    assert (clip.frames.int() - frames.int()).abs().max() <= 1
    assert clip.cameras is source.paths[0]
    depth = Cache3D.of(source.geometry).warp(source.paths[0].viewmats, source.paths[0].K).depth
    known = clip.depth > 0
    assert known.float().mean() > 0.3
    assert ((clip.depth.float() - depth).abs() < 0.01 * depth)[known].float().mean() > 0.99


STEPS = replace(SETTINGS, steps=4, guidance=3.0)


@pytest.mark.parametrize("change", [
    {"guidance_range": (1.0, 20.0)}, {"step_cache": 10.0}, {"solver": "euler"}, {"guidance": 0.0},
])  # fmt: skip
def test_every_setting_counts_as_it_does_in_generate(change, shape, small_teacher, small_tokenizer):
    (source,), settings = draw_sources([10_000], **shape), replace(STEPS, **change)
    source = replace(source, paths=source.paths[:2])
    plain, made = (generate_many(small_teacher, small_tokenizer, [source], some)[0].clips for some in (STEPS, settings))
    alone = generate(
        small_teacher, small_tokenizer, source.geometry, source.paths, settings=replace(settings, seed=source.seed)
    )
    for one, other, expected in zip(made, plain, alone.latents.values, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(one.latents.float(), expected, atol=3e-3 * scale, rtol=0)
        assert (one.latents - other.latents).abs().max() > 0.01 * scale


def test_attention_changes_with_the_noise_and_products_are_what_is_asked_for(
    shape, small_teacher, small_tokenizer, monkeypatch
):
    (source,), seen, products = draw_sources([10_000], **shape), [], []
    network = small_teacher.network
    monkeypatch.setattr(type(network), "use_linears", lambda _, linears: products.append(linears))
    hook = network.register_forward_pre_hook(lambda _, given, named: seen.append(named["backend"]), with_kwargs=True)
    settings = replace(STEPS, guidance=0.0, late_attention="torch", late_below=20.0, linears="int8")
    try:
        generate_many(small_teacher, small_tokenizer, [source], settings)
    finally:
        hook.remove()
    assert seen == ["auto", "torch", "torch", "torch"] and products == ["int8"]  # noise 80, 19.2, 1.7, 0.0002


def test_a_step_cache_decides_for_each_clip_alone(small_teacher, small_tokenizer):
    def make(*seeds):
        parts = make_scenes(
            small_teacher, small_tokenizer, seeds, settings=replace(STEPS, guidance=0.0, step_cache=0.3)
        )
        return [scene for part in parts for scene in part]

    alone, others = make(10_003), make(10_001, 10_003)
    for a, b in zip(alone[0].clips, others[1].clips, strict=True):
        assert torch.equal(a.latents, b.latents) and torch.equal(a.frames, b.frames)


@pytest.mark.parametrize("moving", [False, True])
def test_large_clips_are_made_one_by_one_from_some_frames_at_a_time(
    moving, shape, nano_teacher, nano_tokenizer, monkeypatch
):
    sources = draw_sources([10_000, 10_001], moving=moving, **shape)
    sources, drawn = [replace(source, paths=source.paths[2:4]) for source in sources], []
    together, real = generate_many(nano_teacher, nano_tokenizer, sources, SETTINGS), filming.forward_warp
    monkeypatch.setattr(filming, "LARGE", 1)
    monkeypatch.setattr(filming, "BATCH_BYTES", 1)
    monkeypatch.setattr(filming, "forward_warp", lambda image, *to: drawn.append(len(image)) or real(image, *to))
    for whole in ("encode_clips", "decode_clips"):
        monkeypatch.setattr(clips, whole, None)  # takes more memory than there is
    alone = generate_many(nano_teacher, nano_tokenizer, sources, SETTINGS)
    assert set(drawn) == {PAIR} and len(drawn) == 4 * 5
    for one, other in zip(alone, together, strict=True):
        assert one.source is other.source and len(one.clips) == 2
        for made, expected in zip(one.clips, other.clips, strict=True):
            assert made.cameras is expected.cameras and torch.equal(made.depth, expected.depth)
            scale = expected.latents.abs().max().item()
            torch.testing.assert_close(made.latents, expected.latents, atol=3e-3 * scale, rtol=0)
            assert (made.frames.int() - expected.frames.int()).abs().max() <= 1


def test_a_warp_takes_bounded_memory_at_the_released_size_and_mini_clips_go_together():
    on_a_card = filming.pictures_at_once(122, 704, 1280, torch.device("cuda"))
    assert on_a_card % PAIR == 0 and 0 < on_a_card * 704 * 1280 * BYTES_A_PIXEL <= BATCH_BYTES
    assert filming.pictures_at_once(18, 96, 160, torch.device("cuda")) == 96 * 18


def test_a_seed_is_the_same_scene_whatever_it_is_made_with(nano_teacher, nano_tokenizer):
    def make(*seeds):
        parts = make_scenes(nano_teacher, nano_tokenizer, seeds, settings=SETTINGS)
        return [scene for part in parts for scene in part]

    alone, others = make(10_003), make(10_001, 10_003, 10_004)
    assert [scene.name for scene in others] == ["10001", "10003", "10004"]
    for a, b in zip(alone[0].clips, others[1].clips, strict=True):
        assert torch.equal(a.cameras.c2w, b.cameras.c2w) and torch.equal(a.depth, b.depth)
        torch.testing.assert_close(a.latents, b.latents, atol=5e-3, rtol=0)
        assert (a.frames.int() - b.frames.int()).abs().max() <= 1
    assert not torch.equal(others[0].clips[0].frames, others[2].clips[0].frames)


def test_the_teacher_is_given_the_first_picture_and_its_holes_have_no_depth(shape):
    (source,) = draw_sources([10_002], lengths="large", **shape)
    assert len(source.geometry.frames) == 1 and len(source.paths) == 6
    drawn = source_caches([source], SETTINGS)
    assert ((drawn.mask[:, 0] > 0) == (drawn.depth > 0)).all()
    first = drawn.image[0].permute(1, 2, 0) / 2 + 0.5
    same = (first - source.geometry.frames[0]).abs().amax(-1) < 0.02
    assert same[drawn.mask[0, 0] > 0].float().mean() > 0.95
    assert (drawn.mask[8] == 0).float().mean() > (drawn.mask[0] == 0).float().mean()


def test_flipped_twins_show_each_time_from_the_cameras_they_are_stored_with(shape, warp_error):
    """Flip and turn round true films instead of generated ones: frame t of view 6 + k against frame t of view k."""
    (source,) = draw_sources([10_006], moving=True, lengths="paper", **shape)
    scene, times = draw_scenes([10_006], moving=True), torch.linspace(0, 1, 9)

    def filmed(of, when):
        traced = trace(scene[[0] * 6], of.paths, when)
        clips = [Clip(frames=f, depth=d, cameras=p) for f, d, p in zip(traced.rgb, traced.depth, of.paths, strict=True)]
        return Generated(source=of, clips=tuple(clips))

    made = as_scene(filmed(source, times), filmed(source.flipped(), times.flip(0)))
    assert made.paths == 6 and len(made.clips) == 12
    for view in (0, 2, 5):
        for frame in (0, 3, 8):
            views = (made.clips[6 + view], made.clips[view])
            parts = [(c.frames[frame], c.depth[frame], c.cameras[torch.tensor([frame])]) for c in views]
            seen, error = warp_error(*parts[0], *parts[1])
            assert seen > 0.3 and error < 0.02
            wrong = views[0].cameras[torch.tensor([8 - frame])]  # the reference's mistake: poses left as they were made
            _, bad = warp_error(*parts[0][:2], wrong, *parts[1])
            assert frame == 3 or bad > 2 * error or view == 5  # circles end where they begin
    near, far = made.clips[6].cameras.c2w[[-1, 0], :3, 3].norm(dim=-1)
    assert near < 1e-6 < 0.1 < far


def test_moving_scenes_have_twins_without_latents(nano_teacher, nano_tokenizer):
    ((scene,),) = make_scenes(nano_teacher, nano_tokenizer, [10_000], moving=True, settings=SETTINGS)
    assert (scene.paths, len(scene.clips)) == (6, 12)
    assert [clip.latents is None for clip in scene.clips] == [False] * 6 + [True] * 6
    assert torch.equal(scene.clips[6].cameras.c2w.flip(0), scene.clips[0].cameras.c2w)


def test_true_films_come_as_scenes_too(shape, nano_tokenizer):
    ((scene,),) = film_scenes(nano_tokenizer, [10_000], lengths="paper", **shape)
    assert len(scene.clips) == 6 and scene.clips[3].latents.shape == (16, 2, 4, 6)
    assert scene.clips[0].depth.isfinite().all() and scene.clips[0].depth.max() < 20
    parts = list(film_scenes(nano_tokenizer, [10_000, 10_001, 10_002], **shape))
    assert [[scene.name for scene in part] for part in parts] == [["10000", "10002"], ["10001"]]
    assert torch.equal(parts[0][0].clips[3].frames, scene.clips[3].frames)


@pytest.mark.slow
def test_scenes_on_disk_are_those_in_memory(tmp_path, nano_size, nano_teacher, nano_tokenizer):
    root = tmp_path / "sdg"
    write_sdg(root, nano_teacher, nano_tokenizer, [10_000], moving=True, settings=SETTINGS)
    ((scene,),) = make_scenes(nano_teacher, nano_tokenizer, [10_000], moving=True, settings=SETTINGS)
    stored = load_sdg(root, "10000")
    torch.testing.assert_close(stored.latents.values[2], scene.clips[2].latents.float(), atol=5e-3, rtol=0)
    assert len(load_sdg_cameras(root, "10000")) == 6  # the time-flipped twins are for training only
    cameras = [read_view(view, "10000", None) for view in find_views(root)]
    assert len(cameras) == 12
    for path, clip in zip(cameras, scene.clips, strict=True):
        torch.testing.assert_close(path.c2w, clip.cameras.c2w, atol=1e-6, rtol=0)
    stage = replace(MINI_STAGES["m6"], size=nano_size, input_frames=9, target_views=3)
    dataset = SdgDataset([root], stage, state=tmp_path / "state")
    sample = dataset.sample(0)
    assert sample.latents.shape[1:] == (16, 2, 4, 6) and len(sample.targets) == 3
    assert (sample.depth > 0).any()

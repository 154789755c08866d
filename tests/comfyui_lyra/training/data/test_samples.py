from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import relative_to
from lyra_pack.comfyui_lyra.training.data.samples import Clip, ClipScene, make_sample
from lyra_pack.comfyui_lyra.training.data.sampling import Draw
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES
from lyra_pack.comfyui_lyra.training.world.draw_scenes import draw_scenes, scene_paths
from lyra_pack.comfyui_lyra.training.world.raytrace import trace

HEIGHT, WIDTH, FRAMES = 32, 48, 9
STAGE = replace(MINI_STAGES["m4"], size=(HEIGHT, WIDTH), input_frames=FRAMES)
EVERY = tuple(range(FRAMES))
WHOLE = Draw(
    views=(2, 0, 1), inputs=(EVERY,) * 3, targets=tuple((view, frame) for view in (2, 0, 1) for frame in EVERY[::4])
)


def clips(kind: torch.dtype = torch.float32) -> tuple[Clip, ...]:
    paths = scene_paths(0, FRAMES, HEIGHT, WIDTH)[:3]
    made = trace(draw_scenes([0])[[0] * 3], paths, torch.zeros(FRAMES), supersample=1)
    frames = (made.rgb * 255).round().to(torch.uint8) if kind == torch.uint8 else made.rgb
    latents = torch.arange(3.0)[:, None, None, None, None].expand(3, 16, 2, HEIGHT // 8, WIDTH // 8)
    parts = zip(frames, paths, made.depth, latents, strict=True)
    return tuple(Clip(frames=f, cameras=p, depth=d, latents=z) for f, p, d, z in parts)


@pytest.fixture(scope="module")
def scene() -> ClipScene:
    return ClipScene(name="zero", paths=3, clips=clips())


def test_inputs_and_targets_come_in_the_drawn_order_from_the_drawn_views(scene):
    targets = ((2, 3), (0, 8), (2, 3), (2, 1))
    drawn = Draw(views=(2, 0), inputs=(EVERY, EVERY), targets=targets)
    sample = make_sample(STAGE, scene, drawn)
    assert sample.latents[:, 0, 0, 0, 0].tolist() == [2, 0] and sample.pictures is None
    for i, (view, frame) in enumerate(targets):
        clip = scene.clips[view]
        assert torch.allclose(sample.targets[i], clip.frames[frame], atol=1e-6)
        known = clip.depth[frame].isfinite()
        assert torch.equal(sample.depth[i], torch.where(known, clip.depth[frame], 0))
        (moved,) = relative_to([clip.cameras], scene.clips[2].cameras.c2w[0])
        assert torch.allclose(sample.target_cameras.c2w[i], moved.c2w[frame], atol=1e-6)
    assert torch.allclose(sample.cameras[1].c2w, relative_to([scene.clips[0].cameras],
                          scene.clips[2].cameras.c2w[0])[0].c2w)  # fmt: skip
    assert sample.time is None and torch.allclose(sample.times, torch.linspace(0, 1, FRAMES))


def test_the_bullet_time_is_on_the_clock_of_the_inputs(scene):
    drawn = Draw(views=(0,), inputs=(EVERY,), targets=((1, 2), (0, 2)), time=2)
    sample = make_sample(STAGE, scene, drawn)
    assert sample.time.tolist() == [0.25] and sample.times[2] == 0.25


def test_another_size_changes_pictures_depth_and_cameras_alike(scene):
    small = replace(STAGE, size=(16, 24), encodes_frames=True)
    drawn = Draw(views=(1,), inputs=((0, 2, 4, 6, 8),), targets=((1, 4),))
    sample = make_sample(small, scene, drawn)
    assert sample.pictures.shape == (1, 5, 16, 24, 3) and sample.depth.shape == (1, 16, 24)
    assert torch.allclose(sample.target_cameras.K[0, :2] * 2, scene.clips[1].cameras.K[4, :2])
    assert torch.allclose(sample.pictures[0, 2], sample.targets[0])
    assert torch.allclose(sample.times, torch.tensor([0, 0.25, 0.5, 0.75, 1]))


def test_bytes_are_as_good_as_floats(scene):
    small = ClipScene(name="zero", paths=3, clips=clips(torch.uint8))
    found, expected = (make_sample(STAGE, one, WHOLE) for one in (small, scene))
    assert (found.targets - expected.targets).abs().max() < 0.003 and len(found.targets) == 9


def test_without_fitting_latents_a_stage_must_encode_pictures(scene):
    bare = replace(scene, clips=tuple(replace(clip, latents=None, depth=None) for clip in scene.clips))
    sample = make_sample(replace(STAGE, encodes_frames=True), bare, WHOLE)
    assert sample.latents is None and sample.pictures.shape[:2] == (3, FRAMES) and (sample.depth == 0).all()
    with pytest.raises(ValueError, match=r"scene zero has no latents \[T h w\] \(2, 4, 6\) of all views \(2, 0, 1\)"):
        make_sample(STAGE, bare, WHOLE)
    with pytest.raises(ValueError, match="has no latents"):
        make_sample(replace(STAGE, size=(16, 24)), scene, WHOLE)
    part = Draw(views=(0,), inputs=((0, 1, 2),), targets=((0, 1),))
    with pytest.raises(ValueError, match="has clips of 9 frames and latents of these only; 3 are wanted"):
        make_sample(replace(STAGE, input_frames=3), scene, part)


def test_backwards_turns_everything_but_the_latents(scene):
    clip = scene.clips[0]
    turned = clip.backwards()
    assert torch.equal(turned.frames[0], clip.frames[-1]) and torch.equal(turned.depth[2], clip.depth[-3])
    assert torch.equal(turned.cameras.c2w, clip.cameras.c2w.flip(0)) and turned.latents is None

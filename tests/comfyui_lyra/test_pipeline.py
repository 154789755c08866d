from dataclasses import replace

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings
from lyra_pack.comfyui_lyra.files.media.images import save_image
from lyra_pack.comfyui_lyra.files.media.video import save_video
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg
from lyra_pack.comfyui_lyra.files.scenes.sdg_writer import PathStore
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.pipeline import (
    build_scene,
    encode_prompt,
    films,
    fitted,
    paths_for,
    picture_geometry,
    refine,
)
from lyra_pack.comfyui_lyra.recon.inputs import in_splat_world
from lyra_pack.comfyui_lyra.recon.reconstruct import reconstruct
from lyra_pack.comfyui_lyra.refine.schedule import RefineSettings
from lyra_pack.comfyui_lyra.splats.render import render
from lyra_pack.comfyui_lyra.tokenizer.clips import decode

QUICK = GenerateSettings(steps=2, guidance=0.0)
BRIEF = RefineSettings(steps=6, batch=2)


@pytest.fixture
def filmed(two_moves, small_tokenizer):
    """Latents of two moves through a moving scene."""
    values = torch.randn(2, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    return MultiViewLatents(
        latents=VideoLatents(values=values), cameras=two_moves, family=small_tokenizer.config.family, dynamic=True
    )


@pytest.fixture
def photo(tmp_path):
    """Files of a 96x80 picture, wider than the models want, and of its depth in metres, of half the size."""
    gen = torch.Generator().manual_seed(0)
    save_image(tmp_path / "photo.png", torch.rand(80, 96, 3, generator=gen))
    depth = np.full((40, 48), 6.0, np.float32)
    depth[10:30, 20:40] = 3.0
    np.savez(tmp_path / "depth.npz", depth=depth)
    return tmp_path / "photo.png", tmp_path / "depth.npz"


def test_from_a_photo_to_frames(photo, tmp_path, small_teacher, small_tokenizer, small_recon):
    geometry = picture_geometry(*photo)
    assert (geometry.frames.shape, geometry.scale, geometry.center_depth) == ((1, 80, 96, 3), 6.0, 1.0)
    seen = []
    scene = build_scene(
        small_teacher, small_tokenizer, small_recon, geometry,
        settings=QUICK, times=(0, 8), store=PathStore(tmp_path / "out", "photo"),
        progress=lambda label: lambda done, total: seen.append((label, done, total)),
    )  # fmt: skip
    assert [path.name for path in scene.latents.cameras] == ["left", "right", "up", "zoom_out", "zoom_in", "clockwise"]
    assert (len(scene.splats), len(scene.splats.frames[0])) == (2, int(6 * 9 * 4 * 6 * 0.3))
    assert seen[11] == ("generate", 12, 12) and seen[-1][0] == "reconstruct" and seen[-1][1] == seen[-1][2]
    frames = render(scene.splats.frames[1], scene.cameras[3])
    assert frames.rgb.shape == (9, 32, 48, 3) and frames.rgb.isfinite().all() and frames.alpha.max() > 0
    torch.testing.assert_close(scene.cameras[5].c2w[0], torch.eye(4))
    # the folder that was written reconstructs to the same splats
    splats, _ = reconstruct(small_recon, small_tokenizer, load_sdg(tmp_path / "out"), (8,))
    torch.testing.assert_close(splats.frames[0].means, scene.splats.frames[1].means)


def test_from_a_clip_to_frames(clip, small_teacher, small_tokenizer, small_recon):
    scene = build_scene(
        small_teacher, small_tokenizer, small_recon, clip, moves=PathSettings("zoom_in"), settings=QUICK, times=(4,)
    )
    assert scene.latents.dynamic and [path.name for path in scene.cameras] == ["zoom_in"]
    assert render(scene.splats.frames[0], scene.cameras[0]).rgb.shape == (9, 32, 48, 3)


def test_pictures_of_any_size_are_brought_to_the_models(photo, small_teacher):
    config = small_teacher.config
    geometry = picture_geometry(*photo, fov=60)
    paths = paths_for(geometry, config, PathSettings(movement=2, seed=3))
    assert {(len(p), p.height, p.width, p.fps) for p in paths} == {(9, 80, 96, 24.0)}
    small, cameras = fitted(geometry, paths, *config.trained_size)
    assert small.frames.shape == (1, 32, 48, 3)
    for path in cameras:
        assert (path.height, path.width) == (32, 48)
        torch.testing.assert_close(path.K[0], small.cameras.K[0])
    same, unchanged = fitted(small, cameras, *config.trained_size)
    assert same is small and torch.equal(unchanged[0].K, cameras[0].K)
    with pytest.raises(ValueError, match="'left' is of 48x32 pictures, the geometry of 96x80; make the camera paths"):
        fitted(geometry, cameras, *config.trained_size)


def test_a_video_with_depth_is_of_a_camera_that_stood_still(tmp_path):
    save_video(tmp_path / "clip.mp4", torch.rand(9, 32, 48, 3), 12)
    np.savez(tmp_path / "depth.npz", depth=np.full((9, 16, 24), 2.0, np.float32))
    geometry = picture_geometry(tmp_path / "clip.mp4", tmp_path / "depth.npz", fov=50, scale="as_is")
    assert geometry.frames.shape == (9, 32, 48, 3) and torch.all(geometry.depth == 2)
    assert geometry.cameras.fps == 12 and torch.equal(geometry.cameras.c2w, torch.eye(4).repeat(9, 1, 1))
    some = picture_geometry(tmp_path / "clip.mp4", tmp_path / "depth.npz", fov=50, start=2, count=5)
    torch.testing.assert_close(some.frames, geometry.frames[2:7])
    assert len(some.depth) == 5
    np.savez(tmp_path / "short.npz", depth=np.full((4, 16, 24), 2.0, np.float32))
    with pytest.raises(ValueError, match="short.npz: 4 depth pictures for 9 frames of .*clip.mp4"):
        picture_geometry(tmp_path / "clip.mp4", tmp_path / "short.npz")


def test_paths_of_a_clip_stand_on_its_own_cameras(clip, small_teacher):
    c2w = clip.cameras.c2w.clone()
    c2w[:, 1, 3] = torch.arange(9)
    moving = replace(clip, cameras=replace(clip.cameras, c2w=c2w, fps=30.0))
    (path,) = paths_for(moving, small_teacher.config, PathSettings("left"))
    assert (len(path), path.fps) == (9, 30.0)
    assert path.c2w[-1, 1, 3] > 7


def test_depth_of_another_shape_is_refused(photo, tmp_path):
    np.savez(tmp_path / "wide.npz", depth=np.ones((40, 60), np.float32))
    with pytest.raises(ValueError, match="wide.npz: depth of 60x40 for a picture of 96x80; make the depth from this"):
        picture_geometry(photo[0], tmp_path / "wide.npz")


def test_decoding_shows_one_view_and_passes_the_check(clip, two_moves, small_teacher, small_tokenizer, small_recon):
    scene = build_scene(small_teacher, small_tokenizer, small_recon, clip, moves=PathSettings("left"), settings=QUICK)
    frames = decode(small_tokenizer, scene.latents, 0)
    assert frames.shape == (9, 32, 48, 3) and frames.min() >= 0 and frames.max() <= 1
    assert torch.equal(decode(small_tokenizer, scene.latents, 0, lambda seen: 1 - seen), 1 - frames)
    with pytest.raises(ValueError, match="view 1: the latents have 1 view,"):
        decode(small_tokenizer, scene.latents, 1)
    with pytest.raises(ValueError, match="latents of family 'lyra' and tokenizer 'small' do not belong together"):
        decode(small_tokenizer, replace(scene.latents, family="lyra"), 0)


def test_a_prompt_passes_the_check_before_anything_is_loaded(tmp_path, small_teacher):
    def refuse(prompt: str) -> str:
        raise ValueError(f"'{prompt}' is not allowed")

    with pytest.raises(ValueError, match="'a cat' is not allowed"):
        encode_prompt(tmp_path, small_teacher.config, "a cat", check_prompt=refuse)


def test_splats_of_each_time_are_refined_and_measured(filmed, clip, small_tokenizer, cloud):
    seen = []
    found = refine(
        [cloud, cloud], in_splat_world(filmed.cameras), filmed, small_tokenizer, clip,
        settings=BRIEF, times=(0, 4), on_step=lambda *step: seen.append(step),
    )  # fmt: skip
    assert [len(splats) for splats in found.splats] == [80, 80]
    for before, after in zip(found.before, found.after, strict=True):
        assert after.frames > before.frames and after.picture > before.picture
    assert seen == [(step, 12) for step in range(1, 13)]
    first = sum(score.picture for score in found.before) / 2, sum(score.picture for score in found.after) / 2
    assert "12 steps for 2 bullet times in" in found.report()
    assert "first picture {:.2f} -> {:.2f} dB, teacher's frames".format(*first) in found.report()


def test_without_a_geometry_the_report_has_no_picture(filmed, small_tokenizer, cloud):
    found = refine([cloud], in_splat_world(filmed.cameras), filmed, small_tokenizer, settings=BRIEF)
    assert "first picture -, teacher's frames" in found.report() and found.after[0].picture is None


def test_splats_that_became_no_better_stay_as_they_were(filmed, small_tokenizer, cloud):
    found = refine(
        [cloud], in_splat_world(filmed.cameras), filmed, small_tokenizer, settings=BRIEF, enough=lambda: True
    )
    assert found.splats[0] is cloud and found.after == found.before and found.runs[0].steps == 0


def test_frames_may_be_compared_at_half_size(filmed, picture, small_tokenizer, cloud):
    whole, half = films(small_tokenizer, filmed), films(small_tokenizer, filmed, 2)
    decoded = torch.stack([decode(small_tokenizer, filmed, view) for view in range(2)])
    assert torch.equal(whole, (decoded * 255).round().byte())
    still = replace(filmed, dynamic=False)
    assert half.shape == (2, 9, 16, 24, 3)
    assert (whole[:, :, ::2, ::2].float().mean() - half.float().mean()).abs() < 2
    found = refine(
        [cloud], in_splat_world(still.cameras), still, small_tokenizer, picture, settings=replace(BRIEF, shrink=2)
    )
    assert found.after[0].frames > found.before[0].frames


def test_each_set_of_splats_needs_its_time(filmed, small_tokenizer, cloud):
    with pytest.raises(ValueError, match=r"2 sets of splats for the bullet times \[0\]; name one for each"):
        refine([cloud, cloud], in_splat_world(filmed.cameras), filmed, small_tokenizer, settings=BRIEF)

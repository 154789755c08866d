import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, relative_to
from lyra_pack.comfyui_lyra.files.cameras.pinhole import pinhole_matrix, pinhole_numbers
from lyra_pack.comfyui_lyra.geometry.pictures import crop_resize
from lyra_pack.comfyui_lyra.latents import VideoLatents
from lyra_pack.comfyui_lyra.recon.inputs import time_embedding
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians
from lyra_pack.comfyui_lyra.splats.pruning import most_opaque
from lyra_pack.comfyui_lyra.training.data import sampling
from lyra_pack.comfyui_lyra.training.data.sampling import (
    draw,
    draw_weighted,
    mirrored,
    normalised_times,
)
from lyra_pack.comfyui_lyra.training.data.streams import Streams
from lyra_pack.comfyui_lyra.training.losses import sanitise_depth
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES, STAGES

GOLDEN = "training/sampling"


def stage_named(config: str):
    """The stage of the reference's config: its size, frames, number of views and kind."""
    height, width, frames = map(int, re.search(r"res_(\d+)_(\d+)_views_(\d+)", config).groups())
    views = int((re.search(r"multi_(\d+)", config) or [0, "1"])[1])
    wanted = ((height, width), frames, views, "dynamic" in config, "prune" in config)
    (stage,) = (
        s for s in STAGES.values() if (s.size, s.input_frames, s.max_views, s.dynamic, s.keep < 1) == wanted
    )  # fmt: skip
    return stage


@pytest.mark.golden(GOLDEN)
def test_training_draws_equal_the_reference_number_by_number(golden):
    cases = [case for case in golden.meta["cases"] if case["training"]]
    assert cases
    for case in cases:
        stage = stage_named(case["config"])
        if case["overrides"].get("select_target_views_input_dynamic"):
            stage = replace(stage, flipped=False)
        found = draw(stage, Streams(case["rng_seed"]), case["total_frames"], case["cameras"])
        views, frames = [view for view, _ in found.targets], [frame for _, frame in found.targets]
        assert len(found.views) == case["num_input_multi_views"] == len(found.inputs)
        if stage.dynamic:
            assert set(frames) == {found.time} and len(set(found.inputs)) == 1
            assert [*found.inputs[0], found.time] == case["frame_indices"]
            assert [str(view) for view in (*found.views, *views)] == case["view_indices"]
        else:
            count = stage.target_frames
            assert [frame for view in found.inputs for frame in view] + frames[:count] == case["frame_indices"]
            assert [str(view) for view in found.views] == case["view_indices"]
            assert found.targets == tuple((view, frame) for view in found.views for frame in frames[:count])
            assert found.time is None


@pytest.mark.golden(GOLDEN)
def test_weighted_draws_and_their_probabilities(golden):
    for case in golden.meta["weighted_sample"]:
        found = draw_weighted(Streams(case["rng_seed"]), range(case["n"]), case["k"], case["bias"])
        assert list(found) == case["values"]
        shares = sampling.shares(case["n"], case["bias"])
        if case["probs"] is None:
            assert shares is None
        else:
            assert np.allclose(shares[case["values"]], case["probs"], rtol=1e-6)
    (key,) = (key for key in golden if key.startswith("exp_probs"))
    expected = golden[key].numpy()
    shares = sampling.shares(len(expected), "exponential")
    assert np.allclose(shares, expected, rtol=1e-5)
    assert shares[-1] / shares[0] == pytest.approx(golden.meta["exp_prob_ratio_last_first"])
    assert (shares * np.arange(len(shares))).sum() == pytest.approx(golden.meta["exp_mean_index_single_draw"])


@pytest.mark.golden(GOLDEN)
def test_mirrored_clips(golden):
    for case in golden.meta["mirror"]:
        arguments = (Streams(case.get("rng_seed", 0)), case["sampling"], case["total"])
        if "error" in case:
            with pytest.raises(ValueError, match="1 frame cannot be mirrored; at least 2"):
                mirrored(*arguments)
        else:
            assert list(mirrored(*arguments, case["stride"], case["start_index"])) == case["out"]


@pytest.mark.golden(GOLDEN)
def test_times_and_their_embedding(golden):
    names = [key.split(".")[1] for key in golden if key.endswith(".normalized")]
    assert names
    for name in names:
        expected = golden[f"time_embed.{name}.normalized"]
        # the frames behind these times: any multiple and offset of them normalises to the same
        assert torch.allclose(normalised_times((expected * 840 + 3).tolist()), expected, rtol=1e-5, atol=1e-7)
        assert torch.allclose(time_embedding(expected), golden[f"time_embed.{name}.dim3_orig"], rtol=1e-5, atol=1e-7)


@pytest.mark.golden(GOLDEN)
def test_the_time_embedding_is_the_smallest_case_of_sinusoidal_features(golden):
    def features(times, size, keep_raw):
        """[t | cos | sin] with frequencies 10000^(-k/half); an odd size ends in zeros."""
        left = size - keep_raw
        rates = 10000.0 ** (-torch.arange(left // 2) / (left // 2))
        angles = times[:, None] * rates
        parts = [times[:, None]] * keep_raw + [angles.cos(), angles.sin(), torch.zeros(len(times), left % 2)]
        return torch.cat(parts, 1)

    plain = [key for key in golden if key.endswith("_plain")]
    assert plain
    for key in plain:
        expected = golden[key]
        times = torch.linspace(0, 1, len(expected))
        assert torch.allclose(features(times, expected.shape[1], False), expected, rtol=1e-5, atol=1e-7)
    times = torch.linspace(0, 1, 9)
    assert torch.allclose(time_embedding(times), features(times, 3, True))


@pytest.mark.golden(GOLDEN)
def test_pictures_depth_and_intrinsics_are_cropped_and_resized_together(golden):
    for name, case in golden.meta["preprocess"].items():
        rgb, depth, K = (golden[f"pre.{name}.{part}_in"] for part in ("rgb", "depth", "K"))
        height, width = case["out"]
        assert list(rgb.shape[2:]) == case["in"]
        cameras = CameraTrajectory(
            c2w=torch.eye(4).repeat(len(K), 1, 1), K=pinhole_matrix(K), height=rgb.shape[2], width=rgb.shape[3]
        )
        found = pinhole_numbers(cameras.resized(height, width))
        assert torch.allclose(found, golden[f"pre.{name}.K"], rtol=1e-5)
        assert torch.allclose(crop_resize(rgb, height, width), golden[f"pre.{name}.rgb"], rtol=1e-5, atol=1e-6)
        near = crop_resize(depth, height, width, "nearest")
        assert torch.equal(sanitise_depth(near), golden[f"pre.{name}.depth"])
        (sx, sy), (du, dv) = case["scale_uv"], case["shift_uv"]
        centre = torch.stack(((K[:, 2] + du) * sx, (K[:, 3] + dv) * sy), 1)
        assert torch.allclose(found[:, 2:], centre, rtol=1e-5)


@pytest.mark.golden(GOLDEN)
def test_poses_are_relative_to_the_first_camera(golden):
    c2w = golden["pose.c2w_in"]
    path = CameraTrajectory(c2w=c2w, K=torch.eye(3).repeat(len(c2w), 1, 1), height=1, width=1)
    (moved,) = relative_to([path], c2w[0])
    assert torch.allclose(moved.c2w, golden["pose.c2w_rel"], rtol=1e-5, atol=1e-5)
    views = golden["pose.cam_view_transposed_w2c"]
    assert torch.allclose(moved.viewmats[-len(views) :].mT, views, rtol=1e-5, atol=1e-5)


@pytest.mark.golden(GOLDEN)
def test_latents_are_denormalised(golden):
    about, raw = golden.meta["latent"], golden["latent.raw_cat_views"]
    values = raw.unflatten(0, (about["views"], -1))  # [V, C, T, h, w]
    mean, std = (golden[f"latent.{name}"][0, :, :, 0, 0] for name in ("mean", "std"))
    found = VideoLatents(values=values).to_tokenizer(mean, std).values
    assert torch.allclose(found.transpose(1, 2).flatten(0, 1), golden["latent.denorm"], rtol=1e-5, atol=1e-6)


@pytest.mark.golden(GOLDEN)
def test_pruning_keeps_the_most_opaque_and_truncates_their_number(golden):
    for scene, expected in zip(golden["prune.in"], golden["prune.out"], strict=True):
        xyz, opacities, scales, quats, colors = scene.split([3, 1, 3, 4, 3], 1)
        splats = Gaussians(means=xyz, opacities=opacities[:, 0], scales=scales, quats=quats, colors=colors)
        kept = splats.most_opaque(STAGES["multi_view_pruned"].keep)
        packed = (kept.means, kept.opacities[:, None], kept.scales, kept.quats, kept.colors)
        assert torch.equal(torch.cat(packed, 1), expected)
    for case in golden.meta["prune_counts"]:
        assert len(most_opaque(torch.zeros(case["n"]), case["keep_ratio"])) == case["keep"]


@pytest.mark.parametrize("stage", [*STAGES.values(), *MINI_STAGES.values()], ids=lambda s: s.name)
def test_every_stage_draws_within_the_clip(stage):
    for seed in range(20):
        frames = 121 if stage.input_frames > 17 or stage.name.startswith("176") else 17
        found = draw(stage, Streams(seed), frames, 6)
        assert 1 <= len(found.views) <= stage.max_views and len(set(found.views)) == len(found.views)
        assert all(len(view) == stage.input_frames and view[0] >= 0 and view[-1] < frames for view in found.inputs)
        paths = 12 if stage.dynamic else 6
        assert all(0 <= view < paths and 0 <= frame < frames for view, frame in found.targets)
        pictures = stage.target_views if stage.dynamic else stage.target_frames * len(found.views)
        assert len(found.targets) == pictures == len(set(found.targets))


def test_stages_form_the_chain_of_the_paper():
    budgets = [s.input_frames + (s.target_views if s.dynamic else s.target_frames) for s in STAGES.values()]
    assert budgets == [34, 98, 98, 98, 130, 130, 130, 133, 133]
    for stages in (STAGES, MINI_STAGES):
        assert [s.stop for s in stages.values()] == sorted({s.stop for s in stages.values()})


def test_an_unknown_draw_and_a_single_frame_are_refused():
    with pytest.raises(ValueError, match="unknown draw of target frames 'late'; use one of uniform"):
        sampling.shares(9, "late")
    with pytest.raises(ValueError, match="clips of 1 frame "):
        draw(STAGES["dynamic"], Streams(0), 1, 6)


def test_streams_continue_where_their_state_was_taken():
    def numbers(streams):
        return (streams.python.gauss(0, 1), streams.python.random(), streams.numpy.normal(), streams.numpy.rand(),
                torch.rand((), generator=streams.torch).item())  # fmt: skip

    streams, copy = Streams(5), Streams(6)
    numbers(streams)  # leaves half a pair of normal numbers behind
    copy.restore(json.loads(json.dumps(streams.state())))
    assert [numbers(streams) for _ in range(3)] == [numbers(copy) for _ in range(3)]


def test_streams_leave_the_global_generators_alone():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    draw(STAGES["dynamic"], Streams(3), 121, 6)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected

import json
import math
import re

import pytest
import torch
from lyra_pack.comfyui_lyra.quality import scores as metrics
from lyra_pack.comfyui_lyra.quality.perceptual import Tpips
from lyra_pack.comfyui_lyra.quality.scores import compare, flicker, psnr, ssim
from lyra_pack.comfyui_lyra.training.evaluate import summary


def frames(pictures):
    return pictures.movedim(-3, -1)


def numbers(values):
    return torch.tensor([float(value) for value in values])


@pytest.mark.golden("training/metrics")
def test_psnr_ssim_and_lpips_of_each_frame(golden, lpips):
    lpips.largest = None
    for case, about in golden.meta["cases"].items():
        found, truth = (frames(golden[f"{case}.{part}"]) for part in ("pred", "gt"))
        wanted = {
            "psnr": (psnr(found, truth), 1e-4),
            "ssim": (ssim(found, truth), 1e-5),
            "lpips_formula_vgg": (None, 0),
        }
        for key in (key.removeprefix(f"{case}.") for key in golden if key.startswith(f"{case}.")):
            if key in ("pred", "gt"):
                continue
            values, atol = wanted[key]
            if values is None:
                with torch.no_grad():
                    values, atol = lpips(found[None], truth[None], 32)[0], 1e-4 * max(map(abs, about[key]))
            assert torch.allclose(values, golden[f"{case}.{key}"], rtol=0, atol=atol)
            assert torch.allclose(values, numbers(about[key]), rtol=0, atol=atol)


@pytest.mark.golden("training/metrics")
def test_the_reference_picture_covers_the_other(golden):
    source = frames(golden["resize.in"])
    for key in (key for key in golden if key.startswith("resize.") and key != "resize.in"):
        height, width = map(int, re.search(r"(\d+)x(\d+)", key).groups())
        change = metrics.centre_crop if "direct" in key else metrics.cover
        assert torch.allclose(change(source, height, width), frames(golden[key]), rtol=0, atol=1e-6)


@pytest.mark.golden("training/metrics")
def test_spread_over_scenes_is_not_the_reference_s(golden):
    about = golden.meta["std_quirk"]
    scenes = [{"psnr": torch.tensor([value])} for value in (10.0, 20.0, 30.0)]
    assert summary(scenes)["psnr"] == (pytest.approx(20), pytest.approx(10))
    assert set(about["out"]) == {0.0}  # what the reference plots instead


def test_masks_split_a_frame():
    truth = torch.rand(2, 24, 24, 3, generator=torch.Generator().manual_seed(0)) * 0.5
    found = truth.clone()
    found[:, :, :12] += 0.1
    left = torch.zeros(2, 24, 24, dtype=torch.bool)
    left[:, :, :12] = True
    scores = compare(found, truth, visible=left)
    assert torch.allclose(scores["psnr_visible"], torch.tensor(20.0), atol=1e-3)
    assert scores["psnr_hole"].isinf().all()
    assert torch.allclose(scores["psnr"], torch.tensor(20 + 10 * math.log10(2)), atol=1e-3)
    assert (scores["ssim_hole"] > scores["ssim_visible"]).all()
    none = compare(found, truth, visible=torch.ones_like(left))
    assert none["psnr_hole"].isnan().all() and none["ssim_hole"].isnan().all()


def test_only_frames_that_both_clips_have_count():
    truth = torch.rand(5, 30, 40, 3, generator=torch.Generator().manual_seed(0))
    found = metrics.cover(truth, 16, 16)
    assert compare(found[:3], truth)["psnr"].shape == (3,) and compare(found, truth[:2])["psnr"].shape == (2,)
    assert compare(found, truth)["psnr"].isinf().all()


def test_perceptual_scores_go_by_the_network_s_name():
    truth = torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    scores = compare(truth, truth, perceptual=Tpips(lambda pictures: [pictures]))
    assert scores["tpips"].shape == (3,) and "lpips" not in scores


def test_averages_leave_out_missing_frames_and_cap_exact_copies():
    scenes = [{"psnr": torch.tensor([20.0, math.nan, math.inf])}, {"psnr": torch.tensor([30.0])},
              {"psnr": torch.tensor([math.nan])}]  # fmt: skip
    mean, spread = summary(scenes)["psnr"]
    assert mean == pytest.approx(45) and spread == pytest.approx(450**0.5)
    json.dumps(summary(scenes))


def test_blur_takes_sharpness_away():
    picture = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.avg_pool2d(picture.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
    assert metrics.sharpness(soft)[0] < 0.6 * metrics.sharpness(picture)[0]
    ramp = torch.linspace(0, 1, 11)[None, None, :, None].expand(1, 11, 11, 3)
    assert metrics.sharpness(ramp)[0].item() == pytest.approx(0.1, abs=1e-6)


def test_depth_error_is_free_of_scale():
    truth = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    truth[:, 0] = torch.inf
    assert metrics.depth_error(3 * truth, truth).max() < 1e-6
    half = torch.where(torch.arange(8)[None, :, None] == 4, 0.0, truth)  # one row of eight unseen: an error of 1
    assert torch.allclose(metrics.depth_error(half, truth), torch.tensor(1 / 7))
    assert metrics.depth_error(truth, torch.zeros_like(truth)).isnan().all()


def test_frames_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="at least 11x11 pixels, got 16x10"):
        ssim(torch.zeros(1, 10, 16, 3), torch.zeros(1, 10, 16, 3))


def test_flicker_is_change_beyond_the_truths():
    still, generator = torch.full((4, 6, 8, 3), 0.5), torch.Generator().manual_seed(0)
    moving = torch.rand(4, 6, 8, 3, generator=generator)
    assert not flicker(moving, moving).any() and not flicker(still, moving).any()
    shaking = still + torch.tensor([0.0, 0.1, 0.0, 0.0])[:, None, None, None]
    torch.testing.assert_close(flicker(shaking, still), torch.tensor([0.1, 0.1, 0.0]))
    half = torch.where(torch.arange(8)[:, None] < 4, shaking, still)  # the truth changes elsewhere
    other = torch.where(torch.arange(8)[:, None] < 4, still, moving)
    torch.testing.assert_close(flicker(half, other), torch.tensor([0.05, 0.05, 0.0]))
    with pytest.raises(ValueError, match="two clips of equal shape and at least two frames"):
        flicker(still[:1], still[:1])

import math
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.configs import TokenizerConfig
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.quality.compare import GridTpips, compare_frames, compare_splats
from lyra_pack.comfyui_lyra.quality.scores import ssim
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians
from lyra_pack.comfyui_lyra.splats.render import render
from lyra_pack.comfyui_lyra.tokenizer.clips import decode
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(1)
    config = TokenizerConfig(family="tiny", channels=8, multipliers=(1, 2, 2), layers=1)
    return CosmosTokenizer(
        config, build_autoencoder(config).requires_grad_(False), torch.zeros(16, 2), torch.ones(16, 2)
    )


@pytest.fixture
def latents():
    paths = camera_paths(pinhole_camera(48, 32, 50), PathSettings("six_paths", 9))[:2]
    values = torch.randn(2, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    return MultiViewLatents(latents=VideoLatents(values=values), cameras=paths, family="tiny")


def splats(seed: int) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.rand(20, 3, generator=g) - torch.tensor([0.5, 0.5, -0.5]),
        scales=torch.full((20, 3), 0.1),
        quats=torch.eye(4)[:1].repeat(20, 1),
        opacities=torch.full((20,), 0.8),
        colors=torch.rand(20, 3, generator=g),
    )


def test_a_known_error_has_a_known_score():
    truth = torch.full((11, 16, 24, 3), 0.5)
    frames = truth.clone()
    frames[10] += 0.1
    steps = []
    found = compare_frames(frames, truth, on_step=lambda *step: steps.append(step))
    assert found.scores["psnr"][10].item() == pytest.approx(20, abs=1e-3)
    assert found.scores["psnr"][:10].isinf().all()
    assert found.means["psnr"] == pytest.approx((10 * 100 + 20) / 11, abs=1e-3)
    assert found.means["ssim"] == pytest.approx(ssim(frames, truth).mean().item())
    assert steps == [(8, 11), (11, 11)]
    assert found.report().startswith("PSNR 92.73 dB, SSIM 0.99")
    assert found.report().endswith("\n11 frames; worst: frame 10, 20.00 dB")
    torch.testing.assert_close(found.picture(5)[10], torch.full((16, 24, 3), 0.5))
    assert found.picture(100).max() == 1 and not found.picture(5)[:10].any()


def test_a_truth_of_another_size_covers_the_frames_about_its_centre():
    frames = pictures(2, 16, 24)
    truth = torch.zeros(2, 16, 40, 3)
    truth[:, :, 8:32] = frames
    assert compare_frames(frames, truth).error.max() == 0


def test_frames_of_another_number_are_refused():
    with pytest.raises(ValueError, match="3 frames cannot be compared with 2; both must show the same cameras"):
        compare_frames(pictures(3, 16, 16), pictures(2, 16, 16))


@pytest.mark.parametrize("size", [(32, 48), (39, 50), (47, 63)])
def test_tpips_takes_the_middle_of_any_size(tokenizer, size):
    a, b = pictures(3, *size), pictures(3, *size, seed=1)
    tpips = GridTpips(tokenizer)
    assert compare_frames(a, a, [tpips]).means["tpips"] == pytest.approx(0, abs=1e-6)
    found = compare_frames(a, b, [tpips]).scores["tpips"]
    height, width = (size[0] // 16 * 16, size[1] // 16 * 16)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    middle = [clip[:, top : top + height, left : left + width] for clip in (a, b)]
    torch.testing.assert_close(found, GridTpips(tokenizer).distance(*(clip[None] for clip in middle))[0])
    with pytest.raises(ValueError, match="TPIPS needs frames of at least 16x16"):
        compare_frames(pictures(1, 15, 16), pictures(1, 15, 16), [tpips])


def test_splats_of_a_still_scene_are_compared_with_all_decoded_paths(tokenizer, latents):
    scene, steps = splats(0), []
    found = compare_splats(
        [scene], latents.cameras, latents, tokenizer, [GridTpips(tokenizer)], every=4,
        on_step=lambda *step: steps.append(step),
    )  # fmt: skip
    drawn = torch.cat([render(scene, path[::4]).rgb for path in latents.cameras]).clamp(0, 1)
    truth = torch.cat([decode(tokenizer, latents, view)[::4] for view in range(2)])
    assert found.error.shape == (6, 32, 48, 3)
    torch.testing.assert_close(found.error, (drawn - truth).abs())
    assert found.scores.keys() == {"psnr", "ssim", "tpips"} and all(len(v) == 6 for v in found.scores.values())
    assert steps == [(i, 6) for i in range(1, 7)]


def test_splats_of_a_moving_scene_are_compared_at_their_times(tokenizer, latents):
    moving, scenes = replace(latents, dynamic=True), [splats(0), splats(1)]
    found = compare_splats(scenes, latents.cameras, moving, tokenizer, times=(8, 0))
    path, truth = latents.cameras[1], decode(tokenizer, latents, 1)
    expected = [(render(scenes[i], path[[t]]).rgb.clamp(0, 1) - truth[[t]]).abs() for i, t in ((0, 8), (1, 0))]
    torch.testing.assert_close(found.error[2:], torch.cat(expected))


def test_what_does_not_belong_together_is_refused(tokenizer, latents):
    moving, scenes = replace(latents, dynamic=True), [splats(0), splats(1)]
    for problem, arguments, times in (
        (
            "2 scenes and the latents of a still one; choose one with Select Bullet Time",
            (scenes, latents.cameras, latents),
            None,
        ),
        ("bullet times of the splats are needed", (scenes, latents.cameras, moving), None),
        (r"2 scenes do not fit bullet times \[0\]", (scenes, latents.cameras, moving), (0,)),
        (r"2 scenes do not fit bullet times \[0, 9\] of clips of 9 frames", (scenes, latents.cameras, moving), (0, 9)),
        (r"paths of \[9\] frames and latents of \[9, 9\]", (scenes[:1], latents.cameras[:1], latents), None),
    ):
        with pytest.raises(ValueError, match=problem):
            compare_splats(*arguments, tokenizer, times=times)


def test_an_exact_copy_counts_as_100_db():
    assert compare_frames(pictures(1, 16, 16), pictures(1, 16, 16)).means == {"psnr": 100, "ssim": pytest.approx(1)}
    assert math.isinf(compare_frames(pictures(1, 16, 16), pictures(1, 16, 16)).scores["psnr"][0])

import math
from dataclasses import replace

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.model_detection  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.supported_models  # noqa: E402
from latent_preview import Latent2RGBPreviewer  # noqa: E402
from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.dit import build  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.keys import RELEASED  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.sampler import initial_noise, karras_sigmas  # noqa: E402
from lyra_pack.comfyui_lyra.weights.load import rename  # noqa: E402
from lyra_pack.nodes.comfy import devices  # noqa: E402
from lyra_pack.nodes.native.conditioning import GEN3CConditioning  # noqa: E402
from lyra_pack.nodes.native.latents import MiniLatents  # noqa: E402
from lyra_pack.nodes.native.model import (  # noqa: E402
    FIRST,
    FIRST_TIME,
    GEN3CConfig,
    GEN3CModel,
    config_of,
    register,
)


def test_noise_levels_and_noise_are_the_references(stage):
    levels = comfy.samplers.calculate_sigmas(stage.model.get_model_object("model_sampling"), "karras", 35)
    torch.testing.assert_close(levels.double(), karras_sigmas(35), rtol=5e-6, atol=0)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 2, 4, 6), 7)
    assert torch.equal(noise, initial_noise((1, 16, 2, 4, 6), 7))


@pytest.mark.parametrize(
    ("sampler", "steps", "guidance"),
    [
        ("euler", 12, 1.0),
        ("euler", 35, 1.0),
        ("euler", 35, 0.0),
        ("euler", 12, 2.5),
        ("dpmpp_2m", 12, 1.0),
        ("dpmpp_2m", 18, 1.0),
    ],
)
def test_ksampler_makes_what_generate_latents_makes(stage, ksampler, film, conditions, off, sampler, steps, guidance):
    found = ksampler(sampler=sampler, steps=steps, cfg=1 + guidance)
    expected = film(paths=conditions[3][:1], solver=sampler, steps=steps, guidance=guidance)
    assert off(found, expected) < 1e-4
    assert torch.equal(found[:, :, :1], conditions[0][0][0][1][FIRST])


def test_guidance_steps_seed_and_path_count(ksampler, off):
    base = ksampler()
    changed = [ksampler(cfg=1.0), ksampler(steps=6), ksampler(seed=2), ksampler(path=1)]
    assert min(off(other, base) for other in changed) > 1e-3  # paths matter least: the tiny tokenizer sees little


def test_two_stages_are_one_run_exactly(ksampler):
    once = ksampler()
    half = ksampler(last_step=6)  # leftover noise stays
    noise = torch.zeros_like(half)
    again = ksampler(noise=noise, latent_image=half, disable_noise=True, start_step=6)
    assert torch.equal(again, once) and not torch.equal(half, once)


def test_a_batch_of_one_noise_is_several_single_runs(ksampler, off):
    two = ksampler(latent_image=torch.zeros(2, 16, 2, 4, 6), batch_index=[0, 0])
    assert off(two, ksampler().expand(2, -1, -1, -1, -1)) < 1e-5


def test_branches_are_never_batched(stage, ksampler, monkeypatch):
    sizes, network = set(), stage.model.model.diffusion_model
    handle = network.register_forward_pre_hook(lambda module, given: sizes.add(len(given[0])))
    ksampler(steps=2)
    handle.remove()
    assert sizes == {1}


def test_memory_is_that_of_one_clip_and_all_of_it_for_a_streamed_teacher(stage, monkeypatch):
    model = stage.model.model
    shape, config = (1, *stage.teacher.config.latent_shape), stage.teacher.config
    width = config.heads * config.head_dim
    hidden, matrix = 2 * 2 * 3 * width, 4 * width**2  # numbers; four matrices may be on their way to the device
    assert model.memory_required(shape) - FIRST_TIME == pytest.approx((10.2 * hidden + 4 * matrix) * 4)
    assert model.memory_required((2, *shape[1:])) - FIRST_TIME == pytest.approx((2 * 10.2 * hidden + 4 * matrix) * 4)
    alone = model.memory_required(shape)
    monkeypatch.setattr(model, "stream", True)
    monkeypatch.setattr(devices, "total_memory", lambda: 3 * alone)
    assert model.memory_required(shape) == 3 * alone


def test_wrong_uses_are_told(stage, conditions, ksampler):
    positive, negative, latent, _ = conditions
    plain = [[positive[0][0][0], {}]]
    with pytest.raises(ValueError, match="knows no first picture; connect positive and negative of GEN3C Conditioning"):
        ksampler(negative=plain)
    with pytest.raises(ValueError, match=r"size \(T, h, w\) \(3, 4, 6\), the conditions \(2, 4, 6\)"):
        ksampler(latent_image=torch.zeros(1, 16, 3, 4, 6))
    long = tuple(path[torch.arange(17).clamp(max=8)] for path in stage.paths)
    with pytest.raises(ValueError, match="17 frames, more than one clip of 9; a sampler makes one clip"):
        GEN3CConditioning.execute(stage.model, stage.tokenizer, stage.geometry, long, True)
    with pytest.raises(ValueError, match="this MODEL is NoneType, not GEN3C"):
        GEN3CConditioning.execute(object(), stage.tokenizer, stage.geometry, stage.paths, True)


def test_previews_show_three_moments(conditions):
    format = MiniLatents()
    shown = Latent2RGBPreviewer(
        format.latent_rgb_factors, format.latent_rgb_factors_bias, format.latent_rgb_factors_reshape
    )
    x0 = torch.zeros(1, 16, 5, 4, 6)
    x0[:, 0, [0, 2, 4]] = torch.tensor([0.5, 0, -0.5])[None, :, None, None]
    _, picture, _ = shown.decode_latent_to_preview_image("JPEG", x0)
    assert picture.size == (18, 4)
    levels = [picture.getpixel((x, 1))[0] for x in (1, 8, 15)]
    assert levels[0] < levels[1] < levels[2]  # factor of channel 0 is negative
    assert format.latent_rgb_factors_reshape(x0[:, :, 0]).ndim == 4


def test_core_knows_the_released_file_and_mini_by_their_shapes():
    register()
    register()
    assert comfy.supported_models.models.count(GEN3CConfig) == 1
    for config in TEACHER_PRESETS.values():
        state = rename(build(config).state_dict(), RELEASED)
        assert config_of(state) == config
    state = {
        f"net.{name}": weight for name, weight in rename(build(TEACHER_PRESETS["gen3c"]).state_dict(), RELEASED).items()
    }
    found = comfy.model_detection.model_config_from_unet(state, "net.")
    assert isinstance(found, GEN3CConfig)
    found.set_inference_dtype(torch.bfloat16, None)
    model = found.get_model(state, "net.", device=torch.device("meta"))
    assert isinstance(model, GEN3CModel) and model.teacher_config == TEACHER_PRESETS["gen3c"]
    assert math.prod(model.diffusion_model.blocks["block27"].blocks[0].block.attn.to_q[0].weight.shape) == 4096**2
    other = replace(TEACHER_PRESETS["mini"], blocks=4)
    with pytest.raises(ValueError, match="4 blocks of 8 heads of 32, which no known one has; use Load Teacher"):
        config_of(rename(build(other).state_dict(), RELEASED))

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import BUFFERS, CHANNELS
from lyra_pack.comfyui_lyra.gen3c.sampler import (
    CONDITION_SIGMA,
    RHO,
    SIGMA_MAX,
    SIGMA_MIN,
    Conditions,
    compose_warp_latents,
    condition_noise,
    denoised,
    initial_noise,
    karras_sigmas,
    network_output,
    replace_first,
    sample,
)
from lyra_pack.comfyui_lyra.latents import SIGMA_DATA
from torch.nn.functional import avg_pool3d
from torch.testing import assert_close


def close(actual, golden):
    """The goldens' own tolerance: 2e-5 of the largest value."""
    assert_close(actual, golden, rtol=0, atol=2e-5 * max(1.0, golden.abs().max().item()))


def golden_network(golden):
    """meta["fake_network"], and the list of what it was shown."""
    a, b, c = golden["fake_A"], golden["fake_b"], golden["fake_c"]
    shown = []

    def network(x, c_noise, text, branch):
        shown.append((x, c_noise, branch))
        mixed = torch.tanh(torch.einsum("oc,bcthw->bothw", a.to(x), x))
        noise_term = torch.sin(4 * c_noise.to(x))[:, None] * b.to(x) + text.mean() * c.to(x)
        return mixed + noise_term[..., None, None, None]

    return network, shown


def golden_conditions(golden) -> Conditions:
    return Conditions(
        first=golden["condition_latent"][:, :, :1],
        warps=golden["warp_latents"],
        text=golden["text_emb"],
        negative=golden["neg_text_emb"],
    )


@pytest.mark.golden("teacher/sampler")
def test_constants_and_schedule_equal_the_reference(golden):
    meta = golden.meta
    for key, ours in (("sigma_max", SIGMA_MAX), ("sigma_min", SIGMA_MIN), ("rho", RHO), ("sigma_data", SIGMA_DATA)):
        assert meta[key] == ours
    assert meta["condition_augment_sigma"] == CONDITION_SIGMA
    assert meta["frame_buffer_max"] == BUFFERS
    assert meta["num_condition_latents"] == 1
    sigmas = karras_sigmas(35)
    assert_close(sigmas.float(), golden["sigmas_35"], rtol=3e-7, atol=0)
    assert_close(sigmas.float(), golden["sigmas_35_pinned_fp32_ramp"], rtol=5e-6, atol=0)
    c_noise = sigmas[:-1].log() / 4
    assert_close(c_noise.float(), golden["timesteps_35"], rtol=0, atol=1e-6)
    assert torch.equal(c_noise.bfloat16().float(), golden["bf16.c_noise_35"].float())


@pytest.mark.golden("teacher/sampler")
def test_condition_noise_equals_the_reference(golden):
    expected = golden["augment_noise"]
    assert torch.equal(condition_noise(expected.shape, golden.meta["config"]["seed"]), expected)


@pytest.mark.golden("teacher/sampler")
def test_warp_latents_equal_the_reference(golden):
    mix = golden["fake_E"]

    def encode(video):  # meta["fake_tokenizer"]
        return SIGMA_DATA * torch.einsum("oc,bcthw->bothw", mix, avg_pool3d(video[:, :, ::8], (1, 8, 8)))

    images = golden["rendered_warp_images"]
    close(compose_warp_latents(encode, images, golden["rendered_warp_masks"]), golden["warp_latents"])


@pytest.mark.golden("teacher/sampler")
def test_each_step_equals_the_reference(golden):
    config, conditions = golden.meta["config"], golden_conditions(golden)
    network, shown = golden_network(golden)
    sigmas = karras_sigmas(config["steps"]).tolist()
    first, noise = conditions.first, golden["augment_noise"][:, :, :1]
    x = golden["init_noise_unit"] * golden.meta["init_noise_scale"]
    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        assert sigma == pytest.approx(golden[f"step{i}.sigma"].item(), rel=1e-6)
        x = replace_first(x, first, noise, sigma)
        close(x, golden[f"step{i}.model_state_after_cond_replace"])
        output = network_output(network, x, sigma, conditions, config["guidance"], torch.float32)
        scaled, c_noise, _ = shown[-1]
        close(scaled[:, :CHANNELS], golden[f"step{i}.net_input_scaled"])
        close(c_noise[0], golden[f"step{i}.c_noise"])
        x0 = denoised(x, output, first, sigma)
        combined = golden[f"step{i}.combined_output"]  # x0 as a network output: (x0 - c_skip x) / c_out
        close(output[:, :, 1:], combined[:, :, 1:])
        variance = sigma**2 + SIGMA_DATA**2
        close(x0, SIGMA_DATA**2 / variance * x + sigma * SIGMA_DATA / variance**0.5 * combined)
        x = x + (x - x0) / sigma * (following - sigma)
        close(x, golden[f"step{i}.prev_sample"])
    assert len(shown) == 2 * config["steps"]


@pytest.mark.golden("teacher/sampler")
@pytest.mark.parametrize(
    "noise, result, atol",
    [
        ("init_noise_unit", "final_latent", 2e-5),
        ("init_noise_unit", "final_latent_35", 2e-5),
        ("bf16.init_noise_unit", "bf16.final_latent_35", 0.05),  # the reference's state rounded to bfloat16
    ],
)
def test_whole_runs_equal_the_reference(golden, noise, result, atol):
    steps = 35 if result.endswith("35") else golden.meta["config"]["steps"]
    network, _ = golden_network(golden)
    latents = sample(
        network,
        golden_conditions(golden),
        golden[noise].float(),
        golden["augment_noise"],
        steps=steps,
        guidance=golden.meta["config"]["guidance"],
    )
    assert_close(latents, golden[result].float(), rtol=0, atol=atol)


T, H, W = 3, 4, 4
SHAPE = (1, CHANNELS, T, H, W)


def conditions(value=0.3) -> Conditions:
    return Conditions(
        first=torch.full((1, CHANNELS, 1, H, W), value),
        warps=torch.zeros(1, 4 * CHANNELS, T, H, W),
        text=torch.zeros(1, 2, 3),
        negative=torch.zeros(1, 2, 3),
    )


MEAN, DEVIATION = 1.0, 0.2


def gaussian_network(x, c_noise, text, branch):
    """The exact F of data whose every number is normal with MEAN and DEVIATION."""
    sigma = (4 * c_noise).exp()
    variance = sigma**2 + SIGMA_DATA**2
    state = x[:, :CHANNELS] * variance.sqrt()
    x0 = (state * DEVIATION**2 + MEAN * sigma**2) / (DEVIATION**2 + sigma**2)
    return (x0 - SIGMA_DATA**2 / variance * state) / (sigma * SIGMA_DATA / variance.sqrt())


def gaussian_error(solver, steps) -> float:
    """Largest deviation from the closed form of the flow, all but the condition frame."""
    noise = initial_noise(SHAPE, 0)
    latents = sample(gaussian_network, conditions(), noise, noise, steps=steps, guidance=0, solver=solver)
    start = noise * (SIGMA_MAX**2 + 1) ** 0.5
    exact = MEAN + (start - MEAN) * DEVIATION / (DEVIATION**2 + SIGMA_MAX**2) ** 0.5
    return (latents - exact)[:, :, 1:].abs().max().item()


def test_euler_is_of_first_and_2m_of_second_order():
    euler = [gaussian_error("euler", steps) for steps in (20, 40, 80)]
    second = [gaussian_error("dpmpp_2m", steps) for steps in (20, 40, 80)]
    assert all(1.6 < a / b < 2.5 for a, b in zip(euler, euler[1:], strict=False))
    assert all(3.2 < a / b < 5.5 for a, b in zip(second, second[1:], strict=False))
    assert second[1] < euler[2]  # 40 steps of 2M beat 80 of Euler


@pytest.mark.parametrize("solver", ["euler", "dpmpp_2m"])
def test_the_first_frame_ends_near_the_condition_and_the_rest_ignores_it(solver):
    noise, kicks = initial_noise(SHAPE, 0), condition_noise(SHAPE, 1)
    low, high = (
        sample(gaussian_network, conditions(value), noise, kicks, guidance=0, solver=solver) for value in (0.9, 1.1)
    )
    assert_close(high[:, :, :1], torch.full_like(high[:, :, :1], 1.1), rtol=0, atol=2e-3)
    assert_close(low[:, :, 1:], high[:, :, 1:], rtol=0, atol=0)


def test_guidance_zero_evaluates_once_and_one_doubles_the_difference():
    def network(x, c_noise, text, branch):
        calls.append(branch)
        return torch.full_like(x[:, :CHANNELS], text.mean().item() + x[:, CHANNELS + 1 :].mean().item())

    given = Conditions(
        first=torch.zeros(1, CHANNELS, 1, H, W),
        warps=torch.full((1, 4 * CHANNELS, T, H, W), 2.0),
        text=torch.full((1, 2, 3), 1.0),
        negative=torch.full((1, 2, 3), 0.5),
    )
    for guidance, expected, branches in ((0.0, 3.0, ["cond"]), (1.0, 5.5, ["cond", "uncond"])):
        calls = []
        output = network_output(network, torch.zeros(SHAPE), 1.0, given, guidance, torch.float32)
        assert output.unique().tolist() == [expected]
        assert calls == branches


def test_progress_and_preview_come_once_a_step_and_may_cancel():
    steps, clips = [], []
    noise = initial_noise(SHAPE, 0)
    latents = sample(
        gaussian_network,
        conditions(),
        noise,
        noise,
        steps=5,
        on_step=lambda done, total: steps.append((done, total)),
        on_x0=clips.append,
    )
    assert steps == [(i, 5) for i in range(1, 6)]
    assert_close(clips[-1], latents)  # the last step lands on the last clip

    def cancel(x0):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(gaussian_network, conditions(), noise, noise, on_x0=cancel)


def test_the_network_is_shown_the_precision_asked_for():
    def network(x, c_noise, text, branch):
        assert (x.dtype, c_noise.dtype, text.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
        return x[:, :CHANNELS]

    noise = initial_noise(SHAPE, 0)
    assert sample(network, conditions(), noise, noise, steps=2, dtype=torch.bfloat16).dtype == torch.float32


def test_two_buffers_keep_their_order_and_missing_ones_are_zero():
    images = torch.zeros(1, 1, 2, 3, 8, 8)
    images[:, :, 1] = 0.5
    masks = torch.zeros(1, 1, 2, 1, 8, 8)
    masks[:, :, 0] = 1.0

    def encode(video):
        return video[:, :1, :, ::8, ::8].expand(-1, CHANNELS, -1, -1, -1)

    assert compose_warp_latents(encode, images, masks)[0, ::CHANNELS].flatten().tolist() == [0.0, 1.0, 0.5, -1.0]
    one = compose_warp_latents(encode, images[:, :, 1:], masks[:, :, 1:])
    assert one[0, ::CHANNELS].flatten().tolist() == [0.5, -1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="3 buffers; the teacher takes 1 to 2"):
        compose_warp_latents(encode, images[:, :, [0, 0, 0]], masks[:, :, [0, 0, 0]])


def test_misfits_say_what_was_expected():
    noise = initial_noise(SHAPE, 0)
    with pytest.raises(ValueError, match="steps is 1; the noise schedule needs at least 2"):
        sample(gaussian_network, conditions(), noise, noise, steps=1)
    with pytest.raises(ValueError, match="solver 'heun' is neither 'euler' nor 'dpmpp_2m'"):
        sample(gaussian_network, conditions(), noise, noise, solver="heun")
    with pytest.raises(ValueError, match=r"condition noise: expected \(1, 16, 3, 4, 4\) .* got \(1, 16, 2, 4, 4\)"):
        sample(gaussian_network, conditions(), noise, noise[:, :, 1:])
    with pytest.raises(ValueError, match=r"Conditions.warps: expected \[B 64 T h w\]"):
        Conditions(first=noise[:, :, :1], warps=noise, text=torch.zeros(1, 2, 3), negative=torch.zeros(1, 2, 3))

"""What ComfyUI's own guiders, samplers, schedulers and LATENT nodes make of GEN3C's MODEL."""

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.model_management as management  # noqa: E402
import comfy.samplers  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.sampler import SIGMA_MAX, SIGMA_MIN  # noqa: E402
from lyra_pack.nodes.latents.latents import LatentsFromCore  # noqa: E402
from lyra_pack.nodes.native.model import FIRST  # noqa: E402

SAMPLERS = ("res_multistep", "uni_pc", "er_sde")  # all others behind --long
SCHEDULERS = ("simple", "kl_optimal")
BROKEN = ("deis", "ddpm")  # core's, which take 1 + sigma^2 - 1 in float32
FAR = 2.5  # of a sampler that is far from done after 12 steps, and of networks without a training


@pytest.fixture(scope="module")
def base(ksampler):
    """12 euler steps by core's KSampler."""
    return ksampler()


@pytest.fixture(scope="module")
def picture(conditions):
    """The latent of the first picture, which frame 0 stays."""
    return conditions[0][0][0][1][FIRST]


@pytest.mark.parametrize(("schedule", "guidance"), [("KarrasScheduler", 1.0), ("BasicScheduler", 0.0)])
@torch.inference_mode()
def test_sampler_custom_advanced_makes_what_generate_latents_makes(
    core, stage, conditions, film, off, picture, schedule, guidance
):
    positive, negative, latent, paths = (given[:1] for given in conditions)
    nodes, model = core.custom_sampler, stage.model
    if guidance:
        (guider,) = nodes.CFGGuider.execute(model, positive[0], negative[0], 1 + guidance).args
    else:
        (guider,) = nodes.BasicGuider.execute(model, positive[0]).args
    if schedule == "KarrasScheduler":
        (sigmas,) = nodes.KarrasScheduler.execute(12, SIGMA_MAX, SIGMA_MIN, 7.0).args
    else:
        (sigmas,) = nodes.BasicScheduler.execute(model, "karras", 12, 1.0).args
    (noise,), (sampler,) = nodes.RandomNoise.execute(1).args, nodes.KSamplerSelect.execute("euler").args
    found = nodes.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent[0]).args[0]["samples"]
    assert off(found, film(paths=paths, guidance=guidance)) < 1e-4
    assert torch.equal(found[:, :, :1], picture)


@torch.inference_mode()
def test_two_nodes_ksampler_advanced_are_one_run_exactly(core, stage, conditions, base):
    positive, negative, latent, _ = (given[0] for given in conditions)

    def half(add_noise, given, *steps):
        settings = 1, 12, 2.0, "euler", "karras", positive, negative
        return core.nodes.KSamplerAdvanced().sample(stage.model, add_noise, *settings, given, *steps)[0]

    first = half("enable", latent, 0, 6, "enable")
    assert torch.equal(half("disable", first, 6, 10000, "disable")["samples"], base)


def test_other_samplers_come_near_to_euler_and_keep_the_picture(ksampler, base, off, picture, long):
    for name in set(comfy.samplers.KSampler.SAMPLERS) - {*BROKEN, "euler"} if long else SAMPLERS:
        found = ksampler(sampler=name)
        assert off(found, base) < FAR, name
        assert (found[:, :, :1] - picture).abs().max() < 5e-3, name  # exact where a sampler ends on what it was told


@pytest.mark.parametrize("sampler", BROKEN)
def test_samplers_that_cannot_bear_these_noise_levels_can_others(core, stage, ksampler, base, off, sampler):
    assert ksampler(sampler=sampler)[:, :, 1:].isnan().any()  # when core's are mended, the help can say so
    (other,) = core.model_advanced.ModelSamplingContinuousEDM().patch(stage.model, "edm", 80.0, 0.002)
    assert off(ksampler(model=other, sampler=sampler), base) < FAR


def test_schedulers_begin_at_the_references_noise_and_end_without(stage, ksampler, base, off, long):
    sampling, every = stage.model.get_model_object("model_sampling"), comfy.samplers.KSampler.SCHEDULERS
    for name in every:
        levels = comfy.samplers.calculate_sigmas(sampling, name, 12)
        assert levels[0] == pytest.approx(SIGMA_MAX, rel=0.03) and levels[-1] == 0, name
        assert (levels[1:] < levels[:-1]).all(), name
    for name in every if long else SCHEDULERS:
        assert off(ksampler(scheduler=name, sampler="dpmpp_2m"), base) < 0.6, name


@torch.inference_mode()
def test_several_latents_with_a_noise_mask_keep_what_it_covers(core, stage, conditions, ksampler, off):
    source, mask = ksampler(seed=3), torch.zeros(1, 4, 6)
    mask[..., 3:] = 1
    (twice,) = core.nodes.RepeatLatentBatch().repeat({"samples": source}, 2)
    (masked,) = core.nodes.SetLatentNoiseMask().set_mask(twice, mask)
    positive, negative = (given[0] for given in conditions[:2])
    settings = stage.model, 1, 12, 2.0, "euler", "karras", positive, negative
    found = core.nodes.KSampler().sample(*settings, masked, denoise=0.5)[0]["samples"]
    torch.testing.assert_close(found[..., :3], source[..., :3].expand(2, -1, -1, -1, -1), rtol=0, atol=1e-5)
    assert (found[:, :, 1:, :, 3:] - source[:, :, 1:, :, 3:]).abs().amax(dim=(1, 2, 3, 4)).min() > 0.05


@torch.inference_mode()
def test_paths_of_a_list_join_to_what_generate_latents_makes(core, conditions, ksampler, film, off):
    _, _, latents, paths = conditions
    made = [{"samples": ksampler(path=path)} for path in range(len(latents))]
    ((joined,),) = core.rebatch.LatentRebatch.execute(made, [6]).args
    (found,) = LatentsFromCore.execute(joined, paths, False, "tiny").args
    assert off(found.latents.values, film(paths=paths)) < 1e-4
    (empty,) = core.cosmos.EmptyCosmosLatentVideo.execute(48, 32, 9, 1).args
    assert torch.equal(empty["samples"], latents[0]["samples"])


def test_a_zeroed_positive_is_no_negative_for_it_shows_what_is_known(core, conditions, ksampler, base, off):
    (zeroed,) = core.nodes.ConditioningZeroOut().zero_out(conditions[0][0])
    found = ksampler(negative=zeroed)
    assert off(found, base) > 1e-3
    assert off(found, ksampler(cfg=1.0)) < 1e-5  # without a prompt both branches see the same: no guidance is left


def test_a_cancelled_sampler_stops_within_a_pass(stage, ksampler):
    blocks, seen = stage.model.model.diffusion_model.blocks, []
    cancel = blocks["block0"].register_forward_hook(lambda *_: management.interrupt_current_processing(True))
    later = blocks["block2"].register_forward_hook(lambda *_: seen.append(1))
    try:
        with pytest.raises(management.InterruptProcessingException):
            ksampler()
    finally:
        cancel.remove(), later.remove()
        management.interrupt_current_processing(False)
    assert not seen

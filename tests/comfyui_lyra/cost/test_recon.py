from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.bench.recon import random_inputs
from lyra_pack.comfyui_lyra.configs import RECON_PRESETS, ReconConfig
from lyra_pack.comfyui_lyra.cost.recon import LEAST, bytes_needed, count_flops, count_tokens, plan, schedules
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.recon.schedule import Schedule
from torch.profiler import profile

RELEASED = RECON_PRESETS["lyra_static"]
SIZE = (RELEASED.trained_frames, *RELEASED.trained_size)


def test_released_sizes_are_the_published_ones():
    found = plan(RELEASED, 6, *SIZE, budget=6 * 2**30)
    assert count_tokens(RELEASED, 6, *SIZE) == (337_920, 10_222_080)
    assert (found.splats, found.kept) == (10_222_080, 2_044_415)
    # decoder.md 10, trunk: attention 2 x (233.9 + 2.1), 14 Mamba blocks of 2.40, patches and head 0.22
    assert found.flops / 1e12 == pytest.approx(2 * (233.9 + 2.1) + 14 * 2.4 + 0.22, rel=0.02)
    attention = count_flops(replace(RELEASED, blocks=8), 337_920) - count_flops(replace(RELEASED, blocks=7), 337_920)
    assert attention / 1e12 == pytest.approx(233.9 + 2.1, rel=0.005)


def test_a_smaller_budget_means_smaller_segments_and_too_small_a_one_an_error():
    found = [plan(RELEASED, 6, *SIZE, budget=int(gib * 2**30)) for gib in (1.8, 2.5, 6)]
    segments = [each.schedule.segment for each in found]
    assert segments == sorted(set(segments))
    assert all(each.bytes <= gib * 2**30 for each, gib in zip(found, (1.8, 2.5, 6), strict=True))
    with pytest.raises(ValueError, match=r"6 paths of 121 frames of 1280x704 need \d\.\d\d GiB at least.*is 1\.00 GiB"):
        plan(RELEASED, 6, *SIZE, budget=2**30)


def test_when_memory_runs_out_smaller_segments_are_tried_down_to_the_least():
    chosen = plan(RELEASED, 6, *SIZE, budget=int(1.8 * 2**30)).schedule.segment
    tried = [schedule.segment for schedule in schedules(RELEASED, 6, *SIZE, budget=int(1.8 * 2**30))]
    assert tried == [chosen // 2**i for i in range(len(tried))] and len(tried) > 2 and tried[-1] == LEAST
    assert list(schedules(RELEASED, 6, *SIZE, budget=0)) == [Schedule(segment=LEAST)]


def peak_bytes(run) -> int:
    """Most memory that ``run`` holds at once beyond what was there before."""
    with profile(profile_memory=True) as profiled:
        run()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).cumsum(0)
    return int(held.max())


@pytest.mark.slow
@pytest.mark.parametrize("segment", [512, 2**15])
@pytest.mark.parametrize("attention_every", [1, 9])
def test_expected_memory_is_what_a_pass_takes(segment, attention_every):
    config = ReconConfig(blocks=1, attention_every=attention_every, trained_frames=17, trained_size=(256, 320))
    model, views = Recon(config).eval(), 2
    inputs = random_inputs(config, views, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        taken = peak_bytes(lambda: model(inputs, schedule=Schedule(segment=segment)))
    taken += sum(weight.nbytes for weight in model.parameters())
    taken += inputs.latents.nbytes + inputs.plucker.nbytes + inputs.directions.nbytes
    counts = count_tokens(config, views, config.trained_frames, *config.trained_size)
    assert taken <= bytes_needed(config, views, *counts, segment, torch.float32) <= 1.4 * taken


def test_a_segment_of_no_tokens_is_refused():
    with pytest.raises(ValueError, match="0 tokens at a time; at least 1"):
        Schedule(segment=0)

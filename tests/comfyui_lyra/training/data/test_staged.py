"""Stages of one run: their shares of the time, and the learning rate over all of them."""

import pytest
import torch
from lyra_pack.comfyui_lyra.training.data.staged import StagedRun, at_pace
from lyra_pack.comfyui_lyra.training.run.checkpoint import latest
from lyra_pack.comfyui_lyra.training.run.log import read_log
from lyra_pack.comfyui_lyra.training.run.optimizer import MINI_OPTIM, OptimConfig
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES

OPTIM = OptimConfig(lr=8e-4, final_lr=4e-5, steps=10_000, warmup=5)


def test_the_learning_rate_falls_until_the_last_stage_ends():
    last = {name: at_pace(MINI_OPTIM, 0.5, MINI_STAGES[name].stop // 2).steps for name in ("m3", "m5", "m7")}
    assert last == {"m3": 5_100, "m5": 5_100, "m7": 6_500}
    assert at_pace(MINI_OPTIM, None, 13_000) == MINI_OPTIM
    own = {stop: at_pace(MINI_OPTIM, 0.5, stop, is_own=True).steps for stop in (2, 1_200, 13_000)}
    assert own == {2: MINI_OPTIM.warmup + 1, 1_200: 1_200, 13_000: 13_000}
    assert at_pace(OptimConfig(), 0.5, 13_000) == OptimConfig()


def run_of(folder, optim=OPTIM, **more):
    about = {"stage": "m3", "config": {}, "seed": 0, "device": "cpu", "steps": 10_000}
    return StagedRun(torch.nn.Linear(3, 2), optim, folder, timed=True, **about, **more)


def test_a_timed_run_needs_a_time_and_is_resumed_in_the_stage_it_was_in(tmp_path):
    with pytest.raises(ValueError, match="a time to share; give max_seconds"):
        run_of(tmp_path)
    plan = [MINI_STAGES[name] for name in ("m3", "m4", "m5")]
    with run_of(tmp_path, max_seconds=60) as run:
        assert run.left_of(plan) == plan
        run.divide(plan)
        run.enter(plan[1])
        run.save()
    with run_of(tmp_path, max_seconds=60, resume=True) as run:
        assert [stage.name for stage in run.left_of(plan)] == ["m4", "m5"]


def rates(run):
    """Of the steps that a run takes until its time is over."""
    with run:
        if not run.resume:
            run.optimizer.step_count = 5000  # of a run before
            run.begin_anew()
        run.divide([MINI_STAGES["m6"]])
        run.enter(MINI_STAGES["m6"])
        run.train(lambda network: {"loss": network(torch.ones(3)).square().mean()}, lambda network: ({}, []))
        run.save()
    return [line["lr"] for line in read_log(run.out / "log.jsonl") if "lr" in line]


def test_a_timed_run_goes_on_at_the_rate_it_ended_with(tmp_path):
    before = rates(run_of(tmp_path, max_seconds=1))
    assert before[0] == pytest.approx(8e-4 / 5) and max(before) > 7e-4
    resumed = run_of(tmp_path, max_seconds=1, resume=True)
    after = rates(resumed)[len(before) :]
    assert after[0] <= before[-1]
    assert resumed.optimizer.config.begin == 5000 == latest(tmp_path).config["begin"]

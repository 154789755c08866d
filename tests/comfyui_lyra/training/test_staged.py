"""Stages of one run: their shares of the time, and the learning rate over all of them."""

import pytest
import torch
from lyra_pack.comfyui_lyra.training.optimizer import MINI_OPTIM, OptimConfig
from lyra_pack.comfyui_lyra.training.staged import StagedRun, at_pace
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES


def test_the_learning_rate_falls_until_the_last_stage_ends():
    last = {name: at_pace(MINI_OPTIM, 0.5, MINI_STAGES[name].stop // 2).steps for name in ("m3", "m5", "m7")}
    assert last == {"m3": 5_100, "m5": 5_100, "m7": 6_500}
    assert at_pace(MINI_OPTIM, None, 13_000) == MINI_OPTIM
    assert at_pace(OptimConfig(), 0.5, 13_000) == OptimConfig()


def test_a_timed_run_needs_a_time_and_is_resumed_in_the_stage_it_was_in(tmp_path):
    def run_of(**more):
        about = {"stage": "m3", "config": {}, "seed": 0, "device": "cpu", "steps": 10}
        return StagedRun(torch.nn.Linear(3, 2), OptimConfig(), tmp_path, timed=True, **about, **more)

    with pytest.raises(ValueError, match="a time to share; give max_seconds"):
        run_of()
    plan = [MINI_STAGES[name] for name in ("m3", "m4", "m5")]
    with run_of(max_seconds=60) as run:
        assert run.left_of(plan) == plan
        run.divide(plan)
        run.enter(plan[1])
        run.save()
    with run_of(max_seconds=60, resume=True) as run:
        assert [stage.name for stage in run.left_of(plan)] == ["m4", "m5"]

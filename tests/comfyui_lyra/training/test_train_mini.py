"""The mini trainers at a size for tests: tokenizer, then teacher on its latents, resumed and shipped."""

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS, TOKENIZER_PRESETS, TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.gen3c.load import load_teacher
from lyra_pack.comfyui_lyra.tokenizer.model import load_tokenizer
from lyra_pack.comfyui_lyra.training.run.checkpoint import latest
from lyra_pack.comfyui_lyra.training.run.log import read_log
from lyra_pack.comfyui_lyra.training.run.loop import Run
from lyra_pack.comfyui_lyra.training.run.optimizer import OptimConfig
from lyra_pack.comfyui_lyra.training.train_teacher import (
    TeacherTraining,
    draw_sigmas,
    initial_teacher,
    losses,
    make_data,
    train_teacher,
)
from lyra_pack.comfyui_lyra.training.train_tokenizer import TokenizerTraining, train_tokenizer

TOKENIZER = TokenizerConfig(family="mini", channels=8, multipliers=(1, 1, 1), layers=1)
TEACHER = TeacherConfig(
    family="mini", trained_size=(16, 32), trained_frames=9, heads=2, head_dim=16, blocks=1, adaln_rank=4, text_dim=8,
    text_rows=2, max_grid=(2, 2, 4), bf16_angles=False,
)  # fmt: skip
SMALL = TokenizerTraining(
    steps=8, size=(16, 32), frames=9, scenes=1, others=1, validation=1, renders_a_step=2, warps_a_step=1,
    others_a_step=1, warmup=2, lr=3e-3,
)  # fmt: skip


def losses_of(folder):
    return [line["loss"] for line in read_log(folder / "log.jsonl") if "loss" in line]


@pytest.mark.slow
def test_tokenizer_then_teacher_learn_resume_and_ship(tmp_path):
    first = train_tokenizer(tmp_path / "a", config=TOKENIZER, training=SMALL, device="cpu")
    tokenizer = load_tokenizer(first)
    assert (tokenizer.family, tokenizer.mean.shape) == ("mini", (16, 2))
    metrics = json.loads((tmp_path / "a" / "tokenizer_metrics.json").read_text())["metrics"]
    assert len(list((tmp_path / "a").glob("tokenizer-*.png"))) == 6
    assert metrics["psnr"] > 5
    resumed = train_tokenizer(
        tmp_path / "a", config=TOKENIZER, training=replace(SMALL, steps=10), resume=True, max_seconds=600
    )
    assert json.loads((tmp_path / "a" / "tokenizer_metrics.json").read_text())["step"] == 10

    again = train_tokenizer(tmp_path / "again", init_from=first, training=replace(SMALL, steps=1, lr=1e-9))
    weights, before = (load_tokenizer(file).autoencoder.state_dict() for file in (again, first))
    assert all(torch.allclose(weights[name], before[name], atol=1e-3) for name in before)

    training = TeacherTraining(steps=4, scenes=1, validation=2, batch=2, warmup=1, sampling_steps=2)
    file = train_teacher(tmp_path / "b", resumed, config=TEACHER, training=training)
    teacher = load_teacher(file)
    assert (teacher.config, teacher.licence) == (TEACHER, "Apache-2.0")
    assert {"psnr_visible", "psnr_hole", "guided_psnr", "sharpness"} <= json.loads(
        (tmp_path / "b" / "teacher_metrics.json").read_text()
    )["metrics"].keys()
    settings = replace(training, steps=1, lr=1e-9)
    again = load_teacher(train_teacher(tmp_path / "again", resumed, init_from=file, training=settings))
    before, weights = (found.network.state_dict() for found in (teacher, again))
    assert again.config == TEACHER
    assert all(torch.allclose(weights[name], before[name], atol=1e-3) for name in before)


def test_a_new_teacher_predicts_nothing_and_so_loses_the_variance():
    network = initial_teacher(TEACHER, 0)
    generator = torch.Generator().manual_seed(0)
    clips = 0.5 * torch.randn(256, 16, 2, 2, 4, generator=generator)
    sigma = draw_sigmas(256, generator, torch.device("cpu"))
    noise = torch.randn(clips.shape, generator=generator)
    terms = losses(network, clips, torch.zeros(256, 64, 2, 2, 4), sigma, noise, torch.zeros(1, 2, 8), 24.0)
    assert terms["loss"].item() == pytest.approx(1, abs=0.05)  # F has unit variance whatever the noise level


def test_a_teacher_learns_to_copy_its_warps():
    network = initial_teacher(TEACHER, 0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    clips = 0.5 * torch.randn(64, 16, 2, 2, 4, generator=generator)
    warps = torch.cat((clips, torch.zeros(64, 48, 2, 2, 4)), dim=1)
    found = []
    for _ in range(60):
        sigma, noise = draw_sigmas(64, generator, clips.device), torch.randn(clips.shape, generator=generator)
        loss = losses(network, clips, warps, sigma, noise, torch.zeros(1, 2, 8), 24.0)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert sum(found[-5:]) / 5 < 0.75 * sum(found[:5]) / 5


def test_noise_levels_stay_within_the_sampler_s():
    sigmas = draw_sigmas(4000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert 0.002 <= sigmas.min() < 0.01
    assert 20 < sigmas.max() <= 80
    assert sigmas.log().median().item() == pytest.approx(-0.3, abs=0.3)


def run_of(folder, steps, config=None, **more):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optim = OptimConfig(lr=0.05, final_lr=0.001, steps=40, warmup=2)
    return Run(model, optim, folder, stage="line", config=config or {}, seed=0, device="cpu", steps=steps, **more)


def learn(run, network):
    x = torch.randn(8, 3, generator=run.generator()).to(network.weight.dtype)
    return {"loss": (network(x) - x[:, :2]).square().mean()}


def teach(run):
    with run:
        run.train(
            lambda network: learn(run, network), lambda network: ({"weight": network.weight.abs().sum().item()}, [])
        )
        run.save()
    return run


def test_resumed_steps_are_those_of_one_run(tmp_path):
    whole = teach(run_of(tmp_path / "whole", 20))
    teach(run_of(tmp_path / "parts", 9))
    parts = teach(run_of(tmp_path / "parts", 20, resume=True))
    assert parts.step == 20
    assert torch.equal(parts.model.weight, whole.model.weight)
    assert torch.equal(parts.ema.module.weight, whole.ema.module.weight)
    assert parts.ema.n_averaged == whole.ema.n_averaged == 5


def test_a_kill_costs_the_steps_since_the_last_minute_only(tmp_path, monkeypatch):
    def killed(network):
        if run.step == 7:
            raise MemoryError
        return learn(run, network)

    whole = teach(run_of(tmp_path / "whole", 20))
    run = run_of(tmp_path / "parts", 20)
    with pytest.raises(MemoryError), run:
        run.train(killed, lambda network: ({}, []))
    assert latest(tmp_path / "parts") is None
    monkeypatch.setattr("lyra_pack.comfyui_lyra.training.run.loop.SAVE_SECONDS", -1.0)
    run = run_of(tmp_path / "parts", 20)
    with pytest.raises(MemoryError), run:
        run.train(killed, lambda network: ({}, []))
    assert len(list((tmp_path / "parts").glob("step-*.json"))) == 1
    assert latest(tmp_path / "parts").step == 7
    parts = teach(run_of(tmp_path / "parts", 20, resume=True))
    assert torch.equal(parts.model.weight, whole.model.weight)


def test_a_run_is_resumed_with_what_it_began_with(tmp_path):
    teach(run_of(tmp_path, 2, {"tokenizer": "a", "training": {"seed": 0, "steps": 2}}))
    resumed = teach(run_of(tmp_path, 3, {"tokenizer": "a", "training": {"seed": 0, "steps": 3}}, resume=True))
    assert resumed.step == 3
    with pytest.raises(ValueError, match="begun with another tokenizer and seed 0 instead of 1; resume with the same"):
        teach(run_of(tmp_path, 4, {"tokenizer": "b", "training": {"seed": 1}}, resume=True))
    with pytest.raises(ValueError, match="has 3 steps already, and this run is to end at step 2; ask for 3 at least"):
        teach(run_of(tmp_path, 2, {"tokenizer": "a"}, resume=True))


def test_an_interrupted_run_ends_in_good_order_and_the_interruption_goes_on(tmp_path):
    def interrupted(network):
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(run, network)

    run = run_of(tmp_path, 20)
    with pytest.raises(KeyboardInterrupt), run:
        run.train(interrupted, lambda network: ({}, []))
        run.save()
    assert latest(tmp_path).step == 4


def test_a_checkpoint_that_would_be_too_large_leaves_out_the_optimiser(tmp_path, monkeypatch):
    monkeypatch.setattr("lyra_pack.comfyui_lyra.training.run.loop.LARGEST_CHECKPOINT", 100)
    first = teach(run_of(tmp_path, 9))
    assert not list(tmp_path.glob("*.state.safetensors"))
    resumed = run_of(tmp_path, 10, resume=True)
    with resumed:
        assert resumed.step == 9
        assert torch.equal(resumed.model.weight, first.model.weight)


def test_the_learning_rate_ends_with_the_time(tmp_path, monkeypatch):
    now = [0.0]  # a clock of our own: on a busy machine one slow step may take all of a short time
    clock = SimpleNamespace(monotonic=lambda: now[0])
    for module in ("loop", "time_box"):
        monkeypatch.setattr(f"lyra_pack.comfyui_lyra.training.run.{module}.time", clock)

    def learn_for_a_while(network):
        now[0] += 0.25
        return learn(run, network)

    run = run_of(tmp_path, None, max_seconds=30)
    with run:
        run.train(learn_for_a_while, lambda network: ({}, []))
    assert 100 < run.step <= 120
    assert run.optimizer.config.steps < 130
    assert run.optimizer.config.rate(run.step) < 0.003


def test_a_run_without_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="number of steps, a time, or both"):
        run_of(tmp_path, None)


def test_data_that_takes_too_long_is_cut_short(tmp_path):
    run = run_of(tmp_path, None, max_seconds=1000)
    with run:
        assert list(run.gather(range(5), 0.5)) == [0, 1, 2, 3, 4]
        run.box.start -= 600
        assert list(run.gather(range(5), 0.5)) == [0]
    assert any(line.get("event") == "data cut short" for line in read_log(tmp_path / "log.jsonl"))


def test_half_precision_steps_follow_the_full_weights(tmp_path):
    run = run_of(tmp_path, 5)
    run.is_half, run.network = True, torch.nn.Linear(3, 2).bfloat16()
    teach(run)
    assert run.network.weight.dtype == torch.bfloat16
    assert torch.equal(run.network.weight, run.model.weight.bfloat16())


@pytest.mark.parametrize("presets", [TOKENIZER_PRESETS, TEACHER_PRESETS])
def test_mini_presets_are_of_the_mini_family(presets):
    assert presets["mini"].family == "mini"


def test_one_scene_is_enough_to_validate_on_and_none_is_refused(tmp_path, nano_tokenizer):
    run = run_of(tmp_path / "run", 1)
    _, held_out = make_data(nano_tokenizer, TEACHER, TeacherTraining(scenes=1, validation=1), run)
    assert len(held_out.truth) == len(held_out.latents.clips) == 6
    with pytest.raises(ValueError, match="a teacher is validated on 0 scenes; at least 1 is needed"):
        train_teacher(tmp_path, tmp_path / "none", training=TeacherTraining(validation=0))
    with pytest.raises(ValueError, match="a tokenizer is validated on 0 clips; at least 1 is needed"):
        train_tokenizer(tmp_path, training=TokenizerTraining(validation=0))

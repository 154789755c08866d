import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.training.data.streams import Streams
from lyra_pack.comfyui_lyra.training.run.checkpoint import (
    Snapshot,
    fill,
    latest,
    load_snapshot,
    save_snapshot,
    write_snapshot,
)
from lyra_pack.comfyui_lyra.training.run.optimizer import OptimConfig, Optimizer, moving_average
from safetensors.torch import load_file, save_file
from torch import nn

HERE = Path(__file__)


def train(folder: Path, steps: int, save_every: int = 5, killed_at: int | None = None) -> dict[str, torch.Tensor]:
    """A tiny run on random data that goes on from whatever the folder holds; its weights, averages and moments."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))
    optimizer, ema, streams = Optimizer(model, OptimConfig(lr=0.01)), moving_average(model), Streams(1)
    found = latest(folder)
    if found is not None:
        fill(model, found.weights, "the checkpoint")
        optimizer.restore(found.optimizer, found.step)
        fill(ema.module, found.ema, "the average")
        ema.n_averaged.fill_(found.ema_updates)
        streams.restore(found.rng)
    while optimizer.step_count < steps:
        x = torch.randn(8, 6, generator=streams.torch) * streams.python.random() + streams.numpy.randn()
        model(x).square().mean().backward()
        optimizer.step()
        ema.update_parameters(model)
        step = optimizer.step_count
        if step % save_every == 0:
            save_snapshot(folder, Snapshot(
                step=step, stage="tiny", weights=model.state_dict(), ema=ema.module.state_dict(),
                ema_updates=int(ema.n_averaged),
                optimizer=optimizer.state(), rng=streams.state(), config={"lr": 0.01},
                metrics={"loss": 0.5},
            ))  # fmt: skip
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
    return {**model.state_dict(), **{f"ema.{n}": t for n, t in ema.module.state_dict().items()}, **optimizer.state()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(tmp_path):
    expected = train(tmp_path / "straight", 20)
    train(tmp_path / "resumed", 10)
    assert_equal(train(tmp_path / "resumed", 20), expected)
    train(tmp_path / "lost", 13)  # the steps since the last checkpoint are done again
    assert_equal(train(tmp_path / "lost", 20), expected)


@pytest.mark.slow
def test_a_run_that_was_killed_equals_an_uninterrupted_one_bit_by_bit(tmp_path):
    tests = HERE.parents[3]
    code = (
        f"import sys; sys.path[:0] = [{str(tests)!r}, {str(HERE.parent)!r}]\n"
        "import conftest, torch; torch.set_num_threads(1)\n"  # the tests' conftest names the pack
        "from pathlib import Path; import test_checkpoint\n"
        f"test_checkpoint.train(Path({str(tmp_path / 'killed')!r}), 20, killed_at=13)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert latest(tmp_path / "killed").step == 10
    assert_equal(train(tmp_path / "killed", 20), train(tmp_path / "straight", 20))


def snapshot(step: int, value: float | None = None, **about) -> Snapshot:
    value = float(step) if value is None else value
    return Snapshot(
        step=step, stage="tiny", weights={"a": torch.full((4,), value), "b": torch.full((2, 3), value)},
        ema={"a": torch.full((4,), -value)}, optimizer={"step.a": torch.tensor(value)}, config={"x": [1, None, "y"]},
        **about,
    )  # fmt: skip


def kept(folder: Path, saved: Snapshot) -> None:
    """A checkpoint beside older ones, as a kill before they were removed leaves it."""
    folder.mkdir(exist_ok=True)
    write_snapshot(folder, saved)


class Killed(BaseException):
    pass


def die_at(monkeypatch, number: int) -> list[str]:
    """Let the process "die" before the number-th call that changes the folder; the names of those calls."""
    calls = []

    def watch(owner, name):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            if len(calls) == number:
                raise Killed
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    watch(os, "replace"), watch(os, "fsync"), watch(Path, "unlink"), watch(Path, "open")
    return calls


@pytest.mark.parametrize("again", [False, True], ids=["a later step", "the same step again"])
def test_a_kill_at_any_moment_of_a_save_leaves_a_checkpoint(tmp_path, monkeypatch, again):
    for step in (1, 2, 3):
        kept(tmp_path / "before", snapshot(step))
    new = snapshot(3, 30.0) if again else snapshot(4, 30.0)
    outcomes, number = [], 0
    while not outcomes or outcomes[-1] != "finished":
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "before", folder)
        with monkeypatch.context() as patch:
            die_at(patch, number)
            try:
                save_snapshot(folder, new)
                outcomes.append("finished")
            except Killed:
                outcomes.append("killed")
        found = latest(folder, required=True)
        assert found.weights["b"][0, 0].item() in (3.0, 30.0) and found.ema["a"][0] == -found.weights["a"][0]
        assert found.optimizer["step.a"] == found.weights["a"][0]
        assert not list(folder.glob("*.corrupt"))
        save_snapshot(folder, snapshot(9))
        assert sorted(p.name for p in folder.iterdir()) == [
            "step-00000009.json", "step-00000009.safetensors", "step-00000009.state.safetensors"
        ]  # fmt: skip
        number += 1
    assert number > 12


DAMAGES = {
    "a missing tensor file": lambda folder: (folder / "step-00000002.state.safetensors").unlink(),
    "a truncated tensor file": lambda folder: os.truncate(folder / "step-00000002.safetensors", 90),
    "an empty tensor file": lambda folder: os.truncate(folder / "step-00000002.safetensors", 0),
    "a flipped byte": lambda folder: flip(folder / "step-00000002.safetensors"),
    "a truncated json": lambda folder: os.truncate(folder / "step-00000002.json", 60),
    "an empty json": lambda folder: os.truncate(folder / "step-00000002.json", 0),
    "a json of something else": lambda folder: (folder / "step-00000002.json").write_text("[3]"),
    "an edited config": lambda folder: edit(folder / "step-00000002.json", config={"lr": 9}),
    "a later layout": lambda folder: edit(folder / "step-00000002.json", format=7),
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_broken_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, caplog, damage):
    kept(tmp_path, snapshot(1)), kept(tmp_path, snapshot(2))
    before = len([*tmp_path.iterdir()])
    damage(tmp_path)
    lost = before - len([*tmp_path.iterdir()])
    with caplog.at_level(logging.WARNING, "lyra"):
        assert latest(tmp_path).step == 1
    assert "step-00000002.json cannot be loaded" in caplog.text and "set aside" in caplog.text
    assert len([*tmp_path.iterdir()]) == before - lost and (tmp_path / "step-00000002.json.corrupt").exists()
    save_snapshot(tmp_path, snapshot(2))
    assert latest(tmp_path).step == 2


def test_with_nothing_left_a_demanded_resume_is_an_error(tmp_path):
    assert latest(tmp_path) is None and latest(tmp_path / "missing") is None
    save_snapshot(tmp_path, snapshot(1))
    (tmp_path / "step-00000001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint to resume from \(1 broken ones set aside"):
        latest(tmp_path, required=True)


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    streams = Streams(3)
    shared = torch.arange(6.0)
    saved = replace(
        snapshot(7, rng=streams.state(), metrics={"loss": 0.25}, ema_updates=5),
        weights={"x": shared, "y": shared.view(2, 3).T, "half": torch.ones(3, dtype=torch.float16)},
    )
    found = load_snapshot(save_snapshot(tmp_path, saved))
    assert_equal(found.weights, saved.weights)
    assert_equal(found.ema, saved.ema), assert_equal(found.optimizer, saved.optimizer)
    for name in ("step", "stage", "rng", "config", "metrics", "ema_updates"):
        assert getattr(found, name) == getattr(saved, name)
    assert found.weights["half"].dtype == torch.float16


def test_older_checkpoints_go(tmp_path):
    for step in range(1, 4):
        kept(tmp_path, snapshot(step))
    save_snapshot(tmp_path, snapshot(3))
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["step-00000003.json"]
    assert len([*tmp_path.iterdir()]) == 3


def test_a_checkpoint_of_several_files_is_read(tmp_path):
    path = save_snapshot(tmp_path, snapshot(1))
    one, two = tmp_path / "step-00000001.safetensors", tmp_path / "step-00000001.1.safetensors"
    weights = load_file(one)
    save_file({"a": weights.pop("a")}, two), save_file(weights, one)
    digests = json.loads(path.read_text())["sha256"]
    edit(path, sha256=digests | {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (one, two)})
    assert_equal(latest(tmp_path).weights, snapshot(1).weights)
    assert_equal(latest(tmp_path).ema, snapshot(1).ema)


def test_weights_must_fit_and_may_be_missing_only_by_name():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    part = {name: tensor for name, tensor in state.items() if not name.startswith("1.")}
    with pytest.raises(ValueError, match=r"stage 5 does not fit Sequential: 2 missing \(first: \['1.weight'\]\)"):
        fill(model, part, "stage 5")
    kept = model[1].weight.clone()
    fill(model, part, "stage 5", may_miss=(r"^1\.",))
    assert torch.equal(model[0].weight, state["0.weight"]) and torch.equal(model[1].weight, kept)
    with pytest.raises(ValueError, match="1 unexpected"):
        fill(model, state | {"2.weight": kept}, "stage 5")
    with pytest.raises(ValueError, match=r"0.bias is \(4,\), expected \(3,\)"):
        fill(model, state | {"0.bias": torch.zeros(4)}, "stage 5")

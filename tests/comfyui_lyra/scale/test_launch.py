import os
from types import SimpleNamespace

import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.team import NAMES
from lyra_pack.comfyui_lyra.scale import launch
from lyra_pack.kernels_glue.registry import KernelUnavailable


def test_each_process_is_told_who_it_is(monkeypatch):
    seen = []
    monkeypatch.setattr(launch, "spawn", lambda function, args, nprocs: [function(i, *args) for i in range(nprocs)])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    options = SimpleNamespace(gpus=2, device=torch.device("cpu"), verb="generate")
    assert launch.side_by_side(lambda given: seen.append({name: os.environ[name] for name in NAMES}), options) == 0
    assert [told["RANK"] for told in seen] == ["0", "1"] and {told["WORLD_SIZE"] for told in seen} == {"2"}


def test_more_cards_than_there_are_is_said():
    options = SimpleNamespace(gpus=99, device=torch.device("cuda"), verb="generate")
    with pytest.raises(ValueError, match=r"--gpus 99: this machine has \d"):
        launch.side_by_side(print, options)


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, KernelUnavailable])
def test_an_error_of_a_process_is_told_once_and_ends_with_1(kind, monkeypatch, capsys):
    def fails(options):
        raise kind("no such geometry")

    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(SystemExit) as ended:
        launch.member(1, 29500, fails, SimpleNamespace(gpus=2, verb="generate"))
    assert ended.value.code == 1
    assert capsys.readouterr().err == "lyra generate, process 2: no such geometry\n"

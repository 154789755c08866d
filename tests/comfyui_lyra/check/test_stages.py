"""The mini models through all stages: right as they are, and each fault named by its stage."""

from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.check import stages as module
from lyra_pack.comfyui_lyra.check.stages import EXPECTED, against_cpu, against_stored, compared, counted, stages

CPU = torch.device("cpu")
FRAMES = torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))


class Stopped(Exception):
    """What a host raises in ``on_step`` to stop a run."""


@pytest.mark.slow
def test_the_shipped_models_give_on_the_cpu_what_they_gave_when_they_were_made():
    seen, told = [], []
    (section,) = stages(CPU, tell=told.append, on_step=lambda done, total: seen.append((done, total)))
    assert [finding.name for finding in section.findings] == list(EXPECTED)
    assert [(f.name, f.found) for f in section.findings if not f.works] == []
    assert "no GPU" in section.note and seen == [(n, 7) for n in range(1, 8)] and len(told) == 1


def test_other_results_than_the_stored_ones_fail():
    mean, std = EXPECTED["decode"]
    near = torch.tensor([mean - std, mean + std]).repeat(5000)
    assert against_stored("decode", near, 1.0).works
    assert not against_stored("decode", near + 0.02 * std, 1.0).works
    assert not against_stored("decode", near * 1.02, 1.0).works
    assert not against_stored("decode", torch.full((8,), torch.nan), 1.0).works


def test_a_stage_is_judged_by_how_near_it_is_to_the_cpu():
    noise = torch.randn(FRAMES.shape, generator=torch.Generator().manual_seed(1))
    for name, small, large in (("decode", 0.005, 0.02), ("encode", 0.001, 0.02)):
        assert against_cpu(name, FRAMES + small * noise, FRAMES, torch.float32, 0.0).works, name
        assert not against_cpu(name, FRAMES + large * noise, FRAMES, torch.float32, 0.0).works, name
        assert not against_cpu(name, FRAMES * torch.nan, FRAMES, torch.float32, 0.0).works, name


def faulty(monkeypatch, broken: str, error: Exception | None) -> list:
    """Findings of a device on which one stage raises, or is wrong."""

    def runs(models, device, known):
        for name in EXPECTED:
            yield name, fail if name == broken else lambda: FRAMES

    def fail():
        if error:
            raise error
        return 1 - FRAMES

    monkeypatch.setattr(module, "runs", runs)
    monkeypatch.setattr(module.Minis, "load", lambda device, dtype: None)
    reference = dict.fromkeys(EXPECTED, FRAMES)
    return list(compared(CPU, torch.float32, None, reference, counted(lambda *_: None, 7)))


@pytest.mark.parametrize("broken", EXPECTED)
def test_a_wrong_stage_is_the_only_one_that_fails(monkeypatch, broken):
    assert [f.name for f in faulty(monkeypatch, broken, None) if not f.works] == [broken]


def test_a_stage_that_raises_fails_with_its_first_line_and_the_others_run(monkeypatch):
    failing = [f for f in faulty(monkeypatch, "generate", RuntimeError("out of paper\nmore")) if not f.works]
    assert [(f.name, f.found) for f in failing] == [("generate", "RuntimeError: out of paper")]


def test_after_a_device_was_lost_nothing_more_is_run_on_it(monkeypatch):
    monkeypatch.setattr(module, "is_lost", lambda device: True)
    found = faulty(monkeypatch, "decode", RuntimeError("illegal memory access"))
    assert [f.works for f in found] == [True, True, True, False, False, False, False]
    assert found[-1].found == "RuntimeError: not run, since the device failed in 'decode'"


def test_a_host_that_stops_the_run_is_not_taken_for_a_fault(monkeypatch):
    with pytest.raises(Stopped):
        faulty(monkeypatch, "decode", Stopped())


def test_a_device_that_computes_is_not_lost():
    assert not module.is_lost(CPU)


@pytest.mark.gpu
@pytest.mark.slow
def test_the_gpu_gives_what_the_cpu_gives():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    sections = stages(torch.device("cuda"))
    assert [replace(f, name=f"{s.title}: {f.name}") for s in sections for f in s.findings if not f.works] == []

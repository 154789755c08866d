"""Models one after another: what is told, counted, stopped, and what happens to the next when one fails."""

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.check import models as module
from lyra_pack.comfyui_lyra.check.models import Models, first_light, sizes_of
from lyra_pack.comfyui_lyra.check.report import Finding
from lyra_pack.comfyui_lyra.check.stages import Minis

CPU = torch.device("cpu")


class Stopped(Exception):
    """What a host raises in ``on_step`` to stop a run."""


@pytest.fixture
def checks(monkeypatch):
    """Checks that pass at once, and count."""

    def tokenizer(network, stage, bounds, step):
        for _ in range(module.checks.STEPS_TOKENIZER):
            step()
        yield Finding(name="tokenizer", found=str(stage), works=True)

    def teacher(network, tokenizer, stage, bounds, step, alive):
        alive(1, 5)
        for _ in range(module.checks.STEPS_TEACHER):
            step()
        yield Finding(name="teacher", found=str(stage), works=True)

    def recon(network, tokenizer, stage, bounds, step, schedule, compare, alive):
        for _ in range(module.checks.steps_recon(compare)):
            step()
        yield Finding(name="recon", found=str(stage), works=True)

    monkeypatch.setattr(module.checks, "tokenizer_checks", tokenizer)
    monkeypatch.setattr(module.checks, "teacher_checks", teacher)
    monkeypatch.setattr(module.checks, "recon_checks", recon)
    monkeypatch.setattr(module.Stage, "at", lambda size, frames, device: Paths())


class Paths:
    """Stands for a stage that nobody films."""

    def __init__(self):
        self.paths = camera_paths(pinhole_camera(48, 32, 50), PathSettings("six_paths", 9))

    def __str__(self):
        return "a stage"


@pytest.fixture
def small(small_tokenizer, small_teacher, small_recon):
    return Models(tokenizer=lambda: small_tokenizer, teacher=lambda: small_teacher, recon=lambda: small_recon)


def test_every_model_is_announced_before_it_runs_and_all_steps_are_counted(checks, small):
    told, seen = [], []
    sections = first_light(small, CPU, told.append, lambda done, total: seen.append((done, total)))
    assert [section.title for section in sections] == [
        "First light: tokenizer", "First light: teacher", "First light: splat decoder",
    ]  # fmt: skip
    assert all(line.startswith(f"First light of the {name}: about") for line, name in zip(
        told, ("tokenizer", "teacher", "splat decoder"), strict=True
    ))  # fmt: skip
    assert seen[-1][0] == seen[-1][1] == len({done for done, _ in seen})
    assert all("provisional" in section.note for section in sections)  # a family that nobody measured


def test_models_that_are_not_given_are_not_looked_at(checks, small_tokenizer):
    (section,) = first_light(Models(tokenizer=lambda: small_tokenizer), CPU)
    assert section.findings[0].works


def test_a_model_that_cannot_be_loaded_fails_and_the_others_run(checks, small, small_tokenizer):
    def broken():
        raise ValueError("no weights at gen3c.pt\nmore")

    mixed = Models(tokenizer=lambda: small_tokenizer, teacher=broken, recon=small.recon)
    found = {section.title: section.findings for section in first_light(mixed, CPU)}
    (fault,) = found["First light: teacher"]
    assert fault.works is False and fault.found == "ValueError: no weights at gen3c.pt"
    assert found["First light: splat decoder"][0].works


def test_a_host_may_stop_at_any_step(checks, small):
    def stop(done, total):
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        first_light(small, CPU, on_step=stop)


def test_a_family_without_a_preset_is_shown_clips_of_the_released_size():
    assert sizes_of("mini") == ((96, 160), 17)
    assert sizes_of("lyra") == sizes_of("else") == ((704, 1280), 121)


@pytest.mark.gpu
@pytest.mark.slow
def test_the_shipped_models_pass_on_a_gpu_in_both_precisions():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    for dtype in (torch.float32, torch.bfloat16):
        minis = Minis.load(device, dtype)
        for recon in (minis.static, minis.dynamic):
            some = Models(
                tokenizer=lambda m=minis: m.tokenizer, teacher=lambda m=minis: m.teacher, recon=lambda r=recon: r
            )
            found = [finding for section in first_light(some, device) for finding in section.findings]
            assert len(found) == 8 and [f for f in found if not f.works] == []

import pytest

pytest.importorskip("comfy_api")

import torch  # noqa: E402
from lyra_pack.comfyui_lyra.check import everything, models  # noqa: E402
from lyra_pack.comfyui_lyra.check.report import Finding, Section  # noqa: E402
from lyra_pack.nodes.comfy import devices  # noqa: E402
from lyra_pack.nodes.models import check
from lyra_pack.nodes.models.load import LoadRecon, LoadTokenizer  # noqa: E402
from lyra_pack.nodes.models.teacher import LoadTeacher  # noqa: E402

FINE = Section(title="Minis", findings=(Finding(name="encode", found="near", works=True),))


@pytest.fixture
def quick(folders, monkeypatch):
    """Without the mini models through all stages, which take their time."""
    monkeypatch.setattr(everything, "stages", lambda device, precisions, tell, on_step: (FINE,))


def loaded():
    return (
        LoadTokenizer.execute("mini/mini_tokenizer.safetensors", "float32").args[0],
        LoadTeacher.execute("mini/mini_teacher.safetensors", "float32", "auto", "auto").args[0],
        LoadRecon.execute("mini/mini_recon_static.safetensors", "float32").args[0],
    )


def test_the_machine_alone_is_checked_and_comfyui_is_named(quick):
    (report,) = check.Check.execute().args
    assert report.startswith("# Lyra: check of the setup\n\n**All works**")
    assert "| ComfyUI |" in report and "## Kernels" in report and "First light" not in report


def test_models_without_their_tokenizer_are_refused_before_anything_is_done(quick):
    with pytest.raises(ValueError, match="connect their tokenizer too"):
        check.Check.execute(teacher=object())


@pytest.mark.slow
def test_connected_models_are_tried_out_one_after_another(quick, monkeypatch):
    brought, load = [], devices.load
    monkeypatch.setattr(devices, "load", lambda *given, size: (brought.append(len(given)), load(*given, size=size)))
    tokenizer, teacher, recon = loaded()
    (report,) = check.Check.execute(tokenizer, teacher, recon).args
    assert "**All works**" in report
    for part in ("tokenizer", "teacher", "splat decoder"):
        assert f"## First light: {part}" in report
    assert brought == [1, 1, 2, 1, 2]  # the tokenizer, then it and each other model


def test_a_model_that_cannot_run_fails_and_the_next_is_tried(quick, monkeypatch):
    def broken(*given):
        raise RuntimeError("no kernel image is available\nfor execution")
        yield

    monkeypatch.setattr(models.checks, "tokenizer_checks", broken)
    tokenizer = LoadTokenizer.execute("mini/mini_tokenizer.safetensors", "float32").args[0]
    (report,) = check.Check.execute(tokenizer).args
    assert "tokenizer: runs | RuntimeError: no kernel image is available | no error" in report
    assert "**It will not all work**" in report


def test_a_cancelled_run_stops_in_the_middle(quick):
    import comfy.model_management

    tokenizer = LoadTokenizer.execute("mini/mini_tokenizer.safetensors", "float32").args[0]
    comfy.model_management.interrupt_current_processing(True)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            check.Check.execute(tokenizer)
    finally:
        comfy.model_management.interrupt_current_processing(False)


def test_the_clip_that_models_are_shown_is_their_familys(quick):
    assert check.shape_of("lyra") == (121, 704, 1280) and check.shape_of("mini") == (17, 96, 160)
    assert devices.compute_device() == torch.device("cpu") or torch.cuda.is_available()

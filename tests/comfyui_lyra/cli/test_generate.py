import pytest
import torch
from lyra_pack.comfyui_lyra.cli import main, models
from lyra_pack.comfyui_lyra.files.scenes.geometry import save_geometry
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg
from lyra_pack.comfyui_lyra.gen3c.load import save_teacher
from lyra_pack.comfyui_lyra.tokenizer.model import save_tokenizer


@pytest.fixture
def run(tmp_path, small_teacher, small_tokenizer, picture, monkeypatch):
    """``lyra generate`` of one path by small models: its exit status."""
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    save_teacher(small_teacher, tmp_path / "teacher.safetensors")
    save_tokenizer(small_tokenizer, tmp_path / "tokenizer.safetensors")
    save_geometry(tmp_path / "scene.safetensors", picture)
    files = ["--teacher", "teacher.safetensors", "--tokenizer", "tokenizer.safetensors"]
    given = ["generate", "scene.safetensors", "out", *files, "--preset", "up", "--no-rgb"]
    return lambda *words: main([*given, "--device", "cpu", "--dtype", "float32", *words])


def test_a_mode_decides_instead_of_the_flags_says_so_and_is_part_of_the_key(run, tmp_path, capsys):
    assert run("--mode", "fast", "--steps", "3") == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "10 steps of dpmpp_2m; no guidance; step cache 0.1; attention auto" in said
    made = load_sdg(tmp_path / "out").provenance
    assert (made["steps"], made["solver"], made["guidance"], made["step_cache"]) == ("10", "dpmpp_2m", "0.0", "0.1")
    assert run("--steps", "3") == 1 and "steps" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [
    (("--attention", "int8"), "attention: backend 'int8' cannot run here: needs CUDA tensors"),
    (("--linears", "fp8"), "linears fp8 cannot run here: needs"),
    (("--compile", "--step-cache", "0.1"), "--compile does not go with a step cache;"),
    (("--compile", "--memory", "stream"), "--compile does not go with weights that stream;"),
])  # fmt: skip
def test_what_is_asked_for_by_itself_runs_or_says_why_not(run, capsys, words, said):
    assert run("--steps", "2", *words) == 1
    assert said in capsys.readouterr().err


def test_compiling_is_asked_for_and_its_time_is_told_beforehand(run, capsys, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block, **given: compiled.append(given))
    assert run("--steps", "2") == 0 and not compiled
    capsys.readouterr()
    assert run("--steps", "2", "--name", "other", "--compile") == 0
    assert compiled == [{"dynamic": False}] * 2 and models.COMPILING in capsys.readouterr().out

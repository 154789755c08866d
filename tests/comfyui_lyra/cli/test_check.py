"""The shell's ``check``: what it looks at, what it prints, and its exit status."""

import re

import pytest
from lyra_pack.comfyui_lyra.check import everything
from lyra_pack.comfyui_lyra.check.report import Finding, Section
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.recon.load import save_recon
from lyra_pack.comfyui_lyra.weights.shipped import MINI, shipped_model

CPU = ["--device", "cpu"]


@pytest.fixture
def stages(monkeypatch):
    """What the mini models' stages find, without running them."""
    found = [Finding(name="encode", found="near", works=True)]

    def run(device, precisions, tell, on_step):
        tell("The mini models")
        return (Section(title="Mini models", findings=tuple(found)),)

    monkeypatch.setattr(everything, "stages", run)
    return found


def test_the_machine_is_checked_without_words(stages, capsys):
    assert main(["check", *CPU]) == 0
    out = capsys.readouterr().out
    for title in ("Versions", "Free memory", "Mini models", "Kernels"):
        assert f"## {title}" in out
    assert "**All works**" in out and "The machine: two minutes at most" in out


def test_one_fault_makes_the_exit_status_1_and_the_report_is_printed_all_the_same(stages, capsys, tmp_path):
    stages.append(Finding(name="decode", found="9 dB", works=False))
    assert main(["check", "--out", str(tmp_path / "report.md"), *CPU]) == 1
    said = capsys.readouterr()
    assert "checks failed: decode." in said.out and "not all works" in said.err
    assert (tmp_path / "report.md").read_text(encoding="utf-8") in said.out


def test_the_report_is_printed_whether_or_not_it_can_be_written_and_folders_are_made(stages, capsys, tmp_path):
    assert main(["check", "--out", str(tmp_path / "a" / "b" / "report.md"), *CPU]) == 0
    assert (tmp_path / "a" / "b" / "report.md").read_text(encoding="utf-8") in capsys.readouterr().out
    assert main(["check", "--out", str(tmp_path / "a"), *CPU]) == 1  # a folder
    said = capsys.readouterr()
    assert "**All works**" in said.out and "cannot write" in said.err


def test_files_alone_are_checked_where_files_are_named(tmp_path, small_recon, capsys):
    save_recon(small_recon, tmp_path / "mine.safetensors")
    assert main(["check", str(tmp_path / "mine.safetensors"), *CPU]) == 0
    out = capsys.readouterr().out
    assert "## File mine.safetensors" in out and "## Versions" not in out
    assert main(["check", str(MINI / "picture_depth.npz"), *CPU]) == 0
    assert "**Nothing fails**" in capsys.readouterr().out
    (tmp_path / "note.txt").write_text("no weights")
    assert main(["check", str(tmp_path / "note.txt"), *CPU]) == 0
    (tmp_path / "note.txt").rename(tmp_path / "note.pt")
    assert main(["check", str(tmp_path / "mine.safetensors"), str(tmp_path / "note.pt"), *CPU]) == 1
    assert "1 of" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "gone.pt"), *CPU]) == 1
    assert "no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_first_light_of_the_shipped_tokenizer_by_name_and_without(capsys):
    assert main(["check", "--tokenizer", "--dtype", "float32", *CPU]) == 0
    without = capsys.readouterr().out
    assert "## First light: tokenizer" in without and "## File" not in without
    assert re.search(r"about [\d.]+ s, roughly", without)  # 5 s at least, more on a busy machine
    file = shipped_model("tokenizer")
    assert main(["check", "--tokenizer", str(file), "--dtype", "float32", *CPU]) == 0
    assert f"## File {file.name}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_decoder_of_another_family_than_the_tokenizer_fails_with_what_to_do(tmp_path, small_recon, capsys):
    save_recon(small_recon, tmp_path / "mine.safetensors")
    assert main(["check", "--recon", str(tmp_path / "mine.safetensors"), "--dtype", "float32", *CPU]) == 1
    out = capsys.readouterr().out
    assert "splat decoder: runs" in out and "name the tokenizer of family 'small' too" in out

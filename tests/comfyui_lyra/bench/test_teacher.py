import weakref
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.bench import teacher
from lyra_pack.comfyui_lyra.bench.teacher import bench_teacher
from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS, TeacherConfig
from lyra_pack.comfyui_lyra.cost.flops import flops


def test_operations_of_the_released_size_are_those_counted_in_the_specification():
    attention, whole = flops(TEACHER_PRESETS["gen3c"])
    assert attention == pytest.approx(52.0e12, rel=1e-3)
    assert whole == pytest.approx(2.21e15, rel=2e-3)


def test_the_table_times_what_runs_here_and_says_why_the_rest_does_not():
    config = TeacherConfig(
        heads=2, head_dim=24, blocks=2, adaln_rank=8, text_dim=12, text_rows=5, trained_size=(64, 96), trained_frames=17
    )
    lines = list(bench_teacher(config, torch.device("cpu"), repeats=1, compiled=False))
    rows = {cells[1].strip(): cells for cells in (line.split("|") for line in lines[2:])}
    for name in (
        "attention, torch FLASH_ATTENTION",
        "attention, backend torch",
        "pass, eager, attention torch",
        "pass, eager, plain torch throughout",
        "linear 48 to 192, exact",
        "norm and rotation, plain torch",
        "pass, eager, without text",
        "pass, eager, weights streamed from RAM",
        "GELU of 72 tokens, fp8, plain torch",
    ):
        assert float(rows[name][2]) > 0
    shares = [rows[f"pass, eager, {name}"][4].strip() for name in ("plain torch throughout", "without text")]
    assert all(0 <= float(share.removesuffix("%")) < 200 for share in shares)  # of the processor's own products
    for bits in ("fp8", "int8"):
        assert f"linears {bits} cannot run here: needs" in rows[f"pass, eager, products in {bits}"][6]
        assert "needs CUDA tensors" in rows[f"linear 48 to 48, {bits}, quantised apart, its weight too"][6]
    assert "needs CUDA tensors" in rows["rows to int8, one kernel"][6]
    assert rows["pass, eager, attention int8"][2].strip() == "-"
    assert "needs CUDA tensors" in rows["attention, backend int8"][6]


def test_what_cannot_run_says_why_whatever_it_says():
    def broken(error):
        raise error

    for error, said in ((RuntimeError(), "RuntimeError"), (RuntimeError("\nno room\nat all"), "no room")):
        row = teacher.row("a kernel", 1.0, lambda error=error: broken(error), torch.device("cpu"), 1, 1.0)
        assert row == f"| a kernel | - | - | - | - | {said} |"


def test_a_small_card_holds_one_network_at_a_time(monkeypatch):
    made, random_teacher = [], teacher.random_teacher

    def alone(*given):
        assert not any(network() for network in made), "the one before is still held"
        made.append(weakref.ref(network := random_teacher(*given)))
        return network

    monkeypatch.setattr(teacher, "random_teacher", alone)
    config = TeacherConfig(heads=2, head_dim=24, blocks=1, adaln_rank=8, text_dim=12, text_rows=5)
    config = replace(config, trained_size=(32, 48), trained_frames=9)
    assert list(teacher.pass_rows(config, torch.device("cpu"), 1, False, 1e12))
    assert len(made) == 4

"""The bench for a card that is there for minutes: what is known is told, whatever comes after."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("comfy_api")

BENCH = Path(__file__).resolve().parents[3] / "dev" / "bench_native.py"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs the bench over some rows instead of its own; returns the lines of its table."""
    import comfy.sd

    spec = importlib.util.spec_from_file_location("bench_native", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "bind", lambda: None)  # the pack is bound already
    monkeypatch.setattr(sys, "path", sys.path[:])

    def run(rows, *words):
        monkeypatch.setattr(module, "rows", lambda teachers: rows)
        folder = str(Path(comfy.sd.__file__).parents[1])
        monkeypatch.setattr(sys, "argv", ["bench", folder, "--mini", "--work", str(tmp_path), *words])
        module.main()
        return lines(tmp_path)

    return run


def lines(work: Path) -> list[str]:
    """Rows of the table, without its head."""
    return (work / "native.md").read_text().splitlines()[2:]


def made(clip: torch.Tensor, seen=lambda: None):
    """A row's call and network, which give a clip."""
    network = torch.nn.Identity()
    return lambda: (lambda steps, guidance=1.0: (seen(), network(clip))[1], network)


def test_a_row_is_told_before_the_next_and_a_failed_one_stops_none(bench, tmp_path):
    def broken():
        raise MemoryError("no\nroom")

    before, one = [], torch.ones(1, 16, 2, 4, 6)
    found = bench([
        ("KSampler, bf16", None, 2, made(one)),
        ("KSampler, LoRA", None, 2, broken),
        ("KSampler, fp8", 8, 2, made(1.5 * one, lambda: before.append(lines(tmp_path)))),
    ])  # fmt: skip
    assert [line.split(" | ")[0] for line in found] == ["| KSampler, bf16", "| KSampler, LoRA", "| KSampler, fp8"]
    assert "MemoryError: no room" in found[1] and before[0] == found[:2]
    assert found[0].endswith("| 1 | 0 |") and found[2].endswith("| 1 | 0.5 |") and "| 8 GiB |" in found[2]


def test_rows_are_chosen_by_word_and_none_begins_too_late(bench):
    rows = [(what, None, 2, made(torch.ones(2, 16, 2, 4, 6))) for what in ("KSampler, fp8", "KSampler, int8")]
    (only,) = bench(rows, "--only", "int8")
    assert only.startswith("| KSampler, int8 | all |") and only.endswith("| 2 | - |")  # nothing to compare with
    assert "not begun after 0 s" in bench(rows, "--seconds", "0")[-1]

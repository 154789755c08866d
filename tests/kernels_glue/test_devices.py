"""Tables by kind of device, for devices that none of them names."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
import torch
from lyra_pack.kernels_glue.attention import attention_torch, in_blocks
from lyra_pack.kernels_glue.devices import by_device, doubled

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ("mps", "xpu", "hpu", "privateuseone")
SOURCES = [
    file for folder in ("kernels_glue", "comfyui_lyra", "nodes") for file in sorted((ROOT / folder).rglob("*.py"))
]


def tables() -> list[tuple[str, str]]:
    """Module and name of every constant that is a dictionary with an entry for the CPU."""
    found = []
    for file in SOURCES:
        for line in ast.parse(file.read_text("utf-8")).body:
            if isinstance(line, ast.Assign) and isinstance(line.value, ast.Dict):
                keys = [key.value for key in line.value.keys if isinstance(key, ast.Constant)]
                if "cpu" in keys:
                    module = ".".join(("lyra_pack", *file.relative_to(ROOT).with_suffix("").parts))
                    found.append((module, line.targets[0].id))
    return found


@pytest.mark.parametrize(("module", "name"), tables(), ids=lambda word: word.removeprefix("lyra_pack."))
def test_every_table_has_something_for_a_device_that_it_does_not_name(module, name):
    table = getattr(import_module(module), name)
    for kind in OTHERS:
        assert by_device(table, torch.device(kind)) == by_device(table, kind) == table["cpu"]
    assert by_device(table, torch.device("cuda", 1)) == table["cuda"]


def test_there_are_tables_and_all_are_looked_up_in_one_place():
    assert len(tables()) >= 6
    for file in SOURCES:
        if file.name == "devices.py":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            looked_up = node.slice if isinstance(node, ast.Subscript) else None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                looked_up = node.args[0] if node.args else None
            is_kind = isinstance(looked_up, ast.Attribute) and looked_up.attr == "type"
            assert not is_kind, f"{file.name}:{node.lineno} asks a table for a kind of device; use by_device"


def test_attention_on_an_unknown_device_goes_in_blocks(monkeypatch):
    gen = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 30, 8, generator=gen).unbind(0)
    whole = attention_torch(q, k, v)
    for most in (1, 2 * 3 * 30 * 4 * 7, 2**31):
        torch.testing.assert_close(in_blocks(q, k, v, most), whole)
    monkeypatch.setitem(attention_torch.__globals__, "KNOWN", ("cuda",))
    torch.testing.assert_close(attention_torch(q, k, v), whole)


def test_doubles_are_made_where_there_are_some(monkeypatch):
    x = torch.tensor([1.5])
    assert doubled(x).dtype == torch.float64
    monkeypatch.setattr("lyra_pack.kernels_glue.devices.WITHOUT_DOUBLES", ("cpu", "mps"))
    assert doubled(x).item() == 1.5 and doubled(x).device.type == "cpu"

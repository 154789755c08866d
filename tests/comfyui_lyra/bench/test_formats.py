import pytest
import torch
from lyra_pack.comfyui_lyra.bench.formats import rows


def test_every_form_has_its_size_and_seconds():
    pytest.importorskip("gaussforge")
    head, _, ply, spz, glb = rows(torch.device("cpu"), counts=(2000,), names=("ply", "spz", "glb"))
    sizes = {line.split("|")[2].strip(): float(line.split("|")[4]) for line in (ply, spz, glb)}
    assert head.count("|") == ply.count("|")
    assert 56 <= sizes["ply"] < 57 and sizes["spz"] < 20 and sizes["glb"] > 56
    assert glb.endswith("| - |") and float(ply.split("|")[6]) >= 0

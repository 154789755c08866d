"""The table of docs/teacher.md 12.5 against what the kernels themselves refuse, with cards of each kind pretended."""

import re
from pathlib import Path

import pytest
import torch
from lyra_pack.kernels_glue.attention import choose_backend
from lyra_pack.kernels_glue.quantised import linear
from lyra_pack.kernels_glue.tokens import norm_rotate, residual_norm
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.backends import cuda
from torch.nn.attention import SDPBackend

PAGE = Path(__file__).resolve().parents[2] / "docs" / "teacher.md"
NAMES = {
    SDPBackend.CUDNN_ATTENTION: "cuDNN",
    SDPBackend.FLASH_ATTENTION: "flash",
    SDPBackend.EFFICIENT_ATTENTION: "memory-efficient",
}


def table() -> list[tuple[tuple[int, int], list[str]]]:
    """Compute capabilities, and the first word of what each one uses: attention, norms, products in fp8 and int8."""
    section = PAGE.read_text("utf-8").split("### 12.5")[1].split("### 12.6")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| \d.*$", section, re.M)]
    return [
        ((int(major), int(minor)), [re.split(r"[ ,]", cells[column])[0] for column in (1, 4, 5, 6)])
        for cells in rows
        for major, minor in re.findall(r"(\d+)\.(\d+)", cells[0])
    ]


@pytest.mark.parametrize(("capability", "told"), table())
def test_each_card_uses_what_the_table_says(capability, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(cuda, "SDPAParams", lambda *call: call)
    for name in ("cudnn", "efficient"):  # which torch says where there is a card
        monkeypatch.setattr(cuda, f"can_use_{name}_attention", lambda call: True)
    monkeypatch.setattr(cuda, "can_use_flash_attention", lambda call: capability >= (8, 0))
    half, exact = ({"dtype": kind, "device": "cuda"} for kind in (torch.bfloat16, torch.float32))
    with FakeTensorMode(), torch.no_grad():  # no card is needed
        x, heads, row, modulation, weight = (
            torch.empty(shape, **half) for shape in ((1, 64, 128), (1, 64, 1, 128), 128, (1, 1, 128), (64, 128))
        )
        angles = [torch.empty(1, 64, 1, 64, **exact) for _ in range(2)]
        norms = [
            residual_norm.kernels["triton"].refuses(x, modulation, modulation, add=x),
            norm_rotate.kernels["triton"].refuses(heads, row, *angles),
        ]
        products = [linear.kernels[bits].refuses(x, weight) is None for bits in ("fp8", "int8")]
        attention = NAMES[choose_backend(heads, heads, heads)]
    assert len({reason is None for reason in norms}) == 1
    found = [attention, "plain" if norms[0] else "Triton", "torch" if products[0] else "no"]
    assert told == [*found, "Triton" if products[1] else "no"]

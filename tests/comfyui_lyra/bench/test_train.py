import pytest
import torch
from lyra_pack.comfyui_lyra.bench import train
from lyra_pack.comfyui_lyra.weights.shipped import MINI

NEEDED = MINI / "mini_tokenizer.safetensors"


@pytest.mark.slow
@pytest.mark.skipif(not NEEDED.exists(), reason="the mini tokenizer is not shipped yet")
def test_every_part_of_a_training_step_is_timed(monkeypatch):
    monkeypatch.setattr(train, "SCENES", 1)
    monkeypatch.setattr(train, "STEPS", 2)
    monkeypatch.setattr(train, "VIEWS", (1,))
    lines = list(train.rows(torch.device("cpu")))
    assert len(lines) == 4 + 8
    assert {"network, backward", "rendering, backward"} <= {line.split(" | ")[1] for line in lines[4:]}

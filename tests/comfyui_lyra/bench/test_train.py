from dataclasses import replace

import torch
from lyra_pack.comfyui_lyra.bench import train
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES


def test_every_part_of_a_training_step_is_timed(monkeypatch, small_recon, small_tokenizer):
    monkeypatch.setattr(train, "SCENES", 1)
    monkeypatch.setattr(train, "STEPS", 2)
    monkeypatch.setattr(train, "VIEWS", (1, 2))
    config = replace(small_recon.config, dynamic=False)
    stage = replace(MINI_STAGES["m4"], size=config.trained_size, input_frames=9, target_frames=2, batch=1)
    lines = list(train.rows(torch.device("cpu"), config, stage, small_tokenizer))
    assert len(lines) == 4 + 2 * 8
    assert {"network, backward", "rendering, backward"} <= {line.split(" | ")[1] for line in lines[4:]}
    assert all(float(seconds) > 0 for line in lines[4:] for seconds in line.strip("| ").split(" | ")[2:])

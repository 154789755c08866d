import pytest
import torch
from lyra_pack.comfyui_lyra.bench.scene import rows
from lyra_pack.comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig


@pytest.mark.slow
def test_a_tiny_scene_goes_all_the_way():
    size = {"trained_size": (32, 48), "trained_frames": 9}
    teacher = TeacherConfig(heads=2, head_dim=16, blocks=1, adaln_rank=8, text_dim=12, text_rows=5, **size)
    recon = ReconConfig(dynamic=True, width=32, blocks=2, attention_every=2, heads=2, head_size=16, state=8, **size)
    tokenizer = TokenizerConfig(channels=8, multipliers=(1, 2, 2), layers=1)
    lines = list(rows(torch.device("cpu"), teacher, recon, tokenizer))
    assert [line.split("|")[1].split()[0] for line in lines[2:]] == ["generate", "splats", "splats", "1"]
    assert all(float(line.split("|")[2]) >= 0 for line in lines[2:])

import torch
from lyra_pack.comfyui_lyra.bench import modes
from lyra_pack.comfyui_lyra.bench.modes import VARIANTS, relative, rows
from lyra_pack.comfyui_lyra.configs import TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.gen3c.generate import generate


def test_every_variant_is_timed_and_compared_with_exact_and_not_made_again(tmp_path, monkeypatch):
    size = {"trained_size": (32, 48), "trained_frames": 9}
    config = TeacherConfig(heads=2, head_dim=16, blocks=2, adaln_rank=8, text_dim=12, text_rows=5, **size)
    tokenizer = TokenizerConfig(channels=8, multipliers=(1, 2, 2), layers=1)
    given = {"out": tmp_path, "config": config, "tokenizer_config": tokenizer}
    told = list(rows(torch.device("cpu"), **given))
    lines = [line.strip("|").split("|") for line in told]
    assert [cells[0].strip() for cells in lines[2:]] == list(VARIANTS)
    assert all(len(cells) == 5 for cells in lines)
    errors = [float(cells[3]) for cells in lines[2:]]
    assert errors[0] == 0 and all(error > 0 for error in errors[1:])
    (tmp_path / "fast.safetensors").unlink()
    made = []
    monkeypatch.setattr(modes, "generate", lambda *args, **given: made.append(1) or generate(*args, **given))
    again = list(rows(torch.device("cpu"), **given))
    assert again[:-1] == told[:-1] and again[-1].split("|")[4] == told[-1].split("|")[4]
    assert len(made) == 2  # kernels are warmed up, and what was missing is made


def test_the_frame_that_is_given_does_not_count():
    exact = torch.ones(1, 16, 3, 2, 2)
    found = exact.clone()
    found[:, :, 0] = 5
    assert relative(found, exact) == 0
    found[:, :, 1:] = 1.5
    assert relative(found, exact) == 0.5

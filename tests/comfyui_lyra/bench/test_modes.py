import torch
from lyra_pack.comfyui_lyra.bench.modes import VARIANTS, relative, rows
from lyra_pack.comfyui_lyra.configs import TeacherConfig, TokenizerConfig


def test_every_variant_is_timed_and_compared_with_exact():
    size = {"trained_size": (32, 48), "trained_frames": 9}
    config = TeacherConfig(heads=2, head_dim=16, blocks=2, adaln_rank=8, text_dim=12, text_rows=5, **size)
    tokenizer = TokenizerConfig(channels=8, multipliers=(1, 2, 2), layers=1)
    lines = [
        line.strip("|").split("|") for line in rows(torch.device("cpu"), config=config, tokenizer_config=tokenizer)
    ]
    assert [cells[0].strip() for cells in lines[2:]] == list(VARIANTS)
    assert all(len(cells) == 5 for cells in lines)
    errors = [float(cells[3]) for cells in lines[2:]]
    assert errors[0] == 0 and all(error > 0 for error in errors[1:])


def test_the_frame_that_is_given_does_not_count():
    exact = torch.ones(1, 16, 3, 2, 2)
    found = exact.clone()
    found[:, :, 0] = 5
    assert relative(found, exact) == 0
    found[:, :, 1:] = 1.5
    assert relative(found, exact) == 0.5

import torch
from lyra_pack.comfyui_lyra.bench import refine
from lyra_pack.comfyui_lyra.configs import TokenizerConfig

CPU = torch.device("cpu")


def test_each_part_of_a_step_and_a_whole_run_are_measured():
    tiny = TokenizerConfig(channels=8, multipliers=(1, 2, 2), layers=1)
    size = refine.Size(splats=150, width=32, height=24, frames=9, seconds=(0.5,), tokenizer=tiny)
    lines = list(refine.rows(CPU, size, repeats=1))
    assert lines[0] == "150 splats, 54 frames of 32x24"
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    names = [cells[0] for cells in table]
    assert sum(name.startswith("drawing and gradients, ") for name in names) == 4
    assert any("SSIM of 6 frames" in name and name.endswith("torch") for name in names)
    ssim, l1 = (row for row in table if row[0].startswith(("0.5 s, SSIM", "0.5 s, L1")))
    assert int(ssim[1]) >= 1 and float(ssim[2]) >= 0.5
    before, after = map(float, l1[5].split(" to "))
    assert after > before

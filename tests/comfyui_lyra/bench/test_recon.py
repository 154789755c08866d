import torch
from lyra_pack.comfyui_lyra.bench.recon import CASES, bench_recon
from lyra_pack.comfyui_lyra.configs import ReconConfig


def test_the_table_times_every_case():
    config = ReconConfig(
        trained_frames=9, trained_size=(32, 48), width=16, blocks=2, attention_every=2, heads=2, head_size=8, state=8
    )
    lines = list(bench_recon(config, torch.device("cpu"), torch.float32, repeats=1))
    assert lines[0] == "9 frames of 48x32 a path, float32"
    cells = [line.split("|") for line in lines[4:]]
    assert [int(row[1]) for row in cells] == [views for views, _ in CASES]
    assert all(float(row[4]) > 0 for row in cells)

import pytest
import torch
from lyra_pack.comfyui_lyra.recon.mamba import MambaBlock
from lyra_pack.comfyui_lyra.recon.schedule import Schedule


@pytest.mark.golden("decoder/mamba2_block")
def test_golden_mamba_block(golden, load):
    meta, x = golden.meta, golden["x"]
    block = load(lambda: MambaBlock(meta["d_model"], meta["expand"], meta["headdim"], meta["d_state"]), golden)
    torch.testing.assert_close(block.norm(x), golden["normed"], rtol=0, atol=1e-5)
    for k, scan in enumerate(block.mamba.mamba_scans):
        raw, _ = scan(*block.project(x), (None, None), Schedule())
        # the golden keeps the second scan in reversed token order
        torch.testing.assert_close(raw.flip(1) if k else raw, golden[f"scan{k}_raw"], rtol=0, atol=1e-4)
    for segment in (100, 256, 2**15):
        torch.testing.assert_close(block(x, Schedule(segment=segment)), golden["y"], rtol=0, atol=3e-5)


@pytest.mark.parametrize("segment", [1, 11, 23])
def test_segments_carry_values_and_gradients(segment):
    torch.manual_seed(0)
    block = MambaBlock(8, head_size=4, state=4).double()
    x = torch.randn(2, 24, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for schedule in (Schedule(), Schedule(segment=segment)):
        leaf = x.clone().requires_grad_()
        y = block(leaf, schedule)
        grads = torch.autograd.grad(y.square().sum(), [leaf, *block.parameters()])
        results.append([y, *grads])
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)


def test_initial_decays_and_steps_lie_in_their_ranges():
    scan = MambaBlock(64, head_size=1).mamba.mamba_scans[1]
    dt = torch.nn.functional.softplus(scan.dt_bias)
    assert 1e-3 <= dt.min() < 2e-3 and 0.05 < dt.max() <= 0.1
    assert scan.A_log.min() >= 0 and scan.A_log.max() <= torch.tensor(16.0).log()
    assert scan.reverse

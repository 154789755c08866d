import pytest
import torch
from lyra_pack.comfyui_lyra.recon.heads import gaussians, upsample


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_upsample_is_the_transposed_convolution(step, frames):
    layer = torch.nn.ConvTranspose3d(6, 5, (9, step, step), (8, step, step), (4, 0, 0))
    x = torch.randn(2, frames, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    found = upsample(x, layer.weight, layer.bias)
    assert found.shape == (2, 8 * (frames - 1) + 1, 3 * step, 4 * step, 5)
    torch.testing.assert_close(found, layer(x.movedim(-1, 1)).movedim(1, -1))


@pytest.mark.golden("decoder/gaussian_heads")
def test_golden_activations(golden, columns):
    """In float32 to its rounding, which differs between processors; in bfloat16 to one step of its eight bits."""
    meta = golden.meta
    options = {"near": meta["dnear"], "far": meta["dfar"], "cap": meta["gaussian_scale_cap"]}
    for dtype, key, rtol in ((torch.float32, "gaussians", 1e-5), (torch.bfloat16, "gaussians_bf16", 2**-7)):
        raw, origins, directions = (golden[name].flatten(0, 1).to(dtype) for name in ("x", "rays_o", "rays_d"))
        found = gaussians(raw, origins, directions, shift=meta["pre_sigmoid_distance_shift"], **options)
        torch.testing.assert_close(columns(found).float(), golden[key].flatten(0, 1), rtol=rtol, atol=1e-6)

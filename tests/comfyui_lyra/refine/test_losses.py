import torch
from lyra_pack.comfyui_lyra.quality.scores import ssim
from lyra_pack.comfyui_lyra.refine.losses import frame_losses


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(3, 20, 26, 3, generator=torch.Generator().manual_seed(seed))


def test_the_loss_of_each_frame_is_a_mix_of_l1_and_ssim():
    x, y = pictures(0), pictures(1)
    l1 = (x - y).abs().mean((1, 2, 3))
    torch.testing.assert_close(frame_losses(x, y, 0.0), l1)
    mixed = 0.8 * l1 + 0.2 * (1 - ssim(x, y, sample_covariance=False))
    torch.testing.assert_close(frame_losses(x, y, 0.2), mixed, atol=1e-5, rtol=0)
    torch.testing.assert_close(frame_losses(x, x, 0.2), torch.zeros(3), atol=1e-6, rtol=0)

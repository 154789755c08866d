import pytest
import torch
from lyra_pack.comfyui_lyra.quality.scores import ssim
from lyra_pack.comfyui_lyra.refine.losses import frame_losses, ssim_float32


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(3, 20, 26, 3, generator=torch.Generator().manual_seed(seed))


def test_ssim_in_float32_is_that_in_float64():
    x, y = pictures(0), 0.7 * pictures(0) + 0.3 * pictures(1)
    torch.testing.assert_close(ssim_float32(x, y), ssim(x, y, sample_covariance=False), atol=1e-5, rtol=0)
    flat = torch.full_like(x, 0.9)
    torch.testing.assert_close(ssim_float32(flat, flat), torch.ones(3))


def test_the_loss_of_each_frame_is_a_mix_of_l1_and_ssim():
    x, y = pictures(0), pictures(1)
    l1 = (x - y).abs().mean((1, 2, 3))
    torch.testing.assert_close(frame_losses(x, y, 0.0), l1)
    torch.testing.assert_close(frame_losses(x, y, 0.2), 0.8 * l1 + 0.2 * (1 - ssim_float32(x, y)))
    torch.testing.assert_close(frame_losses(x, x, 0.2), torch.zeros(3), atol=1e-6, rtol=0)


def test_frames_smaller_than_a_window_are_refused():
    with pytest.raises(ValueError, match="26x10 are too small"):
        ssim_float32(pictures(0)[:, :10], pictures(1)[:, :10])

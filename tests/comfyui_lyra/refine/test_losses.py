import torch
from lyra_pack.comfyui_lyra.quality.scores import ssim
from lyra_pack.comfyui_lyra.refine.losses import NEEDLE, depth_losses, frame_losses, needles


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(3, 20, 26, 3, generator=torch.Generator().manual_seed(seed))


def test_the_loss_of_each_frame_is_a_mix_of_l1_and_ssim():
    x, y = pictures(0), pictures(1)
    l1 = (x - y).abs().mean((1, 2, 3))
    torch.testing.assert_close(frame_losses(x, y, 0.0), l1)
    mixed = 0.8 * l1 + 0.2 * (1 - ssim(x, y, sample_covariance=False))
    torch.testing.assert_close(frame_losses(x, y, 0.2), mixed, atol=1e-5, rtol=0)
    torch.testing.assert_close(frame_losses(x, x, 0.2), torch.zeros(3), atol=1e-6, rtol=0)


def test_pixels_may_count_less():
    x, y, weights = pictures(0), pictures(1), torch.ones(3, 20, 26)
    weights[:, :, 13:] = 0.25
    torch.testing.assert_close(frame_losses(x, y, 0.2, torch.ones_like(weights)), frame_losses(x, y, 0.2))
    left, right = (frame_losses(x[:, :, part], y[:, :, part], 0.0) for part in (slice(13), slice(13, 26)))
    torch.testing.assert_close(frame_losses(x, y, 0.0, weights), (left + 0.25 * right) / 2)


def test_depth_counts_where_it_is_known_and_seen():
    drawn, alpha, known = torch.full((1, 2, 2), 3.0), torch.ones(1, 2, 2), torch.tensor([[[2.0, 0.0], [3.0, 6.0]]])
    alpha[0, 1, 1] = 0.4
    torch.testing.assert_close(depth_losses(drawn, alpha, known), torch.tensor([0.25]))
    assert depth_losses(drawn, alpha, torch.zeros_like(known)) == 0


def test_needles_are_longer_than_both_other_axes():
    flat, ball, needle = [0.0, 0.0, -5.0], [0.0, 0.0, 0.0], [-1.0, NEEDLE + 2, 0.0]
    scales = torch.tensor([flat, ball, needle], requires_grad=True)
    torch.testing.assert_close(needles(scales), torch.tensor(2 / 3))
    (slope,) = torch.autograd.grad(needles(scales), scales)
    assert slope.nonzero().tolist() == [[2, 1], [2, 2]]

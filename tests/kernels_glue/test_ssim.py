import pytest
import torch
from lyra_pack.comfyui_lyra.quality import scores
from lyra_pack.kernels_glue import ssim
from lyra_pack.kernels_glue.ssim import WEIGHTS, blurred, spread


def pictures(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_float32_is_as_exact_as_float64():
    x = pictures(0, 3, 20, 26, 3)
    y = 0.7 * x + 0.3 * pictures(1, 3, 20, 26, 3)
    truth = scores.ssim(x, y, sample_covariance=False)
    torch.testing.assert_close(ssim(x, y), truth, atol=1e-5, rtol=0)
    flat = torch.full_like(x, 0.9)
    torch.testing.assert_close(ssim(flat, flat), torch.ones(3))
    dim = x * 0.02 + 0.9  # nearly flat and bright: where a variance is a small difference of large numbers
    truth = scores.ssim(dim, y * 0.02 + 0.9, sample_covariance=False)
    torch.testing.assert_close(ssim(dim, y * 0.02 + 0.9), truth, atol=1e-5, rtol=0)


def test_the_gradient_is_that_of_the_definition():
    x = pictures(2, 2, 13, 15, 3, dtype=torch.float64).requires_grad_()
    y = pictures(3, 2, 13, 15, 3, dtype=torch.float64)
    upstream = torch.tensor([1.0, -2.5], dtype=torch.float64)
    ssim(x, y).backward(upstream)
    found, x.grad = x.grad, None
    a, b = (frames.permute(0, 3, 1, 2) for frames in (x, y))
    mean_a, mean_b = scores.blur(a), scores.blur(b)
    spread_of = scores.blur(a * a) + scores.blur(b * b) - mean_a**2 - mean_b**2 + scores.C2
    both = (2 * mean_a * mean_b + scores.C1) * (2 * (scores.blur(a * b) - mean_a * mean_b) + scores.C2)
    (both / ((mean_a**2 + mean_b**2 + scores.C1) * spread_of)).mean((1, 2, 3)).backward(upstream)
    torch.testing.assert_close(found, x.grad, atol=1e-12, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda x: ssim(x, y[:1, :12, :12]), x.detach()[:1, :12, :12].requires_grad_())


def test_the_gradient_in_float32_is_near_that_in_float64():
    x, y = pictures(4, 1, 24, 30, 3), pictures(5, 1, 24, 30, 3)
    slopes = [torch.autograd.grad(ssim(a, y.to(a)).sum(), a)[0] for a in (x.requires_grad_(), x.double())]
    torch.testing.assert_close(slopes[0].double(), slopes[1], atol=1e-4 * float(slopes[1].abs().max()), rtol=0)


def test_a_blur_and_its_transpose_belong_together():
    assert sum(WEIGHTS) == pytest.approx(1) and WEIGHTS[::-1] == WEIGHTS
    maps, other = pictures(6, 1, 14, 19, 2, dtype=torch.float64), pictures(7, 1, 4, 9, 2, dtype=torch.float64)
    torch.testing.assert_close((blurred(maps) * other).sum(), (maps * spread(other)).sum())
    torch.testing.assert_close(blurred(maps).permute(0, 3, 1, 2), scores.blur(maps.permute(0, 3, 1, 2)))


def test_nothing_is_kept_where_no_gradient_is_wanted():
    x, y = pictures(8, 1, 12, 12, 3), pictures(9, 1, 12, 12, 3).requires_grad_()
    assert not ssim(x, y.detach()).requires_grad
    value = ssim(x.requires_grad_(), y)
    assert torch.autograd.grad(value.sum(), (x, y), allow_unused=True)[1] is None


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="26x10 are too small"):
        ssim(pictures(0, 1, 10, 26, 3), pictures(1, 1, 10, 26, 3))
    with pytest.raises(ValueError, match=r"two of \[B, H, W, C\], got \[1, 20, 26, 3\] and \[2, 20, 26, 3\]"):
        ssim(pictures(0, 1, 20, 26, 3), pictures(1, 2, 20, 26, 3))

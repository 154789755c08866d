import pytest
import torch
from lyra_pack.kernels_glue.rasterizer.compositing import footprints, moments, row_gradients, summed


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "inner", "columns"), [(2, 7, 5), (7, 2, 5), (7, 5, 2), (4, 4, 4)])
def test_matrix_products_by_sums_are_matrix_products(rows, inner, columns):
    left, right = drawn(3, rows, inner), drawn(3, inner, columns, seed=1)
    torch.testing.assert_close(summed(left, right), left @ right)


def test_moments_are_about_each_splat():
    dx, dy, x, y, values = drawn(9), drawn(9, seed=1), drawn(2, 4, seed=2), drawn(2, 4, seed=3), drawn(2, 9, 4, seed=4)
    pixels = torch.stack((torch.ones_like(dx), dx, dy, dx * dx, dx * dy, dy * dy))
    u, v = dx[:, None] - x[:, None], dy[:, None] - y[:, None]
    expected = [(values * factor).sum(1) for factor in (torch.ones_like(u), u, v, u * u, u * v, v * v)]
    for found, wanted in zip(moments(values, pixels, x, y), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("entries", [6, 11], ids=["ewa", "ut_eval3d"])
def test_gradients_of_rows_are_those_of_autograd(entries):
    x = torch.arange(8, dtype=torch.float64)[None] + torch.tensor([[40.5], [8.5]])
    y = torch.arange(8, dtype=torch.float64)[None] + torch.tensor([[0.5], [24.5]])
    rows = 0.01 * drawn(entries, 2, 5)
    rows[0] += x.mean(1, keepdim=True) + drawn(2, 5, seed=1)
    rows[1] += y.mean(1, keepdim=True) + drawn(2, 5, seed=2)
    rows[2], rows[4], rows[-1] = -0.05, -0.08, 0.6
    rows.requires_grad_()
    alpha, exponent, denominator = footprints(rows, x, y)
    upstream = drawn(*alpha.shape, seed=3)
    (expected,) = torch.autograd.grad(alpha, rows, upstream)
    with torch.no_grad():
        found = row_gradients(rows, x, y, upstream * alpha, exponent, denominator)
    torch.testing.assert_close(found, expected)

from importlib.util import find_spec

import pytest
import torch
from lyra_pack.kernels_glue.tokens import EPSILON, ROWS, norm_rotate, residual_norm
from torch.nn.functional import layer_norm, rms_norm
from torch.testing import assert_close


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("gate", [None, normal(4, 2, 1, 12)], ids=["added", "gated"])
def test_a_branch_is_added_and_the_sum_normalised(gate):
    x, add, shift, scale = normal(0, 2, 5, 12), normal(1, 1, 5, 12), normal(2, 2, 1, 12), normal(3, 2, 1, 12)
    total, y = residual_norm(x, shift, scale, add=add, gate=gate)
    expected = x + add * (1 if gate is None else gate)
    assert_close(total, expected)
    assert_close(y, layer_norm(expected, (12,), eps=EPSILON) * (1 + scale) + shift)


def test_heads_are_normalised_then_turned():
    x, weight, angles = normal(0, 2, 5, 3, 8), normal(1, 8), normal(2, 1, 5, 1, 4).float()
    found = norm_rotate(x, weight, angles.cos(), angles.sin())
    half = rms_norm(x, (8,), weight, EPSILON)
    turned = torch.view_as_complex(torch.stack(half.chunk(2, -1), -1)) * torch.polar(torch.ones(1), angles)
    assert_close(found, torch.cat((turned.real, turned.imag), -1).to(found.dtype), rtol=1e-6, atol=1e-6)


def test_slices_of_tokens_change_nothing():
    x, weight, angles = normal(0, 1, ROWS + 3, 1, 4).float(), normal(1, 4).float(), normal(2, 1, ROWS + 3, 1, 2).float()
    tables = angles.cos(), angles.sin()
    last = norm_rotate(x[:, ROWS:], weight, *(t[:, ROWS:] for t in tables))
    assert_close(norm_rotate(x, weight, *tables)[:, ROWS:], last, rtol=0, atol=0)


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, whose interpreter runs the kernels on a CPU")
def test_the_kernels_are_right_in_tritons_interpreter(run_interpreted):
    """The kernels' arithmetic, without a card; what a compiler makes of them is test_parity's."""
    run_interpreted(__file__)


def interpreted():
    from lyra_pack.kernels_glue.triton_kernels.tokens import norm_rotate_triton, residual_norm_triton

    for dtype, limit in ((torch.float32, 1e-6), (torch.bfloat16, 8e-3)):
        x, add, shift, scale, gate = (
            normal(i, *shape).to(dtype) for i, shape in enumerate(((2, 9, 96), (1, 9, 96), *[(2, 1, 96)] * 3))
        )
        for options in ({"add": add}, {"add": add, "gate": gate}):
            for found, truth in zip(
                residual_norm_triton(x, shift, scale, **options),
                residual_norm.reference(x, shift, scale, **options),
                strict=True,
            ):
                assert (found - truth).double().norm() <= limit * truth.double().norm()
        x, weight, angles = normal(0, 2, 9, 3, 32).to(dtype), normal(1, 32).to(dtype), normal(2, 1, 9, 1, 16).float()
        found = norm_rotate_triton(x, weight, angles.cos(), angles.sin())
        truth = norm_rotate.reference(x, weight, angles.cos(), angles.sin())
        assert (found - truth).double().norm() <= limit * truth.double().norm()

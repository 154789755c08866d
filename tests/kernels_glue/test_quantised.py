import sys
from importlib.util import find_spec

import pytest
import torch
from lyra_pack.kernels_glue import KernelUnavailable
from lyra_pack.kernels_glue.proof import deviation
from lyra_pack.kernels_glue.quantised import (
    BITS,
    LARGEST,
    MULTIPLIES,
    int_mm,
    linear,
    linear_in,
    norm_rows,
    product,
    quantise_rows,
    scaled_mm,
    spread,
)
from lyra_pack.kernels_glue.registry import Kernel, Op
from lyra_pack.kernels_glue.tokens import residual_norm
from torch.nn.functional import gelu
from torch.nn.functional import linear as exact_linear
from torch.testing import assert_close

KINDS = pytest.mark.parametrize("dtype", BITS.values(), ids=BITS)
STEPS = {torch.float8_e4m3fn: 2**-4, torch.int8: 0.5 / 127}  # half a step: of a number's own size, of its row's largest


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(rows: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """What quantised rows stand for."""
    return rows[0].float() * rows[1]


@KINDS
def test_each_row_fills_the_range_and_is_found_again_to_half_a_step(dtype):
    x = normal(0, 2, 5, 48) * torch.tensor([1e-3, 1.0, 70.0, 5.0, 0.2])[:, None]
    values, scales = quantise_rows(x, dtype)
    assert values.dtype == dtype and values.shape == x.shape and scales.shape == (2, 5, 1)
    assert torch.equal(values.float().abs().amax(-1), torch.full((2, 5), LARGEST[dtype]))
    largest = x.abs().amax(-1, keepdim=True)
    size = largest if dtype == torch.int8 else torch.maximum(x.abs(), largest * 2**-6 / 448)
    assert ((whole((values, scales)) - x).abs() <= size * STEPS[dtype] * (1 + 1e-5)).all()


@KINDS
def test_a_row_of_zeros_stays_one(dtype):
    rows = quantise_rows(torch.zeros(1, 2, 16), dtype)
    assert not whole(rows).any() and rows[1].isfinite().all()


@KINDS
def test_gelu_is_the_exact_one(dtype):
    x = normal(0, 3, 64)
    found, truth = quantise_rows(x, dtype, gelu=True), quantise_rows(gelu(x), dtype)
    assert torch.equal(whole(found), whole(truth))


@KINDS
def test_a_branch_is_added_normalised_and_quantised(dtype):
    x, add, shift, scale, gate = (normal(i, *s) for i, s in enumerate(((2, 5, 48), (1, 5, 48), *[(2, 1, 48)] * 3)))
    total, *rows = norm_rows(x, shift, scale, dtype, add=add, gate=gate)
    truth, y = residual_norm(x, shift, scale, add=add, gate=gate)
    assert_close(total, truth)
    assert torch.equal(whole(rows), whole(quantise_rows(y, dtype)))


@pytest.mark.parametrize(("bits", "expected"), [("fp8", 0.037), ("int8", 0.013)])
def test_a_linear_layer_in_8_bits_deviates_as_much_as_was_measured_on_a_card(bits, expected):
    x, weight = normal(0, 2, 33, 1024), normal(1, 256, 1024)
    found = product(*quantise_rows(x, BITS[bits]), *quantise_rows(weight, BITS[bits]), torch.float32)
    assert deviation(found, exact_linear(x, weight)) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(("kernel", "dtype"), [(scaled_mm, torch.float8_e4m3fn), (int_mm, torch.int8)])
def test_torchs_own_products_take_the_scales_of_rows_and_channels(kernel, dtype):
    made = [
        spread(*shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(((2, 20, 64), (48, 64)))
    ]
    rows, weights = (quantise_rows(t, dtype) for t in made)
    scales = torch.linspace(0.5, 2, 40).view(2, 20, 1), torch.linspace(3, 1, 48).view(48, 1)
    call = rows[0], scales[0], weights[0], scales[1], torch.bfloat16
    try:
        found = kernel(*call)
    except RuntimeError as error:
        if "scale_a.numel() == 1" not in str(error):
            raise
        pytest.skip("on a CPU this torch's product of 8-bit floats takes one scale only; test_parity has a card's")
    assert found.shape == (2, 20, 48) and found.dtype == torch.bfloat16
    assert deviation(found, product(*call, backend="torch")) < 8e-3


def test_a_product_of_whole_numbers_does_not_overflow_in_half_precision():
    ones = torch.full((1, 4, 4096), 127, dtype=torch.int8)
    scales = torch.full((1, 4, 1), 1e-4), torch.full((16, 1), 1e-3)
    found = product(ones, scales[0], ones[0, :1].expand(16, -1), scales[1], torch.float16)
    assert_close(found, torch.full((1, 4, 16), 127**2 * 4096 * 1e-7, dtype=torch.float16))


@pytest.mark.parametrize("bits", BITS)
def test_what_deviates_is_taken_by_name_only(bits):
    x, weight = normal(0, 1, 32, 64).bfloat16(), normal(1, 32, 64).bfloat16()
    assert not linear.kernels[bits].exact
    assert torch.equal(linear(x, weight), exact_linear(x, weight))
    with pytest.raises(KernelUnavailable, match=f"backend '{bits}' cannot run here: needs CUDA tensors"):
        linear(x, weight, backend=bits)
    with pytest.raises(KernelUnavailable, match=r"multiples of 16, got \(24, 64\)"):
        linear(x, weight[:24], backend=bits)


@pytest.mark.parametrize("bits", BITS)
def test_where_a_kernel_is_missing_there_is_no_slow_stand_in(bits):
    """On Windows, say, where torch has no fp8 product with a scale a row: its reference would be slower than exact."""
    x, weight = normal(0, 1, 32, 64).bfloat16(), normal(1, 32, 64).bfloat16()
    with pytest.raises(KernelUnavailable, match="quantise_rows: backend 'triton' cannot run here"):
        linear_in(bits)(x, weight)


def test_a_product_that_is_left_out_leaves_whole_numbers_to_torchs_own(monkeypatch):
    x, weight, module = normal(0, 1, 32, 64), normal(1, 32, 64), sys.modules[linear_in.__module__]
    monkeypatch.setattr(module, "quantise_rows", lambda t, dtype, backend: quantise_rows(t, dtype))
    stand_in = Op("product", product.reference, tuple(
        Kernel(name=name, load=lambda kernel=kernel: kernel, refuses=lambda *_: None, probe=product.kernels[name].probe)
        for name, kernel in {"triton": lambda *call: 0 * product.reference(*call), "int_mm": int_mm}.items()
    ))  # fmt: skip
    monkeypatch.setattr(module, "product", stand_in)
    assert deviation(linear_in("int8")(x, weight), exact_linear(x, weight)) < 0.03
    assert list(stand_in.left_out) == ["triton"]


@pytest.mark.parametrize("bits", BITS)
def test_the_products_trial_has_rows_and_scales_without_gaps(bits):
    """As ``torch._scaled_mm`` demands and kernels read them."""
    rows, weights = (quantise_rows(normal(i, *shape), BITS[bits]) for i, shape in enumerate(((2, 75, 80), (48, 80))))
    made, _ = product.kernels[MULTIPLIES[bits][0]].probe.inputs(*rows, *weights, torch.bfloat16)
    assert all(t.is_contiguous() for t in made[:4]) and made[3].shape == (48, 1) and (made[3] >= 0.5).all()


@pytest.mark.parametrize("bits", BITS)
def test_probes_are_passed_by_what_is_right_and_failed_by_a_lost_scale(bits):
    """The trial's own inputs, through the arithmetic of the references."""
    probe, x, weight = linear.kernels[bits].probe, normal(0, 1, 300, 64).bfloat16(), normal(1, 48, 64).bfloat16()
    (made, kept), _ = probe.inputs(x, weight)
    truth = linear.reference(made, kept)
    rows, weights = quantise_rows(made, BITS[bits]), quantise_rows(kept, BITS[bits])
    limit = probe.limits[torch.bfloat16]
    assert deviation(product(*rows, *weights, torch.bfloat16), truth) < limit
    lost = rows[0], rows[1].mean(1, keepdim=True).expand_as(rows[1])
    assert deviation(product(*lost, *weights, torch.bfloat16), truth) > limit


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, whose interpreter runs the kernels on a CPU")
def test_the_kernels_are_right_in_tritons_interpreter(run_interpreted):
    """The kernels' arithmetic, without a card; what a compiler makes of them is test_parity's."""
    run_interpreted(__file__)


def interpreted():
    from lyra_pack.kernels_glue.triton_kernels import quantise

    def same(found, truth, limit):
        for mine, right in zip(found, truth, strict=True):
            assert mine.shape == right.shape and mine.dtype == right.dtype
            if mine.dtype == torch.float8_e4m3fn:  # the interpreter loses the carry into a float8's exponent
                assert (mine.float() == right.float()).float().mean() > 0.9 and deviation(mine, right) < 0.1
            else:
                assert deviation(mine, right) <= limit

    kinds = {torch.float32: 1e-6, torch.bfloat16: 1e-2}  # the interpreter cuts a bfloat16's digits off
    for dtype in BITS.values():
        for kind, limit in kinds.items():
            x, add, shift, scale, gate = (
                normal(i, *shape).to(kind) for i, shape in enumerate(((2, 9, 96), (1, 9, 96), *[(2, 1, 96)] * 3))
            )
            x[0, 3] *= 50
            for options in ({"add": add}, {"add": add, "gate": gate}):
                call = x, shift, scale, dtype
                same(quantise.norm_rows_triton(*call, **options), norm_rows.reference(*call, **options), limit)
            for active in (False, True):
                same(quantise.quantise_rows_triton(x, dtype, active), quantise_rows.reference(x, dtype, active), limit)
    rows, weights = (quantise_rows(normal(i, *shape), torch.int8) for i, shape in enumerate(((2, 75, 80), (48, 80))))
    for kind, limit in kinds.items():
        call = (*rows, *weights, kind)
        same([quantise.product_triton(*call)], [product.reference(*call)], limit)

"""Every kernel against its reference, forward and backward, where it can run."""

import itertools

import pytest
import torch
from lyra_pack.kernels_glue import OPS
from torch.nn.functional import softplus

# Each case: what makes the arguments, and for each dtype (rtol, atol, a share of the largest value) with the reason.
CASES = {}


def case(op: str, kernel: str, tolerances: dict, backward: bool = True):
    def register(make):
        CASES[op, kernel] = (make, tolerances, backward)
        return make

    return register


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@case("ssd_scan", "triton", {
    torch.bfloat16: (2e-2, 2e-2),  # decay-weighted scores and entering states are rounded to 8 bits for the products
    torch.float16: (3e-3, 3e-3),  # the same to 11 bits
}, backward=False)  # fmt: skip
@case("ssd_scan", "mamba-ssm", {
    torch.float32: (1e-2, 1e-2),  # its Triton products round their inputs to TF32, 10 bits
    torch.bfloat16: (2e-2, 3e-2),  # decay-weighted scores and the states are rounded to 8 bits before the products
})  # fmt: skip
def scan_case(dtype, device):
    tensors = [normal(i, *shape) for i, shape in enumerate(((2, 700, 4, 64), (2, 700, 4), (4,), (2, 700, 64)))]
    x, dt, A, B = tensors
    C, D, state = normal(4, 2, 700, 64), normal(5, 4), normal(6, 2, 4, 64, 64)
    low = [t.to(device, dtype) for t in (x, B / 8, C / 8)]
    high = [t.to(device) for t in (softplus(dt - 2), -A.exp(), D, state)]
    for options in ({}, {"reverse": True}):
        yield (low[0], high[0], high[1], low[1], low[2], high[2]), {"initial_state": high[3], "chunk": 128, **options}


@case("causal_conv", "triton", {
    torch.float32: (1e-5, 1e-6),  # the same sum in the same order; the exponential is Triton's
    torch.bfloat16: (2**-7, 1e-3),  # two roundings to 8 bits may fall on neighbouring values
}, backward=False)  # fmt: skip
@case("causal_conv", "causal-conv1d", {
    torch.float32: (1e-5, 1e-5),  # the same four products, summed in another order
    torch.bfloat16: (2**-7, 1e-3),  # two roundings to 8 bits may fall on neighbouring values
})  # fmt: skip
def conv_case(dtype, device):
    shapes = (2, 100, 64), (64, 4), (64,), (2, 3, 64)
    x, weight, bias, history = (normal(i, *shape).to(device, dtype) for i, shape in enumerate(shapes))
    for reverse in (False, True):
        yield (x, weight, bias), {"history": history, "reverse": reverse}
        yield (x, weight, bias), {"reverse": reverse}


@case("attention", "sage", {
    torch.bfloat16: (0.1, 0.05),  # scores in 8-bit integers, probabilities in 8-bit floats: inexact by design
}, backward=False)  # fmt: skip
def attention_case(dtype, device):
    yield tuple(normal(i, 2, 4, 256, 64).to(device, dtype) for i in range(3)), {}


@case("rasterize", "gsplat", {
    torch.float32: (1e-3, 5e-3),  # either may leave out a contribution that falls on the cut-off, 1/255
})  # fmt: skip
def splat_case(dtype, device):
    count = 200
    means = normal(0, count, 3) + torch.tensor([0, 0, 4.0])
    means[0] = torch.tensor([0, 0, 9.0])  # a wall, so that depth is defined everywhere
    scales, opacities = (0.1 + 0.1 * normal(i, *shape).abs() for i, shape in ((1, (count, 3)), (2, (count,))))
    scales[0], opacities[0] = 20, 0.9
    K = torch.tensor([[[50.0, 0, 30], [0, 55, 26], [0, 0, 1]]])
    tensors = means, normal(3, count, 4), scales, opacities, normal(4, count, 3), torch.eye(4)[None], K
    beside = torch.eye(4)
    beside[:3, 3] = torch.tensor([0.4, 0.1, 0.3])
    two = (*tensors[:4], normal(5, 2, count, 3), torch.stack((beside, torch.eye(4))), K.repeat(2, 1, 1))
    for mode, given in itertools.product(("ut_eval3d", "ewa"), (tensors, two)):
        options = {"width": 64, "height": 48, "background": torch.ones(3, device=device), "mode": mode}
        yield tuple(t.to(device, dtype) for t in given), options


KERNELS = [(op, name) for op in OPS for name in op.kernels]


def test_every_kernel_has_a_case_and_every_case_a_kernel():
    assert {(op.name, name) for op, name in KERNELS} == set(CASES)


def leaves(args: tuple, kwargs: dict) -> tuple[tuple, dict, list]:
    """Detached copies that record gradients, and the list of them."""
    found = []

    def leaf(value):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value = value.detach().clone().requires_grad_()
            found.append(value)
        return value

    return tuple(map(leaf, args)), {name: leaf(value) for name, value in kwargs.items()}, found


@pytest.mark.parametrize(
    ("op", "name", "dtype"),
    [pytest.param(op, name, d, id=f"{op.name}-{name}-{d}") for op, name in KERNELS for d in CASES[op.name, name][1]],
)
def test_kernel_equals_its_reference(op, name, dtype):
    make, tolerances, backward = CASES[op.name, name]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rtol, atol = tolerances[dtype]
    ran = False
    for args, kwargs in make(dtype, device):
        if reason := op.why_not(name, *args, **kwargs):
            pytest.skip(f"{name}: {reason}")
        results = []
        for backend in (name, "torch"):
            mine, options, inputs = leaves(args, kwargs) if backward else (args, kwargs, [])
            out = op(*mine, backend=backend, **options)
            out = out if isinstance(out, tuple) else (out,)
            if backward:
                sum(
                    (o.float() * torch.linspace(-1, 1, o.numel(), device=device).view(o.shape)).sum() for o in out
                ).backward()
            results.append([*out, *(t.grad for t in inputs if t.grad is not None)])
        for found, truth in zip(*results, strict=True):
            scale = truth.detach().float().abs().max().item()
            torch.testing.assert_close(found.float(), truth.float(), rtol=rtol, atol=atol * max(scale, 1e-30))
        ran = True
    assert ran

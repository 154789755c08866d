"""Every kernel against its reference, forward and backward, where it can run."""

import inspect
import itertools
from functools import partial

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import RECON_PRESETS, ReconConfig
from lyra_pack.comfyui_lyra.weights.load import stored_config
from lyra_pack.comfyui_lyra.weights.shipped import MINI
from lyra_pack.kernels_glue import OPS, causal_conv, ssd_scan, ssim
from lyra_pack.kernels_glue.attention import smooth
from lyra_pack.kernels_glue.proof import deviation, results
from lyra_pack.kernels_glue.quantised import EIGHT_BIT as KINDS
from lyra_pack.kernels_glue.quantised import quantise_rows
from lyra_pack.kernels_glue.ssd_scan import ssd_scan_torch
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
    for reverse in (False, True):
        yield scan_call(64, 64, 128, 700, 2, reverse, dtype, device)


def scan_call(head, state, chunk, length, batch, reverse, dtype, device) -> tuple[tuple, dict]:
    """A scan as the splat decoder calls it: x, B and C are parts of one tensor."""
    heads = 4
    sizes = [heads * head, state, state]
    x, B, C = normal(0, batch, length, sum(sizes)).to(device, dtype).split(sizes, -1)
    dt, A, D = normal(1, batch, length, heads), normal(2, heads), normal(3, heads)
    first = normal(4, batch, heads, head, state)
    high = [t.to(device) for t in (softplus(dt - 2), -A.exp(), D, first)]
    options = {"initial_state": high[3], "chunk": chunk, "reverse": reverse}
    return (x.unflatten(-1, (heads, head)), high[0], high[1], B / 8, C / 8, high[2]), options


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


@case("attention", "int8", {
    torch.bfloat16: (0.1, 0.05),  # queries, keys, values and probabilities in 8-bit integers: inexact by design
}, backward=False)  # fmt: skip
@case("attention", "fa4", {
    torch.bfloat16: (2e-2, 1e-2),  # exact: probabilities are rounded to 8 bits for the second product
}, backward=False)  # fmt: skip
@case("attention", "sol-1.0", {
    torch.bfloat16: (0.5, 0.5),  # blocks that score low are taken by their means: inexact by design
}, backward=False)  # fmt: skip
@case("attention", "sol-1.5", {
    torch.bfloat16: (0.5, 0.5),
}, backward=False)  # fmt: skip
def attention_case(dtype, device):
    sources = [smooth(1, 2, 2048, 128, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    yield tuple(t.to(device, dtype) for t in sources), {}


@case("attention", "sol-1.0-first", {
    torch.bfloat16: (0.5, 0.5),
}, backward=False)  # fmt: skip
def attention_case_with_sinks(dtype, device):
    ((args, _),) = attention_case(dtype, device)
    yield args, {"sinks": 100}


@case("residual_norm", "triton", {
    torch.float32: (1e-5, 1e-5),  # the same sums in another order
    torch.bfloat16: (2**-6, 3e-2),  # the reference rounds three times after the norm, the kernel once
    torch.float16: (2**-9, 4e-3),
}, backward=False)  # fmt: skip
def residual_case(dtype, device):
    for width, batch, own, gated in itertools.product((48, 128, 256, 4096), (1, 2), (False, True), (False, True)):
        x, add = normal(0, batch, 37, width), normal(1, batch if own else 1, 37, width)
        rows = [normal(i, batch, 1, width).to(device, dtype) for i in (2, 3, 4)]
        options = {"add": add.to(device, dtype)} | ({"gate": rows[2]} if gated else {})
        yield (x.to(device, dtype), *rows[:2]), options


@case("norm_rotate", "triton", {
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (2**-6, 3e-2),  # the reference rounds between norm and rotation
    torch.float16: (2**-9, 4e-3),
}, backward=False)  # fmt: skip
def rotate_case(dtype, device):
    for heads, width, batch in ((4, 32, 1), (3, 64, 2), (8, 16, 2), (32, 128, 1)):
        angles = normal(2, 1, 37, 1, width // 2).to(device)
        x, weight = normal(0, batch, 37, heads, width), normal(1, width)
        yield (x.to(device, dtype), weight.to(device, dtype), angles.cos(), angles.sin()), {}


@case("quantise_rows", "triton", dict.fromkeys((torch.float32, torch.bfloat16, torch.float16), (2**-3, 1e-2)),
      backward=False)  # fmt: skip
def quantise_case(dtype, device):
    """A number may fall on its neighbour: 2^-3 of itself in fp8, one of 127 steps in int8."""
    for width, gelu, kind in itertools.product((48, 128, 4096, 16384), (False, True), KINDS):
        yield (normal(0, 2, 37, width).to(device, dtype), kind), {"gelu": gelu}


@case("norm_rows", "triton", dict.fromkeys((torch.float32, torch.bfloat16, torch.float16), (2**-3, 1e-2)),
      backward=False)  # fmt: skip
def norm_rows_case(dtype, device):
    for kind in KINDS:
        for args, options in residual_case(dtype, device):
            yield (*args, kind), options


@case("product", "scaled_mm", {torch.float8_e4m3fn: (2e-2, 1e-2)}, backward=False)  # sums of few digits on Hopper
@case("product", "triton", {torch.int8: (2**-6, 1e-3)}, backward=False)  # the reference rounds before it scales
@case("product", "int_mm", {torch.int8: (2**-6, 1e-3)}, backward=False)
def product_case(dtype, device):
    for rows, depth, columns in ((37, 64, 48), (300, 4096, 256), (256, 272, 528)):
        made = normal(0, 2, rows, depth), normal(1, columns, depth)
        x, weight = (quantise_rows(t, dtype) for t in made)
        yield tuple(t.to(device) for t in (*x, *weight)) + (torch.bfloat16,), {}


@case("linear", "fp8", {torch.bfloat16: (0, 0.06)}, backward=False)  # 8 bits: inexact by design
@case("linear", "int8", {torch.bfloat16: (0, 0.03)}, backward=False)
def linear_case(dtype, device):
    for rows, depth, columns in ((37, 64, 48), (300, 4096, 256)):
        yield (normal(0, 2, rows, depth).to(device, dtype), normal(1, columns, depth).to(device, dtype)), {}


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
    for mode, given, depth in itertools.product(("ut_eval3d", "ewa"), (tensors, two), (True, False)):
        options = {"width": 64, "height": 48, "background": torch.ones(3, device=device), "mode": mode, "depth": depth}
        yield tuple(t.to(device, dtype) for t in given), options


@case("ssim", "triton", {
    torch.float32: (1e-4, 1e-4),  # the same sums; small variances are divided by, which enlarges their rounding
})  # fmt: skip
def similarity_case(dtype, device):
    for shape in ((2, 45, 101, 3), (1, 11, 11, 3), (3, 96, 160, 1)):
        x = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
        y = 0.7 * x + 0.3 * torch.rand(*shape, generator=torch.Generator().manual_seed(1))
        yield (x.to(device, dtype), y.to(device, dtype)), {}


KERNELS = [(op, name) for op in OPS for name in op.kernels]


def test_every_kernel_has_a_case_and_every_case_a_kernel():
    assert {(op.name, name) for op, name in KERNELS} == set(CASES)


def device_for(op, name, args, kwargs) -> None:
    """Skip where a kernel cannot be had; that its proof fails is no reason."""
    if reason := op.kernels[name].refuses(*args, **kwargs) or op.absent(name):
        pytest.skip(f"{name}: {reason}")


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
        device_for(op, name, args, kwargs)
        found, truth = (
            results(partial(op, backend=backend), args, kwargs, gradients=backward) for backend in (name, "torch")
        )
        for (what, mine), (_, right) in zip(found, truth, strict=True):
            scale = right.float().abs().max().item()
            torch.testing.assert_close(
                mine.float(), right.float(), rtol=rtol, atol=atol * max(scale, 1e-30), msg=lambda m, w=what: f"{w}: {m}"
            )
        ran = True
    assert ran


@pytest.mark.parametrize(("op", "name"), [pytest.param(op, name, id=f"{op.name}-{name}") for op, name in KERNELS])
def test_a_kernels_trial_is_of_the_kind_of_the_call(op, name):
    """On a CPU too: the same sizes, strides and alignment decide which code runs, and the reference takes them."""
    make, tolerances, _ = CASES[op.name, name]
    probe = op.kernels[name].probe
    for dtype in tolerances:
        for args, kwargs in make(dtype, "cpu"):
            made, options = probe.inputs(*args, **kwargs)
            assert probe.key(made, options) == probe.key(args, kwargs)
            assert all(torch.isfinite(value.float()).all() for _, value in results(op.reference, made, options, False))


# Triton compiles anew for each of these, and a compiler's fault may stand at one of them only.
HEADS, STATES, CHUNKS = (16, 32, 64, 128), (16, 32, 64, 128, 256), (64, 128, 256)
CHANNELS = (64, 80, 384, 1536, 200)  # of the convolution


def configurations() -> dict[str, ReconConfig]:
    """Splat decoders that are released, and those that come with the pack as they are stored."""
    shipped = {file.name: stored_config(file, ReconConfig) for file in MINI.glob("mini_recon*.safetensors")}
    return {**RECON_PRESETS, **shipped}


def test_released_and_shipped_sizes_are_in_the_grid():
    assert len(configurations()) >= 4
    for name, config in configurations().items():
        inner = config.expand * config.width
        assert config.head_size in HEADS and config.state in STATES, name
        assert inner + 2 * config.state in CHANNELS, name
    assert inspect.signature(ssd_scan_torch).parameters["chunk"].default in CHUNKS


@pytest.mark.gpu
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_the_triton_scan_is_right_at_every_size(head, state, chunk, dtype, limit):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for length, batch in ((3 * chunk - 11, 2), (2 * chunk, 1), (chunk // 2 + 1, 1)):
        for reverse in (False, True):
            args, kwargs = scan_call(head, state, chunk, length, batch, reverse, dtype, device)
            device_for(ssd_scan, "triton", args, kwargs)
            found, truth = (ssd_scan(*args, backend=backend, **kwargs) for backend in ("triton", "torch"))
            errors = [deviation(mine, right) for mine, right in zip(found, truth, strict=True)]
            assert max(errors) <= limit, f"length {length}, reverse {reverse}: {errors}"


@pytest.mark.gpu
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 5e-3)])
def test_the_triton_convolution_is_right_at_every_size(channels, dtype, limit):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for length, batch, pad in ((75, 2, 0), (64, 1, 3), (1, 1, 16)):
        for reverse, given in itertools.product((False, True), (False, True)):
            x = normal(0, batch, length, channels + pad).to(device, dtype)[..., pad:]
            weight, bias = normal(1, channels, 4).to(device, dtype), normal(2, channels).to(device, dtype)
            history = normal(3, batch, 3, channels).to(device, dtype) if given else None
            args, kwargs = (x, weight, bias), {"history": history, "reverse": reverse}
            device_for(causal_conv, "triton", args, kwargs)
            found, truth = (causal_conv(*args, backend=backend, **kwargs) for backend in ("triton", "torch"))
            assert deviation(found, truth) <= limit, f"length {length}, reverse {reverse}, history {given}"


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(11, 11), (96, 160), (45, 513), (704, 1280), (1081, 1919)])
def test_the_triton_similarity_is_right_at_every_size(height, width, channels):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for batch in (1, 3):
        shape = batch, height, width, channels
        frames = [torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
        args = frames[0].to(device).requires_grad_(), frames[1].to(device)
        device_for(ssim, "triton", args, {})
        found, truth = (results(partial(ssim, backend=backend), args, {}, True) for backend in ("triton", "torch"))
        errors = [deviation(mine, right) for (_, mine), (_, right) in zip(found, truth, strict=True)]
        assert max(errors) <= 1e-4, f"batch {batch}: {errors}"
        plain = ssim(args[0].detach().transpose(1, 2), args[1].transpose(1, 2), backend="triton")  # not as they lie
        torch.testing.assert_close(plain, found[0][1], atol=1e-5, rtol=0)

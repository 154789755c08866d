"""Linear layers in 8 bits: rows of tokens and of weights, each with a scale, and their product.

``linear`` is what it is all about, and deviates by design: it is taken by name. A network takes it apart, so that what
comes before a product (``norm_rows``, or GELU in ``quantise_rows``) writes 8 bits at once: done on its own, quantising
takes back what the product gains (dev/benchmarks.md).
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import gelu as gelu_of
from torch.nn.functional import layer_norm
from torch.nn.functional import linear as linear_of

from .proof import Probe, like, shortened, size_class
from .registry import Kernel, Op
from .tokens import EPSILON
from .triton_kernels.ready import cannot_run_triton, require_triton

Bits = Literal["fp8", "int8"]
BITS: dict[Bits, torch.dtype] = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
LARGEST = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
SMALLEST = 1e-12  # a row's largest value at least: a row of zeros stays one
WIDEST = 2**14  # channels of a row, which a kernel holds in registers
EIGHT_BIT = tuple(BITS.values())
MULTIPLIES: dict[Bits, tuple[str, ...]] = {"fp8": ("scaled_mm",), "int8": ("triton", "int_mm")}  # the first that can


def quantise_rows_torch(x: Tensor, dtype: torch.dtype, gelu: bool = False) -> tuple[Tensor, Tensor]:
    """Values [..., D] in 8 bits and scales [..., 1] float32 of rows x [..., D], or of their exact GELU.

    A row is its values times its scale; its largest is the largest that ``dtype`` has.
    """
    x = gelu_of(x.float()) if gelu else x.float()
    scales = x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST) / LARGEST[dtype]
    values = x / scales
    return ((values + 0.5).floor() if dtype == torch.int8 else values).to(dtype), scales


def norm_rows_torch(
    x: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype, *, add: Tensor, gate: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``tokens.residual_norm`` whose second result is quantised rows: x' [B, L, D], values, scales [B, L, 1]."""
    x = x + add if gate is None else torch.addcmul(x, gate, add)
    y = layer_norm(x.float(), x.shape[-1:], eps=EPSILON) * (1 + scale.float()) + shift.float()
    return x, *quantise_rows_torch(y, dtype)


def product_torch(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows [..., D] times rows of weights [O, D] with their scales [..., 1] and [O, 1]: [..., O] in ``dtype``."""
    exact = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32  # holds any 8 bits; float16 would overflow
    y = linear_of(values.to(exact), weight.to(exact))
    return (y * scales * weight_scales.view(-1)).to(dtype)


def linear_torch(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., D] times the transposed weight [O, D]: a linear layer without bias."""
    return linear_of(x, weight)


def scaled_mm(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The same of 8-bit floats by torch's own product with a scale a row."""
    y = torch._scaled_mm(
        values.flatten(0, -2), weight.t(), scale_a=scales.view(-1, 1), scale_b=weight_scales.view(1, -1),
        out_dtype=dtype, use_fast_accum=True,
    )  # fmt: skip
    return y.unflatten(0, values.shape[:-1])


def int_mm(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The same of whole numbers by torch's own product, which is scaled afterwards."""
    y = torch._int_mm(values.flatten(0, -2), weight.t()).unflatten(0, values.shape[:-1])
    return (y * scales * weight_scales.view(-1)).to(dtype)


def linear_in(bits: Bits) -> Callable[[Tensor, Tensor], Tensor]:
    """A linear layer whose rows and weights are quantised on the way, by kernels: their references gain nothing."""

    def call(x: Tensor, weight: Tensor) -> Tensor:
        rows, weights = (quantise_rows(t, BITS[bits], backend="triton") for t in (x, weight))
        call = *rows, *weights, x.dtype
        able = (name for name in MULTIPLIES[bits] if product.why_not(name, *call) is None)
        return product(*call, backend=next(able, MULTIPLIES[bits][0]))  # where none is able, the first says why

    return call


def _too_wide(channels: int) -> str | None:
    return f"holds a row in registers: at most {WIDEST} channels, got {channels}" if channels > WIDEST else None


def _no_fp8(t: Tensor) -> str | None:
    """Why a card has no 8-bit floats, or None; only asked where there is one."""
    if torch.version.hip is not None or torch.cuda.get_device_capability(t.device) < (8, 9):
        return "needs 8-bit floats: an NVIDIA GPU of compute capability 8.9 (Ada) or later"
    return None


def _rows_refuses(x: Tensor, dtype: torch.dtype, gelu: bool = False) -> str | None:
    if not x.is_contiguous():
        return "needs rows one after another"
    reason = _too_wide(x.shape[-1]) or cannot_run_triton(x)
    return reason or (_no_fp8(x) if dtype == torch.float8_e4m3fn else None)


def _norm_refuses(
    x: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype, *, add: Tensor, gate: Tensor | None = None
) -> str | None:
    if not add.is_contiguous():
        return "needs rows one after another"
    return cannot_run_triton(x, shift, scale, add, gate) or _rows_refuses(x, dtype)


def _shapes_refuse(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, kind: torch.dtype):
    if not values.is_cuda:
        return "needs CUDA tensors"
    if values.dtype != kind or weight.dtype != kind:
        return f"needs {kind}, got {values.dtype} and {weight.dtype}"
    if not all(t.is_contiguous() for t in (values, scales, weight, weight_scales)):
        return "needs rows one after another"
    if any(n % 16 for n in weight.shape):
        return f"needs weights whose sides are multiples of 16, got {tuple(weight.shape)}"
    return None


def _scaled_mm_refuses(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype):
    if dtype != torch.bfloat16:
        return f"gives bfloat16 only, not {dtype}"
    return _shapes_refuse(values, scales, weight, weight_scales, torch.float8_e4m3fn) or _no_fp8(values)


def _int8_refuses(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype):
    return _shapes_refuse(values, scales, weight, weight_scales, torch.int8) or cannot_run_triton(values)


def _int_mm_refuses(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype):
    if values.numel() // values.shape[-1] <= 16:
        return "needs more than 16 rows"
    return _shapes_refuse(values, scales, weight, weight_scales, torch.int8)


def _linear_refuses(bits: Bits) -> Callable[[Tensor, Tensor], str | None]:
    def refuses(x: Tensor, weight: Tensor) -> str | None:
        if bits == "fp8" and x.dtype != torch.bfloat16:
            return f"needs bfloat16, got {x.dtype}"
        if any(n % 16 for n in weight.shape):
            return f"needs weights whose sides are multiples of 16, got {tuple(weight.shape)}"
        return _rows_refuses(x, BITS[bits]) or _rows_refuses(weight, BITS[bits])

    return refuses


def _rows_sizes(x: Tensor, dtype: torch.dtype, gelu: bool = False) -> tuple:
    return "quantise_rows", x.shape[-1], str(dtype), gelu


def _rows_inputs(x: Tensor, dtype: torch.dtype, gelu: bool = False) -> tuple[tuple, dict]:
    rows = shortened(x.shape[-2], 16, 4)
    return (like(x, 0, (*(1 for _ in x.shape[:-2]), rows, x.shape[-1])), dtype), {"gelu": gelu}


def _norm_sizes(x: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype, *, add: Tensor, gate=None) -> tuple:
    return "norm_rows", x.shape[-1], size_class(x.shape[1]), str(dtype), gate is None, add.shape[0] == x.shape[0]


def _norm_inputs(
    x: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype, *, add: Tensor, gate: Tensor | None = None
) -> tuple[tuple, dict]:
    batch, width, rows = min(x.shape[0], 2), x.shape[-1], shortened(x.shape[1], 16, 4)
    made = like(x, 0, (batch, rows, width)), *(like(t, i, (batch, 1, width)) for i, t in enumerate((shift, scale), 1))
    options = {"add": like(add, 3, (min(add.shape[0], batch), rows, width))}
    if gate is not None:
        options["gate"] = like(gate, 4, (batch, 1, width))
    return (*made, dtype), options


def _product_sizes(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype) -> tuple:
    rows = values.numel() // values.shape[-1]
    return "product", *weight.shape, rows % 128, size_class(rows), str(dtype)


def _product_inputs(
    values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype
) -> tuple[tuple, dict]:
    rows = shortened(values.numel() // values.shape[-1], 128, 16)
    ones = tuple(1 for _ in values.shape[:-2])
    made = (
        like(values, 0, (*ones, rows, values.shape[-1]), draw=spread), like(scales, 1, (*ones, rows, 1), draw=positive),
        like(weight, 2, weight.shape, draw=spread), like(weight_scales, 3, weight_scales.shape, draw=positive),
    )  # fmt: skip
    return (*made, dtype), {}


def spread(*shape: int, generator: torch.Generator) -> Tensor:
    """Noise that uses the range of 8 bits."""
    return (30 * torch.randn(*shape, generator=generator)).clamp(-127, 127)


def positive(*shape: int, generator: torch.Generator) -> Tensor:
    """Numbers between 0.5 and 1.5."""
    return 0.5 + torch.rand(*shape, generator=generator)


def _linear_sizes(x: Tensor, weight: Tensor) -> tuple:
    return "linear", *weight.shape, x.shape[-2] % 128


def _linear_inputs(x: Tensor, weight: Tensor) -> tuple[tuple, dict]:
    rows = shortened(x.shape[-2], 128, 16)
    return (like(x, 0, (*(1 for _ in x.shape[:-2]), rows, x.shape[-1])), like(weight, 1, weight.shape)), {}


def _load(name: str) -> Callable[[], Callable]:
    def load() -> Callable:
        require_triton()
        from .triton_kernels import quantise

        return getattr(quantise, name)

    return load


def _load_linear(bits: Bits) -> Callable[[], Callable]:
    def load() -> Callable:
        require_triton()
        return linear_in(bits)

    return load


_FILES = ("quantised.py", "triton_kernels/quantise.py", "triton_kernels/tokens.py")
# Both compute in float32; where they differ in the last digit, a number now and then falls on a neighbour of 8 bits.
_ROWS_LIMITS = dict.fromkeys((torch.float32, torch.bfloat16, torch.float16), 1e-2)
# The reference rounds to bfloat16 before it scales; fp8's sums are kept in fewer digits than float32's on Hopper.
_PRODUCT_LIMITS = dict.fromkeys(EIGHT_BIT, 1e-2)
# fp8 deviates by 0.037 and int8 by 0.013 on noise; what is broken deviates by 1.
_DEVIATION: dict[Bits, float] = {"fp8": 0.06, "int8": 0.03}


def _triton(name: str, refuses: Callable, sizes: Callable, inputs: Callable) -> Kernel:
    probe = Probe(sizes=sizes, inputs=inputs, limits=_ROWS_LIMITS, files=_FILES)
    return Kernel(name="triton", load=_load(name), refuses=refuses, probe=probe)


def _product_kernel(name: str, load: Callable[[], Callable], refuses: Callable) -> Kernel:
    probe = Probe(sizes=_product_sizes, inputs=_product_inputs, limits=_PRODUCT_LIMITS, files=_FILES)
    return Kernel(name=name, load=load, refuses=refuses, probe=probe)


def _linear_kernel(bits: Bits) -> Kernel:
    limits = dict.fromkeys((torch.float32, torch.bfloat16, torch.float16), _DEVIATION[bits])
    probe = Probe(sizes=_linear_sizes, inputs=_linear_inputs, limits=limits, files=_FILES)
    return Kernel(name=bits, load=_load_linear(bits), refuses=_linear_refuses(bits), probe=probe, exact=False)


quantise_rows = Op(
    "quantise_rows",
    quantise_rows_torch,
    (_triton("quantise_rows_triton", _rows_refuses, _rows_sizes, _rows_inputs),),
)
norm_rows = Op(
    "norm_rows", norm_rows_torch, (_triton("norm_rows_triton", _norm_refuses, _norm_sizes, _norm_inputs),)
)  # fmt: skip
product = Op(
    "product",
    product_torch,
    (
        _product_kernel("scaled_mm", lambda: scaled_mm, _scaled_mm_refuses),
        _product_kernel("triton", _load("product_triton"), _int8_refuses),
        _product_kernel("int_mm", lambda: int_mm, _int_mm_refuses),
    ),
)
linear = Op("linear", linear_torch, tuple(_linear_kernel(bits) for bits in get_args(Bits)))

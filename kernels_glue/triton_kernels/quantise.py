"""``quantised`` as Triton kernels: a program a token, float32 inside, each number read once and written in 8 bits."""

# pyright: reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantised import LARGEST, SMALLEST
from .tokens import launch_norm, summed_norm

TILE = {"ROWS": 128, "COLUMNS": 128, "DEPTH": 64, "GROUP": 8}  # of a product: a program's results, and a step's length


@triton.jit
def store_row(value, known, token, values, scales, channels, top, smallest, COLUMNS: tl.constexpr, WHOLE: tl.constexpr):
    """Write one token in 8 bits with its scale."""
    largest = tl.max(tl.where(known, tl.abs(value), 0.0), axis=0)
    scale = tl.maximum(largest, smallest) / top
    value = value / scale
    if WHOLE:  # noqa: SIM108  (a kernel is compiled for one of the two types)
        rounded = tl.floor(value + 0.5).to(tl.int8)
    else:
        rounded = value.to(tl.float8e4nv, fp_downcast_rounding="rtne")
    tl.store(values + token * channels + tl.arange(0, COLUMNS), rounded, mask=known)
    tl.store(scales + token, scale)


@triton.jit
def _norm_rows(
    x, add, gate, shift, scale, x_out, values, scales, length, add_batch, channels, epsilon, top, smallest,
    COLUMNS: tl.constexpr, GATED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    moved, token, known = summed_norm(
        x, add, gate, shift, scale, x_out, length, add_batch, channels, epsilon, COLUMNS, GATED
    )
    store_row(moved, known, token, values, scales, channels, top, smallest, COLUMNS, WHOLE)


@triton.jit
def _rows(
    x, values, scales, channels, top, smallest, COLUMNS: tl.constexpr, GELU: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    token, c = tl.program_id(0).to(tl.int64), tl.arange(0, COLUMNS)
    known = c < channels
    value = tl.load(x + token * channels + c, mask=known, other=0).to(tl.float32)
    if GELU:
        value = 0.5 * value * (1 + tl.erf(value * 0.7071067811865476))
    store_row(value, known, token, values, scales, channels, top, smallest, COLUMNS, WHOLE)


@triton.jit
def _product(
    x, x_scales, weight, w_scales, y, rows, columns, depth,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    across, down = tl.cdiv(columns, COLUMNS), tl.cdiv(rows, ROWS)
    number = tl.program_id(0)  # GROUP blocks of rows take turns at a block of columns, which then lies in the cache
    first = number // (GROUP * across) * GROUP
    high = min(down - first, GROUP)
    block, column = first + number % (GROUP * across) % high, number % (GROUP * across) // high
    r, c, d = block * ROWS + tl.arange(0, ROWS), column * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    row, there, wanted = r.to(tl.int64), r < rows, c < columns
    total = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, depth, DEPTH):
        here = start + d < depth
        a = tl.load(x + row[:, None] * depth + start + d[None, :], mask=there[:, None] & here[None, :], other=0)
        b = tl.load(weight + c[None, :] * depth + start + d[:, None], mask=wanted[None, :] & here[:, None], other=0)
        total = tl.dot(a, b, total, out_dtype=tl.int32)
    scale = tl.load(x_scales + r, mask=there, other=0)[:, None] * tl.load(w_scales + c, mask=wanted, other=0)[None, :]
    place = y + row[:, None] * columns + c[None, :]
    tl.store(place, (total.to(tl.float32) * scale).to(y.dtype.element_ty), mask=there[:, None] & wanted[None, :])


def room(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Where values and scales of tokens [..., D] are written."""
    values = torch.empty(x.shape, dtype=dtype, device=x.device)
    return values, torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)


def norm_rows_triton(
    x: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype, *, add: Tensor, gate: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``norm_rows_torch``, without gradients."""
    rows = room(x, dtype)
    x_out = launch_norm(
        _norm_rows, x, shift, scale, add, gate, *rows,
        top=LARGEST[dtype], smallest=SMALLEST, WHOLE=dtype == torch.int8,
    )  # fmt: skip
    return x_out, *rows


def quantise_rows_triton(x: Tensor, dtype: torch.dtype, gelu: bool = False) -> tuple[Tensor, Tensor]:
    """As ``quantise_rows_torch``, without gradients."""
    rows, columns = room(x, dtype), triton.next_power_of_2(x.shape[-1])
    with torch.cuda.device_of(x):
        _rows[(x.numel() // x.shape[-1],)](
            x, *rows, x.shape[-1], LARGEST[dtype], SMALLEST, COLUMNS=columns, GELU=gelu, WHOLE=dtype == torch.int8,
            num_warps=16 if columns > 8192 else 8 if columns > 2048 else 4,
        )  # fmt: skip
    return rows


def product_triton(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype) -> Tensor:
    """As ``product_torch`` in whole numbers, scaled before the results are written."""
    columns, depth = weight.shape
    rows = values.numel() // depth
    y = torch.empty((*values.shape[:-1], columns), dtype=dtype, device=values.device)
    programs = triton.cdiv(rows, TILE["ROWS"]) * triton.cdiv(columns, TILE["COLUMNS"])
    with torch.cuda.device_of(values):
        _product[(programs,)](
            values, scales, weight, weight_scales, y, rows, columns, depth, **TILE, num_warps=8, num_stages=3
        )
    return y

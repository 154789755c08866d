"""``tokens`` as Triton kernels, forward only: a program a token, float32 inside, each number read and written once."""

# pyright: reportIndexIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tokens import EPSILON


@triton.jit
def summed_norm(
    x, add, gate, shift, scale, x_out, length, add_batch, channels, epsilon,
    COLUMNS: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """This program's token: the sum is stored, its modulated norm returned with its row and which columns it has."""
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    c = tl.arange(0, COLUMNS)
    known = c < channels
    place = (batch * length + row) * channels + c
    total = tl.load(x + place, mask=known, other=0).to(tl.float32)
    more = tl.load(add + batch * add_batch + row * channels + c, mask=known, other=0).to(tl.float32)
    if GATED:
        more *= tl.load(gate + batch * channels + c, mask=known, other=0).to(tl.float32)
    rounded = (total + more).to(x_out.dtype.element_ty)
    tl.store(x_out + place, rounded, mask=known)
    total = rounded.to(tl.float32)  # as the reference, which normalises what it stored
    mean = tl.sum(total, axis=0) / channels
    centred = tl.where(known, total - mean, 0.0)
    normal = centred / tl.sqrt(tl.sum(centred * centred, axis=0) / channels + epsilon)
    stretch = 1 + tl.load(scale + batch * channels + c, mask=known, other=0).to(tl.float32)
    moved = normal * stretch + tl.load(shift + batch * channels + c, mask=known, other=0).to(tl.float32)
    return moved, batch * length + row, known


@triton.jit
def _residual_norm(
    x, add, gate, shift, scale, x_out, y_out, length, add_batch, channels, epsilon,
    COLUMNS: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    moved, token, known = summed_norm(
        x, add, gate, shift, scale, x_out, length, add_batch, channels, epsilon, COLUMNS, GATED
    )
    tl.store(y_out + token * channels + tl.arange(0, COLUMNS), moved.to(y_out.dtype.element_ty), mask=known)


@triton.jit
def _norm_rotate(
    x, weight, cos, sin, y, length, heads, epsilon, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    j = tl.arange(0, HALF)
    head = tl.arange(0, HEADS)
    there = (head < heads)[:, None]
    place = ((batch * length + row) * heads + head[:, None]) * (2 * HALF) + j[None, :]
    a = tl.load(x + place, mask=there, other=0).to(tl.float32)
    b = tl.load(x + place + HALF, mask=there, other=0).to(tl.float32)
    size = tl.sqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / (2 * HALF) + epsilon)[:, None]
    a = a / size * tl.load(weight + j).to(tl.float32)[None, :]
    b = b / size * tl.load(weight + HALF + j).to(tl.float32)[None, :]
    c, s = tl.load(cos + row * HALF + j)[None, :], tl.load(sin + row * HALF + j)[None, :]
    tl.store(y + place, (a * c - b * s).to(y.dtype.element_ty), mask=there)
    tl.store(y + place + HALF, (b * c + a * s).to(y.dtype.element_ty), mask=there)


def residual_norm_triton(
    x: Tensor, shift: Tensor, scale: Tensor, *, add: Tensor, gate: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As ``residual_norm_torch``, without gradients."""
    y_out = torch.empty_like(x)
    x_out = launch_norm(_residual_norm, x, shift, scale, add, gate, y_out)
    return x_out, y_out


def launch_norm(
    kernel: Any, x: Tensor, shift: Tensor, scale: Tensor, add: Tensor, gate: Tensor | None, *out: Tensor, **given: Any
) -> Tensor:
    """x + gate add; a kernel that begins with ``summed_norm`` writes what it makes of it into ``out``."""
    batch, length, channels = x.shape
    rows = [t.expand(batch, 1, channels).contiguous() for t in (shift if gate is None else gate, shift, scale)]
    x_out, columns = torch.empty_like(x), triton.next_power_of_2(channels)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        kernel[(length, batch)](
            x, add, *rows, x_out, *out, length, 0 if len(add) == 1 else length * channels, channels, EPSILON,
            COLUMNS=columns, GATED=gate is not None, num_warps=8 if columns > 2048 else 4, **given,
        )  # fmt: skip
    return x_out


def norm_rotate_triton(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As ``norm_rotate_torch``, without gradients."""
    batch, length, heads, width = x.shape
    y = torch.empty_like(x)
    with torch.cuda.device_of(x):
        _norm_rotate[(length, batch)](
            x, weight.contiguous(), cos.contiguous(), sin.contiguous(), y, length, heads, EPSILON,
            HEADS=triton.next_power_of_2(heads), HALF=width // 2,
        )  # fmt: skip
    return y

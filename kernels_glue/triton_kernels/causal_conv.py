"""The short convolution with SiLU as one Triton kernel, forward only."""

# pyright: reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _convolve(
    x, weight, bias, history, y, x_batch, x_row, length, channels,
    TAPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, REVERSE: tl.constexpr, HISTORY: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known = c < channels
    total = tl.zeros((ROWS, COLUMNS), tl.float32) + tl.load(bias + c, mask=known, other=0).to(tl.float32)[None, :]
    for tap in tl.static_range(TAPS):
        source = t + TAPS - 1 - tap if REVERSE else t + tap - (TAPS - 1)
        inside = (source >= 0) & (source < length)
        value = tl.load(
            x + batch * x_batch + source[:, None] * x_row + c[None, :], mask=inside[:, None] & known[None, :], other=0
        ).to(tl.float32)
        if HISTORY:
            place = source - length if REVERSE else source + TAPS - 1  # row of the history, if this is not inside
            there = (place >= 0) & (place < TAPS - 1) & (source < 0 if not REVERSE else source >= length)
            value += tl.load(
                history + (batch * (TAPS - 1) + place[:, None]) * channels + c[None, :],
                mask=there[:, None] & known[None, :], other=0,
            ).to(tl.float32)  # fmt: skip
        total += value * tl.load(weight + c * TAPS + tap, mask=known, other=0).to(tl.float32)[None, :]
    total = total / (1 + tl.exp(-total))
    y += (batch * length + t[:, None]) * channels + c[None, :]
    tl.store(y, total.to(y.dtype.element_ty), mask=(t < length)[:, None] & known[None, :])


def causal_conv_triton(
    x: Tensor, weight: Tensor, bias: Tensor, *, reverse: bool = False, history: Tensor | None = None
) -> Tensor:
    """As ``causal_conv_torch``, without gradients."""
    batch, length, channels = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows, columns = 32, 128
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _convolve[(triton.cdiv(length, rows), triton.cdiv(channels, columns), batch)](
            x, weight.contiguous(), bias, x if history is None else history.to(x.dtype).contiguous(), y,
            *x.stride()[:2], length, channels, TAPS=weight.shape[-1], ROWS=rows, COLUMNS=columns, REVERSE=reverse,
            HISTORY=history is not None,
        )  # fmt: skip
    return y

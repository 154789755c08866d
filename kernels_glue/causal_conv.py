"""Depthwise causal convolution of width 4 followed by SiLU, either direction along the sequence."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu

from .proof import Probe, like, shortened, size_class
from .registry import Kernel, Op
from .triton_kernels.ready import cannot_run_triton, require_triton


def causal_conv_torch(
    x: Tensor, weight: Tensor, bias: Tensor, *, reverse: bool = False, history: Tensor | None = None
) -> Tensor:
    """silu(bias + sum_m weight[:, m] x[t - 3 + m]) for m = 0..3, of x [B, L, C]; weight [C, 4], bias [C].

    ``history`` [B, 3, C] holds the three inputs before the first (zeros if None), so that segments join exactly.
    ``reverse`` looks ahead instead: x[t + 3 - m], and the history holds the three inputs after the last.
    Sums in float32 (float64 for float64 input) and returns the dtype of x.
    """
    batch, length, channels = x.shape
    width = weight.shape[-1]
    if weight.shape != (channels, width) or bias.shape != (channels,):
        raise ValueError(
            f"causal_conv: x {tuple(x.shape)} needs weight [{channels}, 4] and bias [{channels}], "
            f"got {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    if history is None:
        history = x.new_zeros(batch, width - 1, channels)
    elif history.shape != (batch, width - 1, channels):
        raise ValueError(f"causal_conv: expected history {(batch, width - 1, channels)}, got {tuple(history.shape)}")
    history = history.to(x.dtype)
    padded = torch.cat((x, history) if reverse else (history, x), 1)
    precise = torch.promote_types(x.dtype, torch.float32)
    weight, total = weight.to(precise), bias.to(precise)
    for tap in range(width):
        start = width - 1 - tap if reverse else tap
        total = torch.addcmul(total, padded[:, start : start + length], weight[:, tap])
    return silu(total).to(x.dtype)


def load_causal_conv1d() -> Callable:
    """causal-conv1d's CUDA kernel, with our layout."""
    from causal_conv1d import causal_conv1d_fn

    def conv(x, weight, bias, *, reverse=False, history=None):
        if reverse:  # the kernel has one direction only
            x, history = x.flip(1), None if history is None else history.flip(1)
        # [B, L, C] in memory is the kernel's channels-last [B, C, L]; its history must have that layout too
        states = None if history is None else history.to(x.dtype).contiguous().mT
        y = causal_conv1d_fn(
            x.contiguous().mT, weight.to(x.dtype), bias.to(x.dtype), initial_states=states, activation="silu"
        ).mT
        return y.flip(1) if reverse else y

    return conv


def _causal_conv1d_refuses(x: Tensor, weight: Tensor, *args: Tensor, **options) -> str | None:
    if not x.is_cuda:
        return "needs CUDA tensors"
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"computes in float32 and below, got {x.dtype}"
    if x.shape[-1] % 8:
        return f"needs a multiple of 8 channels, got {x.shape[-1]}"
    return None


def load_triton() -> Callable:
    """Our own Triton kernel."""
    require_triton()
    from .triton_kernels.causal_conv import causal_conv_triton

    return causal_conv_triton


def _probe_sizes(
    x: Tensor, weight: Tensor, *args: Tensor, history: Tensor | None = None, reverse: bool = False
) -> tuple:
    length, channels = x.shape[1:]
    return "conv", weight.shape[1], reverse, history is not None, size_class(length), size_class(channels)


def _probe_inputs(
    x: Tensor, weight: Tensor, bias: Tensor, *, history: Tensor | None = None, **options
) -> tuple[tuple, dict]:
    """Few rows, and as many channels as leave the last block as full as the call's."""
    batch, length, channels = min(x.shape[0], 2), shortened(x.shape[1], 32, 3), shortened(x.shape[2], 128, 3)
    made = (
        like(x, 0, (batch, length, channels)),
        like(weight, 1, (channels, weight.shape[1])),
        like(bias, 2, (channels,)),
    )
    if history is not None:
        options["history"] = like(history, 3, (batch, history.shape[1], channels))
    return made, options


# the same sum in the same order, rounded once more to 8 or 11 bits; the exponential is the kernel's own
_LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}

causal_conv = Op(
    "causal_conv",
    causal_conv_torch,
    (
        Kernel(
            name="triton",  # forward only, without flipped copies
            load=load_triton,
            refuses=cannot_run_triton,
            probe=Probe(
                sizes=_probe_sizes,
                inputs=_probe_inputs,
                limits=_LIMITS,
                files=("causal_conv.py", "triton_kernels/causal_conv.py"),
            ),
        ),
        Kernel(
            name="causal-conv1d",
            load=load_causal_conv1d,
            refuses=_causal_conv1d_refuses,
            probe=Probe(
                sizes=_probe_sizes,
                inputs=_probe_inputs,
                limits=_LIMITS,
                files=("causal_conv.py",),
                library="causal-conv1d",
            ),
        ),
    ),
)

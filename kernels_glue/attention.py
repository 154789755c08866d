"""Full softmax attention through torch's fused kernels; never through a score matrix that does not fit."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .proof import Probe, like, shortened
from .registry import Kernel, KernelUnavailable, Op

KNOWN = ("cpu", "cuda", "meta")  # devices whose fused kernels are known here
SCORE_BYTES = 2**31  # the largest [B, heads, L, L] matrix that the unfused path may allocate


def attention_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, of q [B, heads, L, d] and k, v [B, heads, M, d].

    Raises KernelUnavailable when no fused kernel serves the call and its score matrix would exceed 2 GiB.
    """
    if q.device.type not in KNOWN:
        return in_blocks(q, k, v)
    backend = choose_backend(q, k, v)
    if backend == SDPBackend.MATH:
        needed = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] * max(4, q.element_size())
        if needed > SCORE_BYTES:
            raise KernelUnavailable(
                f"attention: {tuple(q.shape)} {q.dtype} on {q.device.type} is left with the unfused path, whose score "
                f"matrix would take {needed / 2**30:.1f} GiB (limit {SCORE_BYTES / 2**30:g}); use bfloat16 or float16, "
                "a head size that is a multiple of 8, or a device with fused attention"
            )
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(q, k, v)


def in_blocks(q: Tensor, k: Tensor, v: Tensor, most: int = SCORE_BYTES) -> Tensor:
    """The same a few queries at a time, whose scores take ``most`` bytes: for devices whose kernels torch chooses."""
    row = q.shape[0] * q.shape[1] * k.shape[2] * max(4, q.element_size())
    parts = q.split(max(1, most // row), dim=2)
    return torch.cat([scaled_dot_product_attention(part, k, v) for part in parts], dim=2)


def choose_backend(q: Tensor, k: Tensor, v: Tensor) -> SDPBackend:
    """The first of torch's kernels that serves this call; MATH when none of the fused ones does."""
    if q.device.type in ("cpu", "meta"):  # one fused kernel, for any dtype, that works block by block
        return SDPBackend.FLASH_ATTENTION if cuda.flash_sdp_enabled() else SDPBackend.MATH
    call = cuda.SDPAParams(q, k, v, None, 0.0, False, False)
    fused = [
        (SDPBackend.FLASH_ATTENTION, cuda.can_use_flash_attention),
        (SDPBackend.EFFICIENT_ATTENTION, cuda.can_use_efficient_attention),
    ]
    if torch.cuda.get_device_capability(q.device)[0] in (9, 10):  # Hopper and Blackwell: cuDNN's is the fastest
        fused.insert(0, (SDPBackend.CUDNN_ATTENTION, cuda.can_use_cudnn_attention))
    return next((backend for backend, usable in fused if usable(call)), SDPBackend.MATH)


def load_sage() -> Callable:
    """SageAttention 2: 8-bit scores, so the result deviates."""
    from sageattention import sageattn

    return lambda q, k, v: sageattn(q, k, v, tensor_layout="HND")


def _sage_refuses(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    if not q.is_cuda:
        return "needs CUDA tensors"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"needs float16 or bfloat16, got {q.dtype}"
    if q.shape[-1] > 128:
        return f"needs heads of at most 128 channels, got {q.shape[-1]}"
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)):
        return "has no backward pass"
    return None


def _probe_sizes(q: Tensor, k: Tensor, v: Tensor) -> tuple:
    return "attention", q.shape[-1], q.shape[2] % 128, k.shape[2] % 128


def _probe_inputs(q: Tensor, k: Tensor, v: Tensor) -> tuple[tuple, dict]:
    made = (
        like(t, i, (1, min(t.shape[1], 2), shortened(t.shape[2], 128, 3), t.shape[3])) for i, t in enumerate((q, k, v))
    )
    return tuple(made), {}


_SAGE = Kernel(
    name="sage",
    load=load_sage,
    refuses=_sage_refuses,
    probe=Probe(
        sizes=_probe_sizes,
        inputs=_probe_inputs,
        limits={torch.float16: 0.1, torch.bfloat16: 0.1},  # scores in 8-bit integers: it deviates by design
        files=("attention.py",),
        library="sageattention",
    ),
    exact=False,
)

attention = Op("attention", attention_torch, (_SAGE,))

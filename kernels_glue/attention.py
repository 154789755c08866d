"""Full softmax attention through torch's fused kernels; never through a score matrix that does not fit."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import interpolate, scaled_dot_product_attention

from .proof import Probe, like, shortened
from .registry import Kernel, KernelUnavailable, Op

KNOWN = ("cpu", "cuda", "meta")  # devices whose fused kernels are known here
LONG = 16384  # tokens: on Hopper FlashAttention 4 gains over cuDNN at 20 480 and loses at 8192 (dev/benchmarks.md)
BLOCK = 64  # tokens that sparse attention takes or leaves together
SCORE_BYTES = 2**31  # the largest [B, heads, L, L] matrix that the unfused path may allocate


def attention_torch(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, of q [B, heads, L, d] and k, v [B, heads, M, d].

    ``sinks`` is for a kernel that leaves tokens out, but none of the first so many.

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


def load_int8() -> Callable:
    """comfy-kitchen's attention in 8-bit integers: for cards on which bfloat16 is slow (sm_75 to sm_89)."""
    from comfy_kitchen import int8_attention, int8_attention_is_available

    if not int8_attention_is_available():
        raise ImportError("comfy-kitchen has no int8 attention for this card")

    def call(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> Tensor:
        return int8_attention(q, k, v)

    return call


def load_sol(tau: float, whole: bool = False) -> Callable:
    """comfy-kitchen's sparse attention (arXiv 2607.24027): blocks that matter exactly, the rest by their means.

    With ``whole`` the blocks of sinks attend to everything exactly, and everything to them.
    """
    from comfy_kitchen import sol_attn, sol_attn_is_available

    if not sol_attn_is_available():
        raise ImportError("comfy-kitchen has no sparse attention for this card")

    def call(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> Tensor:
        exact = [0, -(-sinks // BLOCK)]
        given = {"sink_blocks": exact, "sink_q": exact} if whole and sinks else {}
        return sol_attn(*(t.transpose(1, 2) for t in (q, k, v)), tau=tau, **given).transpose(1, 2)

    return call


def load_fa4() -> Callable:
    """FlashAttention 4 of its authors, exact: ``pip install "flash-attn-4[cu13]"``."""
    from flash_attn.cute import flash_attn_func

    def call(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> Tensor:
        out, _ = flash_attn_func(*(t.transpose(1, 2) for t in (q, k, v)))
        return out.transpose(1, 2)

    return call


def _half_refuses(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> str | None:
    if not q.is_cuda:
        return "needs CUDA tensors"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"needs float16 or bfloat16, got {q.dtype}"
    if any(t.stride(-1) != 1 for t in (q, k, v)):
        return "needs a head's channels one after another"
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)):
        return "has no backward pass"
    return None


def _int8_refuses(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> str | None:
    return _half_refuses(q, k, v) or (
        f"needs heads of at most 256 channels, got {q.shape[-1]}" if q.shape[-1] > 256 else None
    )


def _sol_refuses(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> str | None:
    if q.shape[-1] != 128 or q.shape != k.shape:
        return f"needs self-attention with heads of 128 channels, got {tuple(q.shape)} and {tuple(k.shape)}"
    return _half_refuses(q, k, v)


def _fa4_refuses(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> str | None:
    if q.shape[-1] > 128 or q.shape[-1] % 8:
        return f"needs heads of at most 128 channels, a multiple of 8, got {q.shape[-1]}"
    reason = _half_refuses(q, k, v)
    if reason is None and torch.cuda.get_device_capability(q.device)[0] < 9:
        return "needs an NVIDIA GPU of the Hopper generation or later"
    return reason


def _fa4_gains(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> bool:
    """For the teacher's heads: those of 64 channels gain less than loading the library takes."""
    large = q.shape[-1] == 128 and min(q.shape[2], k.shape[2]) >= LONG
    return large and q.is_cuda and torch.cuda.get_device_capability(q.device)[0] == 9


def _probe_sizes(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> tuple:
    return "attention", q.shape[-1], q.shape[2] % 128, k.shape[2] % 128, *(("sinks",) if sinks else ())


def _probe_inputs(q: Tensor, k: Tensor, v: Tensor, sinks: int = 0) -> tuple[tuple, dict]:
    """Tokens of a field that changes slowly, and noise: sparse attention needs something to find."""
    made = (
        like(t, i, (1, min(t.shape[1], 2), shortened(t.shape[2], 128, 16), t.shape[3]), draw=smooth)
        for i, t in enumerate((q, k, v))
    )
    return tuple(made), {"sinks": 2 * BLOCK} if sinks else {}


def smooth(*shape: int, generator: torch.Generator) -> Tensor:
    """Values [..., L, d] that change slowly along L, with 0.3 of white noise."""
    few = torch.randn(*shape[:-2], shape[-1], max(2, shape[-2] // 128), generator=generator).flatten(0, -3)
    slow = interpolate(few, size=shape[-2], mode="linear", align_corners=True).transpose(1, 2).reshape(shape)
    slow = slow.contiguous()  # as tokens come out of a linear layer
    return slow + 0.3 * torch.randn(*shape, generator=generator)


def _probe(limit: float, library: str = "comfy-kitchen") -> Probe:
    limits = {torch.float16: limit, torch.bfloat16: limit}
    return Probe(sizes=_probe_sizes, inputs=_probe_inputs, limits=limits, files=("attention.py",), library=library)


def _by_name(name: str, load: Callable[[], Callable], refuses: Callable, limit: float) -> Kernel:
    return Kernel(name=name, load=load, refuses=refuses, probe=_probe(limit), exact=False)


# Limits: int8 deviates by 0.008 on smooth tokens and 0.017 on noise; sparse attention by 0.06 to 0.24 on smooth
# tokens, shorter sequences more, and by 0.7 on noise (dev/benchmarks.md). What is broken deviates by 1 and more.
SOL_TAUS = (1.0, 1.5)  # how far above its row's mean a block must score to be computed exactly, in deviations
WHOLE = "sol-1.0-first"  # that keeps the first frame whole: it is given
_KERNELS = (
    _by_name("int8", load_int8, _int8_refuses, 0.05),
    *(_by_name(f"sol-{tau}", partial(load_sol, tau), _sol_refuses, 0.35) for tau in SOL_TAUS),
    _by_name(WHOLE, partial(load_sol, 1.0, whole=True), _sol_refuses, 0.35),
    Kernel(name="fa4", load=load_fa4, refuses=_fa4_refuses, probe=_probe(0.01, "flash-attn-4"), gains=_fa4_gains),
)
SPARSE = (*(f"sol-{tau}" for tau in SOL_TAUS), WHOLE)  # backends that want neighbours in space beside each other
RETIRED = {"sage": "SageAttention is no longer used; choose int8 (pip install comfy-kitchen), or auto"}

attention = Op("attention", attention_torch, _KERNELS, retired=RETIRED)

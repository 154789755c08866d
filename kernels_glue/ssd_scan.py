"""The Mamba-2 selective scan in its chunked form (Dao and Gu 2024, "state space duality"), either direction.

    S_t = exp(A dt_t) S_{t-1} + dt_t x_t B_t^T        y_t = S_t C_t + D x_t

Inside a chunk the recurrence is one masked matrix product; between chunks only the state [P, S] is carried.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .proof import Probe, like, shortened, size_class
from .registry import Kernel, Op
from .triton_kernels.ready import cannot_run_triton, require_triton

DECAY_BYTES = 2**26  # decay matrices [chunks, H, chunk, chunk] held at once; more chunks run in groups


def ssd_scan_torch(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    initial_state: Tensor | None = None,
    reverse: bool = False,
    chunk: int = 128,
) -> tuple[Tensor, Tensor]:
    """Scan x [B, L, H, P]; return y [B, L, H, P] and the state after the last token, [B, H, P, S].

    dt [B, L, H] is positive (softplus already applied), A [H] negative, B and C [B, L, S] are shared by all heads,
    D [H]. ``initial_state`` is the state a neighbouring segment returned, so a long sequence may be scanned piece by
    piece. ``reverse`` runs from the last token to the first: S_t takes S_{t+1}, and the state comes from the right.
    Computes in float32 (float64 for float64 input) and returns y in the dtype of x.
    """
    batch, length, heads, channels = x.shape
    if not (dt.shape == (batch, length, heads) and B.shape == C.shape == (batch, length, B.shape[-1])):
        raise ValueError(
            f"ssd_scan: x {tuple(x.shape)} needs dt [B, L, H] and B, C [B, L, S]; "
            f"got {tuple(dt.shape)}, {tuple(B.shape)}, {tuple(C.shape)}"
        )
    precise = torch.promote_types(x.dtype, torch.float32)
    state = x.new_zeros(batch, heads, channels, B.shape[-1], dtype=precise)
    if initial_state is not None:
        state = state + initial_state  # the shapes must broadcast, the dtype is ours
    A, D = A.to(precise), D.to(precise)

    # chunks of one length where the sequence allows it, else whole ones and what is left as one short chunk; groups
    # bound the memory
    count = -(-length // chunk)
    chunk = length // count if length and length % count == 0 else chunk
    chunks = max(1, DECAY_BYTES // (batch * heads * chunk * chunk * precise.itemsize))
    whole = length - length % chunk
    spans = [(start, min(start + chunks * chunk, whole)) for start in range(0, whole, chunks * chunk)]
    spans += [(whole, length)] if whole < length else []

    recompute = torch.is_grad_enabled() and len(spans) > 2  # otherwise backward would hold the decays of all groups
    run: Callable = _recomputed if recompute else _scan_group
    parts = []
    for start, stop in reversed(spans) if reverse else spans:
        inputs = (t[:, start:stop] for t in (x, dt, B, C))
        y, state = run(*inputs, A, D, state, reverse, min(chunk, stop - start))
        parts.append(y)
    if reverse:
        parts.reverse()
    return (torch.cat(parts, 1) if parts else torch.empty_like(x)), state


def _recomputed(*args: Tensor | bool | int) -> tuple[Tensor, Tensor]:
    return checkpoint(_scan_group, *args, use_reentrant=False, preserve_rng_state=False)


def _scan_group(
    x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, D: Tensor, state: Tensor, reverse: bool, chunk: int
) -> tuple[Tensor, Tensor]:
    """Scan g whole chunks of q tokens at once."""
    precise, dtype = state.dtype, x.dtype
    x, dt, B, C = (t.to(precise).unflatten(1, (-1, chunk)) for t in (x, dt, B, C))  # [b, g, q, ...]
    decay = (dt * A).movedim(-1, 2)  # [b, g, h, q] logarithm of each token's decay
    sums = _sums(decay, reverse)  # from the edge of the chunk that the scan enters, up to and with this token
    total = decay.sum(-1)  # [b, g, h]
    dtx = (x * dt[..., None]).movedim(3, 2)  # [b, g, h, q, p]

    # tokens of the same chunk: y_t += sum_s (C_t . B_s) exp(sums_t - sums_s) dt_s x_s
    scores = (C @ B.mT)[:, :, None] * _decays(sums, reverse)  # [b, g, h, q, q]
    y = (scores @ dtx).movedim(2, 3)  # [b, g, q, h, p]
    del scores

    # what each chunk adds to the state, and the state that each chunk starts from
    weighted = dtx * (total[..., None] - sums).exp()[..., None]
    added = weighted.movedim(3, -1).flatten(2, 3) @ B  # [b, g, h p, s]
    added = added.unflatten(2, state.shape[1:3]).movedim(1, 2)  # [b, h, g, p, s]
    edges = [added, state[:, :, None]] if reverse else [state[:, :, None], added]
    between = _sums(torch.nn.functional.pad(total, (0, 0, 0, 1) if reverse else (0, 0, 1, 0)).mT, reverse)
    states = _decays(between, reverse) @ torch.cat(edges, 2).flatten(3)  # [b, h, g + 1, p s]
    states = states.unflatten(-1, state.shape[2:])
    entering, last = (states[:, :, 1:], states[:, :, 0]) if reverse else (states[:, :, :-1], states[:, :, -1])

    # tokens of earlier chunks: y_t += exp(sums_t) S C_t
    entering = entering.movedim(2, 1).flatten(2, 3)  # [b, g, h p, s]
    earlier = (C @ entering.mT).unflatten(-1, x.shape[3:])  # [b, g, q, h, p]
    y = torch.addcmul(y, earlier, sums.exp().mT[..., None]) + x * D[:, None]
    return y.flatten(1, 2).to(dtype), last


def _sums(values: Tensor, reverse: bool) -> Tensor:
    """Inclusive sums along the last axis, from the front, or from the back when ``reverse``."""
    return values.flip(-1).cumsum(-1).flip(-1) if reverse else values.cumsum(-1)


def _decays(sums: Tensor, reverse: bool) -> Tensor:
    """exp(sums_t - sums_s) where s comes no later than t in scan order, else 0: [..., n] -> [..., n, n]."""
    size = sums.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=sums.device).triu(1)
    return (sums[..., :, None] - sums[..., None, :]).masked_fill_(later.T if reverse else later, -torch.inf).exp_()


def load_mamba_ssm() -> Callable:
    """mamba-ssm's Triton kernel, with our layout and argument names."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    def scan(x, dt, A, B, C, D, *, initial_state=None, reverse=False, chunk=128):
        if reverse:  # the kernel has one direction only
            x, dt, B, C = (t.flip(1) for t in (x, dt, B, C))
        y, state = mamba_chunk_scan_combined(
            x, dt, A.float(), B.unsqueeze(2), C.unsqueeze(2), chunk, D=D.float(),
            initial_states=initial_state, return_final_states=True,
        )  # fmt: skip
        return (y.flip(1) if reverse else y), state

    return scan


def _mamba_ssm_refuses(x: Tensor, *args: Tensor, chunk: int = 128, **options) -> str | None:
    if not x.is_cuda:
        return "needs CUDA tensors"
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"computes in float32 and below, got {x.dtype}"
    if chunk & (chunk - 1):
        return f"needs a chunk that is a power of two, got {chunk}"
    return None


def load_triton() -> Callable:
    """Our own Triton kernels."""
    require_triton()
    from .triton_kernels.ssd_scan import ssd_scan_triton

    return ssd_scan_triton


def _triton_refuses(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, *args: Tensor, chunk: int = 128, **options
) -> str | None:
    if reason := cannot_run_triton(x, dt, A, B, *args, options.get("initial_state")):
        return reason
    if x.dtype not in (torch.float16, torch.bfloat16):
        return f"computes in float16 or bfloat16, got {x.dtype}"
    if not x.shape[1]:
        return "needs at least one token"
    for name, size, least in (("head", x.shape[3], 16), ("state", B.shape[2], 16), ("chunk", chunk, 64)):
        if size & (size - 1) or not least <= size <= 256:
            return f"needs a {name} size that is a power of two in {least}..256, got {size}"
    return None


def _probe_sizes(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    *args: Tensor,
    initial_state: Tensor | None = None,
    reverse: bool = False,
    chunk: int = 128,
) -> tuple:
    lengths = size_class(x.shape[1]), size_class(-(-x.shape[1] // chunk))
    return "scan", x.shape[3], B.shape[2], chunk, reverse, initial_state is not None, lengths


def _probe_inputs(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, initial_state: Tensor | None = None, **options
) -> tuple[tuple, dict]:
    """A few chunks of a few heads; steps and rates as the decoder has them, so that states cross the chunks."""
    batch, heads = min(x.shape[0], 2), min(x.shape[2], 3)
    length = shortened(x.shape[1], options.get("chunk", 128), 3)

    def steps(*shape: int, generator: torch.Generator) -> Tensor:
        return 10 ** (-1 - 2 * torch.rand(*shape, generator=generator))  # 0.001 to 0.1

    def rates(*shape: int, generator: torch.Generator) -> Tensor:
        return -torch.exp(torch.randn(*shape, generator=generator))

    made = (
        like(x, 0, (batch, length, heads, x.shape[3])),
        like(dt, 1, (batch, length, heads), steps),
        like(A, 2, (heads,), rates),
        like(B, 3, (batch, length, B.shape[2])),
        like(C, 4, (batch, length, C.shape[2])),
        like(D, 5, (heads,)),
    )
    if initial_state is not None:
        options["initial_state"] = like(initial_state, 6, (batch, heads, *initial_state.shape[2:]))
    return made, options


ssd_scan = Op(
    "ssd_scan",
    ssd_scan_torch,
    (
        Kernel(
            name="triton",  # forward only, and without flipped copies
            load=load_triton,
            refuses=_triton_refuses,
            probe=Probe(
                sizes=_probe_sizes,
                inputs=_probe_inputs,
                # scores and entering states are rounded to 8 or 11 bits for the products, and so is the result
                limits={torch.bfloat16: 8e-3, torch.float16: 1.5e-3},
                files=("ssd_scan.py", "triton_kernels/ssd_scan.py"),
            ),
        ),
        Kernel(
            name="mamba-ssm",
            load=load_mamba_ssm,
            refuses=_mamba_ssm_refuses,
            probe=Probe(
                sizes=_probe_sizes,
                inputs=_probe_inputs,
                # the products round their inputs to TF32's 10 bits, or to 8 or 11 bits
                limits={torch.float32: 3e-3, torch.bfloat16: 1.5e-2, torch.float16: 3e-3},
                files=("ssd_scan.py",),
                library="mamba-ssm",
            ),
        ),
    ),
)

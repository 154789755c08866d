"""The Mamba-2 scan as two Triton kernels, forward only: the state each chunk starts from, then the outputs.

Products take 16-bit inputs and sum in float32; states are carried in float32 and rounded for the output product.
"""

# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ssd_scan import _sums

TILE = 64  # tokens a tile of scores
STATES = 32  # columns of the state a program carries
SHARED = 90_000  # bytes of a multiprocessor's shared memory that are used; consumer cards have 99 KB
CARRY_WARPS = 4
STAGES = 1  # of _emit: a tile is read once or twice, nothing to prefetch


@triton.jit
def _carry(
    x, B, dt, sums, state, before, last, x_batch, x_row, x_head, b_batch, b_row, length, chunks,
    P: tl.constexpr, S: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, STATES: tl.constexpr,
    REVERSE: tl.constexpr,
):  # fmt: skip
    """Walk along the sequence with [P, STATES] of one head's state; store it before each chunk and at the end."""
    head, batch, heads = tl.program_id(1), tl.program_id(2).to(tl.int64), tl.num_programs(1)
    p = tl.arange(0, P)
    s = tl.program_id(0) * STATES + tl.arange(0, STATES)
    scene = batch * heads + head  # of tensors [B, H, ...]
    state += scene * P * S + p[:, None] * S + s[None, :]
    before += scene * chunks * P * S + p[:, None] * S + s[None, :]
    x += batch * x_batch + head * x_head
    B += batch * b_batch
    dt += scene * chunks * CHUNK
    sums += scene * chunks * CHUNK
    carried = tl.load(state)
    for step in range(chunks):
        chunk = chunks - 1 - step if REVERSE else step
        tl.store(before + chunk.to(tl.int64) * (P * S), carried.to(before.dtype.element_ty))
        total = tl.load(sums + chunk * CHUNK + (0 if REVERSE else CHUNK - 1))
        carried *= tl.exp(total)
        for tile in tl.static_range(CHUNK // TILE):
            t = chunk * CHUNK + tile * TILE + tl.arange(0, TILE)
            inside = t < length
            weight = tl.load(dt + t) * tl.exp(total - tl.load(sums + t))
            rows = t.to(tl.int64)
            b = tl.load(B + rows[:, None] * b_row + s[None, :], mask=inside[:, None], other=0)
            xt = tl.load(x + rows[None, :] * x_row + p[:, None], mask=inside[None, :], other=0)
            carried += tl.dot(xt, (b * weight[:, None]).to(xt.dtype))
    tl.store(last + scene * P * S + p[:, None] * S + s[None, :], carried)


@triton.jit
def _emit(
    x, B, C, dt, sums, before, D, y, x_batch, x_row, x_head, b_batch, b_row, c_batch, c_row, length, chunks,
    P: tl.constexpr, S: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Outputs of one tile of tokens of one head: from the state before the chunk, and from the chunk's own tokens."""
    head, batch, heads = tl.program_id(1), tl.program_id(2).to(tl.int64), tl.num_programs(1)
    tile, chunk = tl.program_id(0) % (CHUNK // TILE), tl.program_id(0) // (CHUNK // TILE)
    p, s, offset = tl.arange(0, P), tl.arange(0, S), tl.arange(0, TILE)
    scene = batch * heads + head
    x += batch * x_batch + head * x_head
    B += batch * b_batch
    dt += scene * chunks * CHUNK + chunk * CHUNK
    sums += scene * chunks * CHUNK + chunk * CHUNK
    start = (chunk * CHUNK).to(tl.int64)

    mine = tile * TILE + offset  # my tokens, counted in the chunk
    rows = start + mine
    inside = rows < length
    c = tl.load(C + batch * c_batch + rows[:, None] * c_row + s[None, :], mask=inside[:, None], other=0)
    my_sums = tl.load(sums + mine)
    entering = tl.load(before + (scene * chunks + chunk) * (P * S) + s[:, None] + p[None, :] * S)
    total = tl.dot(c, entering) * tl.exp(my_sums)[:, None]
    for other in range(tile if REVERSE else 0, CHUNK // TILE if REVERSE else tile + 1):
        theirs = other * TILE + offset
        there = start + theirs < length
        b = tl.load(B + (start + theirs)[None, :] * b_row + s[:, None], mask=there[None, :], other=0)
        seen = mine[:, None] <= theirs[None, :] if REVERSE else mine[:, None] >= theirs[None, :]
        decay = tl.exp(tl.where(seen, my_sums[:, None] - tl.load(sums + theirs)[None, :], float("-inf")))
        scores = tl.dot(c, b) * decay * tl.load(dt + theirs)[None, :]
        values = tl.load(x + (start + theirs)[:, None] * x_row + p[None, :], mask=there[:, None], other=0)
        total += tl.dot(scores.to(values.dtype), values)
    skipped = tl.load(x + rows[:, None] * x_row + p[None, :], mask=inside[:, None], other=0)
    total += tl.load(D + head) * skipped
    y += (batch * length + rows[:, None]) * heads * P + head * P + p[None, :]
    tl.store(y, total.to(y.dtype.element_ty), mask=inside[:, None])


def carry_stages(channels: int, columns: int, chunk: int) -> int:
    """Chunks of x and B that ``_carry`` may have on their way: three, or as many as fit into shared memory."""
    return max(1, min(3, SHARED // (2 * chunk * (channels + columns))))


def emit_warps(channels: int) -> int:
    """Warps of ``_emit``: two, where four would read beyond the shared memory on Hopper.

    Triton 3.6 and later give four warps Hopper's asynchronous matrix products, and with operands of fewer than 64
    columns several of them in one kernel are wrong there (triton-lang/triton issues 10486 and 11366). Two warps take
    the products of the generation before.
    """
    return 2 if channels < 64 else 4


def ssd_scan_triton(
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
    """As ``ssd_scan_torch``, for 16-bit x [B, L, H, P], B and C [B, L, S], without gradients."""
    (batch, length, heads, channels), states = x.shape, B.shape[-1]
    chunks = triton.cdiv(length, chunk)
    state = x.new_zeros(batch, heads, channels, states, dtype=torch.float32)
    if initial_state is not None:
        state = state + initial_state
    # tokens that fill up the last chunk have dt = 0: they neither decay nor add
    dt = torch.nn.functional.pad(dt.float().mT, (0, chunks * chunk - length)).contiguous()  # [B, H, L']
    sums = _sums((dt * A.float()[:, None]).unflatten(-1, (chunks, chunk)), reverse).contiguous()
    x, B, C = (t if t.stride(-1) == 1 else t.contiguous() for t in (x, B, C))
    before = x.new_empty(batch, heads, chunks, channels, states)
    last, y = torch.empty_like(state), x.new_empty(x.shape)
    tile = min(TILE, chunk)
    x_strides, b_strides = (x.stride(0), x.stride(1), x.stride(2)), B.stride()[:2]
    sizes = {"P": channels, "S": states, "CHUNK": chunk, "TILE": tile, "REVERSE": reverse}
    columns = min(STATES, states)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _carry[(states // columns, heads, batch)](
            x, B, dt, sums, state, before, last, *x_strides, *b_strides, length, chunks, **sizes, STATES=columns,
            num_warps=CARRY_WARPS, num_stages=carry_stages(channels, columns, chunk),
        )  # fmt: skip
        _emit[(chunks * (chunk // tile), heads, batch)](
            x, B, C, dt, sums, before, D.float(), y, *x_strides, *b_strides, *C.stride()[:2], length, chunks, **sizes,
            num_warps=emit_warps(channels), num_stages=STAGES,
        )  # fmt: skip
    return y, last

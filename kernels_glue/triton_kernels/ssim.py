"""Structural similarity as four Triton kernels: along rows and down columns, and the same back.

Frames [B, H, W, C] are read as they lie, as rows of W C numbers whose neighbours are C apart. Counted in stacks of
frames, the four read 14 and write 11: 1.6 GB for six of 1280x704, a third of a millisecond of an H200's memory.
"""

# pyright: reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..ssim import BORDER, C1, C2, MIDDLE, WINDOW, check_frames, weights

ACROSS = 512  # numbers of a row that a program makes
TILE_ROWS, TILE_COLUMNS = 8, 128  # of those down the columns
STEADY = ("height", "columns")  # sizes that the compiler shall not look at: one program for all


@triton.jit(do_not_specialize=STEADY)
def _across(
    x, y, maps, taps, height, columns,
    C: tl.constexpr, WINDOW: tl.constexpr, MIDDLE: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Means along rows of x, y, x^2 + y^2 and x y: [4, B H, columns - 10 C]."""
    row, shown = tl.program_id(0).to(tl.int64), columns - (WINDOW - 1) * C
    c = tl.program_id(1) * ACROSS + tl.arange(0, ACROSS)
    known = c < shown
    mean_x = tl.zeros((ACROSS,), tl.float32)
    mean_y, power, mixed = mean_x, mean_x, mean_x
    for tap in range(WINDOW):
        weight = tl.load(taps + tap)
        at = row * columns + c + tap * C
        a = tl.load(x + at, mask=known, other=0) - MIDDLE
        b = tl.load(y + at, mask=known, other=0) - MIDDLE
        mean_x += weight * a
        mean_y += weight * b
        power += weight * (a * a + b * b)
        mixed += weight * a * b
    size = tl.num_programs(0).to(tl.int64) * shown
    maps += row * shown + c
    tl.store(maps, mean_x, mask=known)
    tl.store(maps + size, mean_y, mask=known)
    tl.store(maps + 2 * size, power, mask=known)
    tl.store(maps + 3 * size, mixed, mask=known)


@triton.jit(do_not_specialize=STEADY)
def _down(
    maps, slopes, totals, taps, height, columns,
    WINDOW: tl.constexpr, MIDDLE: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr,
    SLOPES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Means down columns of [4, B, H, columns]: sums of similarities of tiles, and slopes [3, B, H - 10, columns]."""
    frame, frames, shown = tl.program_id(2).to(tl.int64), tl.num_programs(2).to(tl.int64), height - (WINDOW - 1)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known = (r < shown)[:, None] & (c < columns)[None, :]
    size = frames * height * columns
    mean_x = tl.zeros((ROWS, COLUMNS), tl.float32)
    mean_y, power, mixed = mean_x, mean_x, mean_x
    for tap in range(WINDOW):
        weight = tl.load(taps + tap)
        at = maps + (frame * height + r[:, None] + tap) * columns + c[None, :]
        mean_x += weight * tl.load(at, mask=known, other=0)
        mean_y += weight * tl.load(at + size, mask=known, other=0)
        power += weight * tl.load(at + 2 * size, mask=known, other=0)
        mixed += weight * tl.load(at + 3 * size, mask=known, other=0)
    variances = power - mean_x * mean_x - mean_y * mean_y + C2
    covariance = 2 * (mixed - mean_x * mean_y) + C2
    light, other = mean_x + MIDDLE, mean_y + MIDDLE
    bright, both = light * light + other * other + C1, 2 * light * other + C1
    inverse = 1 / (bright * variances)
    similar = both * covariance * inverse
    tile = (frame * tl.num_programs(0) + tl.program_id(0)) * tl.num_programs(1) + tl.program_id(1)
    tl.store(totals + tile, tl.sum(tl.sum(tl.where(known, similar, 0.0), 1), 0))
    if SLOPES:
        along_power, along_mixed = -similar / variances, 2 * both * inverse
        along_mean = 2 * (other * covariance * inverse - light * similar / bright - mean_x * along_power)
        along_mean -= mean_y * along_mixed
        at = slopes + (frame * shown + r[:, None]) * columns + c[None, :]
        size = frames * shown * columns
        tl.store(at, along_mean, mask=known)
        tl.store(at + size, along_power, mask=known)
        tl.store(at + 2 * size, along_mixed, mask=known)


@triton.jit(do_not_specialize=STEADY)
def _up(
    slopes, maps, taps, height, columns, WINDOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """The transpose of the means down columns: [3, B, H - 10, columns] -> [3, B, H, columns]."""
    plane, shown = tl.program_id(2).to(tl.int64), height - (WINDOW - 1)  # of a map and a frame
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tap in range(WINDOW):
        source = r - tap
        inside = ((source >= 0) & (source < shown))[:, None] & (c < columns)[None, :]
        at = slopes + (plane * shown + source[:, None]) * columns + c[None, :]
        total += tl.load(taps + tap) * tl.load(at, mask=inside, other=0)
    at = maps + (plane * height + r[:, None]) * columns + c[None, :]
    tl.store(at, total, mask=(r < height)[:, None] & (c < columns)[None, :])


@triton.jit(do_not_specialize=STEADY)
def _back(
    maps, x, y, share, grad, taps, height, columns,
    C: tl.constexpr, WINDOW: tl.constexpr, MIDDLE: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """The transpose of the means along rows, and the gradient of x [B H, columns]; ``share`` [B] is on each frame's."""
    row, shown = tl.program_id(0).to(tl.int64), columns - (WINDOW - 1) * C
    c = tl.program_id(1) * ACROSS + tl.arange(0, ACROSS)
    size = tl.num_programs(0).to(tl.int64) * shown
    along_mean = tl.zeros((ACROSS,), tl.float32)
    along_power, along_mixed = along_mean, along_mean
    for tap in range(WINDOW):
        weight, source = tl.load(taps + tap), c - tap * C
        inside = (source >= 0) & (source < shown)
        at = maps + row * shown + source
        along_mean += weight * tl.load(at, mask=inside, other=0)
        along_power += weight * tl.load(at + size, mask=inside, other=0)
        along_mixed += weight * tl.load(at + 2 * size, mask=inside, other=0)
    known, at = c < columns, row * columns + c
    a = tl.load(x + at, mask=known, other=0) - MIDDLE
    b = tl.load(y + at, mask=known, other=0) - MIDDLE
    found = (along_mean + 2 * a * along_power + b * along_mixed) * tl.load(share + row // height)
    tl.store(grad + at, found, mask=known)


class SimilarityTriton(torch.autograd.Function):
    """``ssim_triton``; keeps the frames and three maps of their size."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor) -> Tensor:
        """Similarity a frame."""
        x, y = x.contiguous(), y.contiguous()
        batch, height, width, channels = x.shape
        columns, shown = width * channels, (width - BORDER) * channels
        slopes_wanted = ctx.needs_input_grad[0]
        maps, taps = x.new_empty(4, batch, height, shown), weights(x)
        slopes = x.new_empty((3, batch, height - BORDER, shown) if slopes_wanted else (0,))
        tiles = triton.cdiv(height - BORDER, TILE_ROWS), triton.cdiv(shown, TILE_COLUMNS)
        totals = x.new_empty(batch, *tiles)
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _across[(batch * height, triton.cdiv(shown, ACROSS))](
                x, y, maps, taps, height, columns, C=channels, WINDOW=WINDOW, MIDDLE=MIDDLE, ACROSS=ACROSS
            )
            _down[(*tiles, batch)](
                maps, slopes, totals, taps, height, shown, WINDOW=WINDOW, MIDDLE=MIDDLE, C1=C1, C2=C2,
                SLOPES=slopes_wanted, ROWS=TILE_ROWS, COLUMNS=TILE_COLUMNS,
            )  # fmt: skip
        ctx.save_for_backward(x, y, slopes)
        return totals.sum((1, 2)) / ((height - BORDER) * shown)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient of x."""
        x, y, slopes = ctx.saved_tensors
        batch, height, width, channels = x.shape
        columns, shown = width * channels, (width - BORDER) * channels
        maps, found, taps = x.new_empty(3, batch, height, shown), torch.empty_like(x), weights(x)
        share = (grad / slopes[0, 0].numel()).contiguous()
        with torch.cuda.device_of(x):
            _up[(triton.cdiv(height, TILE_ROWS), triton.cdiv(shown, TILE_COLUMNS), 3 * batch)](
                slopes, maps, taps, height, shown, WINDOW=WINDOW, ROWS=TILE_ROWS, COLUMNS=TILE_COLUMNS
            )
            _back[(batch * height, triton.cdiv(columns, ACROSS))](
                maps, x, y, share, found, taps, height, columns,
                C=channels, WINDOW=WINDOW, MIDDLE=MIDDLE, ACROSS=ACROSS,
            )  # fmt: skip
        return found, None


def ssim_triton(x: Tensor, y: Tensor) -> Tensor:
    """As ``ssim_torch``, for float32 on a GPU."""
    check_frames(x, y)
    return SimilarityTriton.apply(x, y)

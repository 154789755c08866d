"""Front-to-back compositing of footprints, in blocks of pixels and chunks along depth, in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..devices import by_device
from .projection import ALPHA_MIN

ALPHA_MAX = 0.999
SATURATED = 1e-4  # a pixel ends before the splat that would leave it this transmittance or less
SIDE = 8  # pixels of a block: half a tile wastes little on small splats and lists large ones a quarter as often as 4
CHUNK = 32  # splats along depth composited at a time
SLAB = 2**22  # (block, splat) pairs sorted at a time
BATCH = {"cpu": 2**18, "cuda": 2**24}  # (pixel, splat) pairs evaluated at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class Blocks:
    """Squares of ``side`` pixels covering the picture; each has its own list of splats."""

    side: int
    columns: int
    rows: int

    def ranges(self, boxes: Tensor) -> Tensor:
        """First column, first row, columns and rows of the blocks that pixel boxes [M, 4] touch, [M, 4]."""
        first, end = boxes[:, :2] // self.side, -(-boxes[:, 2:] // self.side)
        spans = torch.where((boxes[:, 2:] > boxes[:, :2]).all(1, keepdim=True), end - first, 0)
        return torch.cat((first, spans), dim=1)

    def centres(self, blocks: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel centres of some blocks [A]: x [A, side] and y [A, side]."""
        steps = torch.arange(self.side, device=blocks.device) + 0.5
        corners = torch.stack((blocks % self.columns, blocks // self.columns)) * self.side
        x, y = (corners[..., None] + steps).to(like.dtype)
        return x, y

    def picture(self, values: Tensor, width: int, height: int) -> Tensor:
        """Values a pixel of a block [rows * columns, side * side, F] -> picture [H, W, F]."""
        split = values.view(self.rows, self.columns, self.side, self.side, -1).transpose(1, 2)
        return split.reshape(self.rows * self.side, self.columns * self.side, -1)[:height, :width]


def cover(width: int, height: int, side: int = SIDE) -> Blocks:
    """The blocks of a picture; ``side`` divides TILE, so that a tile is made of whole blocks."""
    return Blocks(side=side, columns=-(-width // side), rows=-(-height // side))


def front_to_back(boxes: Tensor, blocks: Blocks, transmittance: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (blocks [A], their next splats [A, CHUNK]) until each block is saturated or has seen all its splats.

    Splats are rows of ``boxes`` [M, 4], which are in order of depth; M stands for none. The caller updates
    ``transmittance`` [blocks, pixels] before it asks for more.
    """
    ranges = blocks.ranges(boxes)
    total = (ranges[:, 2] * ranges[:, 3]).cumsum(0)
    if not len(total):
        return
    cuts = torch.arange(SLAB, int(total[-1]) + SLAB, SLAB, device=boxes.device)
    first = 0
    for end in torch.searchsorted(total, cuts, right=True).tolist():
        end = max(end, first + 1) if end < len(boxes) else len(boxes)
        if end == first:
            break
        alive = transmittance.amax(1) > SATURATED
        if not alive.any():
            return
        splats, starts, lengths = block_lists(ranges[first:end], blocks, alive)
        splats = torch.cat((splats + first, splats.new_full((CHUNK,), len(boxes))))
        first = end
        for offset in range(0, int(lengths.max()), CHUNK):
            busy = ((lengths > offset) & (transmittance.amax(1) > SATURATED)).nonzero().squeeze(1)
            if not len(busy):
                break
            for part in busy.split(max(1, by_device(BATCH, boxes.device) // (CHUNK * blocks.side**2))):
                steps = offset + torch.arange(CHUNK, device=boxes.device)
                listed = splats[starts[part, None] + steps]
                yield part, listed.masked_fill_(steps >= lengths[part, None], len(boxes))


def block_lists(ranges: Tensor, blocks: Blocks, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Splats sorted by block, then in given order [P]; where each block's list starts and how long it is [blocks]."""
    counts = ranges[:, 2] * ranges[:, 3]
    splats = torch.repeat_interleave(counts)
    nth = torch.arange(len(splats), device=ranges.device) - (counts.cumsum(0) - counts)[splats]
    column, row, columns, _ = ranges[splats].unbind(1)
    block = (row + nth // columns) * blocks.columns + column + nth % columns
    kept = alive[block]
    block, splats = block[kept], splats[kept]
    order = block.to(torch.int32).sort(stable=True).indices
    lengths = torch.bincount(block, minlength=len(alive))
    return splats[order], lengths.cumsum(0) - lengths, lengths


def footprints(rows: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """What splats are at pixels: opacity, 0 below ALPHA_MIN; its exponent; the exponent's denominator, None for 1.

    rows [R, A, C], x [A, S], y [A, S] -> [A, S * S, C] each.
    """
    dx, dy = x[..., None] - rows[0, :, None], y[..., None] - rows[1, :, None]  # [A, S, C]
    a, b, c, *below, opacity = rows[2:, :, None].unbind(0)  # [A, 1, C] each
    exponent, denominator = quadratic(a * dx * dx, b * dx, c * dy * dy, dy), None
    if below:
        d, e, f, g, h = below
        denominator = quadratic(1 + (d + f * dx) * dx, g * dx, (e + h * dy) * dy, dy)
        exponent = exponent / denominator
    alpha = (opacity[:, None] * exponent.exp()).clamp_max(ALPHA_MAX)
    alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0).flatten(1, 2)
    return alpha, exponent.flatten(1, 2), None if denominator is None else denominator.flatten(1, 2)


def quadratic(in_x: Tensor, mixed: Tensor, in_y: Tensor, dy: Tensor) -> Tensor:
    """``in_x + in_y + mixed dy`` at each pixel (row, column) of a block, [A, S, C] each -> [A, S, S, C]."""
    return torch.addcmul(in_x[:, None] + in_y[:, :, None], mixed[:, None], dy[:, :, None])


class Composite(torch.autograd.Function):
    """Sum of ``transmittance * alpha * (features, 1)`` a pixel: rows [M, R], features [M, F] -> [blocks, S * S, F+1].

    Both directions walk front to back and evaluate footprints anew, so that nothing of the size of the walk is kept.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, features: Tensor, boxes: Tensor, blocks: Blocks) -> Tensor:
        """Composite all splats."""
        table, extras = padded(rows), padded(features)
        transmittance = rows.new_ones(blocks.rows * blocks.columns, blocks.side**2)
        sums = rows.new_zeros(*transmittance.shape, features.shape[1] + 1)
        for part, splats in front_to_back(boxes, blocks, transmittance):
            alpha, *_ = footprints(table[splats].movedim(-1, 0), *blocks.centres(part, rows))
            before, kept = attenuate(alpha, transmittance, part)
            weight = alpha.mul_(before).mul_(kept)
            channels = [(weight * f[:, None]).sum(-1) for f in extras[splats].unbind(-1)]
            sums[part] += torch.stack((*channels, weight.sum(-1)), dim=-1)
        ctx.save_for_backward(rows, features, boxes, sums)
        ctx.blocks = blocks
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of rows and features.

        With s_i the gradient along splat i's features and S_i the sum of w_j s_j over the splats j behind it,
        d/d alpha_i = T_i s_i - S_i / (1 - alpha_i).
        """
        rows, features, boxes, sums = ctx.saved_tensors
        blocks = ctx.blocks
        table, extras = padded(rows), padded(features)
        grad_table, grad_extras = torch.zeros_like(table), torch.zeros_like(extras)
        transmittance = rows.new_ones(sums.shape[:2])
        behind = (sums * grad).sum(-1)  # [blocks, S * S] S of the last splat composited
        for part, splats in front_to_back(boxes, blocks, transmittance):
            chunk, (x, y) = table[splats].movedim(-1, 0), blocks.centres(part, rows)
            alpha, exponent, denominator = footprints(chunk, x, y)
            before, kept = attenuate(alpha, transmittance, part)
            weight = alpha * before * kept
            upstream, values = grad[part], extras[splats]  # [A, S * S, F + 1], [A, C, F]
            along = product(upstream[..., :-1], values.mT) + upstream[..., -1:]
            rest = behind[part, None].transpose(1, 2) - (weight * along).cumsum(-1)
            behind[part] = rest[..., -1]
            slope = (before * along - rest / (1 - alpha)) * kept
            steep = torch.where(alpha < ALPHA_MAX, slope * alpha, 0)  # along the exponent, whose exp the alpha is
            grad_chunk = row_gradients(chunk, x, y, steep, exponent, denominator)
            grad_table.index_add_(0, splats.flatten(), grad_chunk.movedim(0, -1).flatten(0, 1))
            grad_extras.index_add_(0, splats.flatten(), product(weight.mT, upstream[..., :-1]).flatten(0, 1))
        return grad_table[:-1], grad_extras[:-1], None, None


def row_gradients(
    rows: Tensor, x: Tensor, y: Tensor, steep: Tensor, exponent: Tensor, denominator: Tensor | None
) -> Tensor:
    """Gradients [R, A, C] of ``Footprints.rows``, from those along the exponents at pixels, ``steep`` [A, S * S, C].

    A row's entries are factors of 1, dx, dy, dx^2, dx dy, dy^2, so only these moments of ``steep`` about each splat are
    needed. They are taken about the blocks' centres, where pixels are the same numbers for all, and shifted.
    """
    x0, y0, a, b, c, *below, opacity = rows
    middle_x, middle_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    across, down = (x - middle_x)[0], (y - middle_y)[0]
    dx, dy = across.repeat(len(down)), down.repeat_interleave(len(across))
    pixels = torch.stack((torch.ones_like(dx), dx, dy, dx * dx, dx * dy, dy * dy))  # [6, S * S]
    away = x0 - middle_x, y0 - middle_y  # [A, C] each
    over = steep if denominator is None else steep / denominator
    one, in_x, in_y, in_xx, in_xy, in_yy = moments(over, pixels, *away)
    to_x, to_y = 2 * a * in_x + b * in_y, b * in_x + 2 * c * in_y
    above, under = [in_xx, in_xy, in_yy], []
    if below:
        d, e, f, g, h = below
        one, *under = moments(-over * exponent, pixels, *away)
        in_x, in_y = under[:2]
        to_x = to_x + d * one + 2 * f * in_x + g * in_y
        to_y = to_y + e * one + g * in_x + 2 * h * in_y
    strength = steep.sum(1) / opacity.clamp_min(ALPHA_MIN)
    return torch.stack((-to_x, -to_y, *above, *under, strength))


def moments(values: Tensor, pixels: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
    """Sums of ``values`` [A, P, C] times 1, dx, dy, dx^2, dx dy, dy^2 about (x, y) [A, C], of ``pixels`` [6, P]."""
    one, in_x, in_y, in_xx, in_xy, in_yy = product(pixels.expand(len(values), -1, -1), values).unbind(1)
    near_x, near_y = in_x - x * one, in_y - y * one
    return [
        one, near_x, near_y, in_xx - x * (in_x + near_x), in_xy - x * near_y - y * in_x, in_yy - y * (in_y + near_y)
    ]  # fmt: skip


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix products [A, I, K] x [A, K, J]; a matmul on a CPU only, for a host may let a GPU's run in TF32."""
    return left @ right if left.device.type == "cpu" else summed(left, right)


def summed(left: Tensor, right: Tensor) -> Tensor:
    """The same by sums over whichever of I, K and J is least."""
    if left.shape[2] <= min(left.shape[1], right.shape[2]):
        return reduce(torch.add, (left[:, :, k, None] * right[:, k, None] for k in range(left.shape[2])))
    if left.shape[1] <= right.shape[2]:
        return torch.stack([(left[:, i, :, None] * right).sum(1) for i in range(left.shape[1])], dim=1)
    return torch.stack([(left * right[:, None, :, j]).sum(2) for j in range(right.shape[2])], dim=2)


def padded(table: Tensor) -> Tensor:
    """The table with a row of zeros for "no splat"."""
    return torch.cat((table, table.new_zeros(1, table.shape[1])))


def attenuate(alpha: Tensor, transmittance: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Transmittance before each splat and whether the splat is drawn, [A, S * S, C]; moves ``transmittance`` on."""
    running = torch.cat((transmittance[part, :, None], 1 - alpha), dim=-1).cumprod(-1)
    transmittance[part] = running[..., -1]
    return running[..., :-1], running[..., 1:] > SATURATED

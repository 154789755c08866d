"""The teacher's linear layers in 8 bits: weights are quantised once, tokens by what comes before each product.

Of a block: query, key, value and output of self-attention, query and output of cross-attention, and both layers of the
MLP. Key and value of cross-attention see 512 rows of text only, and stay as they are; so do modulation and embeddings.
"""

import logging
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...kernels_glue.quantised import BITS, Bits, product, quantise_rows

log = logging.getLogger("lyra")

Linears = Literal["exact", "fp8", "int8"]


class Rows(NamedTuple):
    """Tokens in 8 bits."""

    values: Tensor  # [B, L, D]
    scales: Tensor  # [B, L, 1]


class EightBitLinear(nn.Module):
    """A linear layer without bias whose weights are rows of 8 bits, a scale an output channel."""

    def __init__(self, linear: nn.Linear, bits: Bits, device: torch.device | None = None):
        super().__init__()
        home = linear.weight.device
        values, scales = quantise_rows(linear.weight.detach().to(device or home).contiguous(), BITS[bits])
        self.dtype = linear.weight.dtype  # of what it gives
        self.register_buffer("weight", values.to(home))
        self.register_buffer("scales", scales.to(home))

    def forward(self, x: Tensor | Rows) -> Tensor:
        """[B, L, D] -> [B, L, O]; tokens that are not quantised yet are quantised first."""
        rows = x if isinstance(x, Rows) else quantise_rows(x.contiguous(), self.weight.dtype)
        return product(*rows, self.weight, self.scales, self.dtype)


class EightBitMLP(nn.Module):
    """diffusers' FeedForward with exact GELU, which writes the second layer's 8 bits."""

    def __init__(self, mlp: Any, bits: Bits, device: torch.device | None = None):
        super().__init__()
        self.up, self.down = (EightBitLinear(layer, bits, device) for layer in (mlp.net[0].proj, mlp.net[2]))

    def forward(self, x: Tensor | Rows) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        return self.down(Rows(*quantise_rows(self.up(x), self.down.weight.dtype, gelu=True)))


def to_eight_bits(blocks: Iterable[Any], bits: Bits, device: torch.device | None = None) -> None:
    """Replace the layers of a transformer's blocks, block by block: the weights that they had are freed on the way.

    A weight stays where it was, and is quantised on ``device``.
    """
    kept = before = after = 0
    for block in blocks:
        before += size_of(block)
        for attention, names in ((block.attn1, ("to_q", "to_k", "to_v")), (block.attn2, ("to_q",))):
            for name in names:
                setattr(attention, name, EightBitLinear(getattr(attention, name), bits, device))
            attention.to_out[0] = EightBitLinear(attention.to_out[0], bits, device)
        block.ff = EightBitMLP(block.ff, bits, device)
        block.linears = bits
        after, kept = after + size_of(block), kept + 1
    log.info("products of %d blocks in %s: %.2f GB of weights instead of %.2f", kept, bits, after / 1e9, before / 1e9)


def size_of(module: nn.Module) -> int:
    """Bytes of a module's weights."""
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def example(width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens and a weight as a block of that width has them, to ask whether a kernel can run."""
    return torch.zeros(1, 128, width, dtype=dtype, device=device), torch.zeros(width, width, dtype=dtype, device=device)

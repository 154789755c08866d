"""What the splat decoder is made of besides its scans: patch embedding, norm, attention block."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ...kernels_glue import attention
from ..configs import PATCH
from .schedule import Schedule


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer initialised as the decoder's are: truncated normal of deviation 0.02, bias 0."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, computed in float32 at least and rounded once."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        precise = torch.promote_types(x.dtype, torch.float32)
        return functional.rms_norm(x.to(precise), self.weight.shape, self.weight.to(precise), self.eps).to(x.dtype)


class PatchEmbed(nn.Module):
    """Latents [B, C, T, h, w] to normed tokens [B, T h/2 w/2, D], in the order t, y, x."""

    def __init__(self, channels: int, width: int, zero: bool = False):
        super().__init__()
        self.proj = nn.Conv3d(channels, width, (1, PATCH, PATCH), (1, PATCH, PATCH))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        nn.init.normal_(self.proj.weight, std=0 if zero else math.sqrt(2 / (PATCH * PATCH * width)))
        nn.init.zeros_(self.proj.get_parameter("bias"))

    def forward(self, latents: Tensor) -> Tensor:
        """Embed; the convolution's patches do not overlap, so it is one matrix product."""
        patches = rearrange(latents, "b c t (h p) (w q) -> b (t h w) (c p q)", p=PATCH, q=PATCH)
        return self.norm(functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias))


class Attention(nn.Module):
    """Projections of multi-head attention over the whole sequence; rows of qkv are q, k, v, heads inside each."""

    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = linear(width, 3 * width), linear(width, width)
        # in float32 statistics like the trunk's RMSNorm, but with the attention's own epsilon
        self.q_norm, self.k_norm = (RMSNorm(width // heads, 1e-6) if qk_norm else nn.Identity() for _ in range(2))

    def queries(self, x: Tensor) -> Tensor:
        """[B, L, D] to [B, heads, L, d]."""
        width = x.shape[-1]
        return self.q_norm(self._heads(functional.linear(x, self.qkv.weight[:width], self.qkv.bias[:width]), 1)[0])

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L, D] to twice [B, heads, L, d]."""
        width = x.shape[-1]
        k, v = self._heads(functional.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]), 2)
        return self.k_norm(k), v

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return rearrange(x, "b l (n h d) -> n b h l d", n=parts, h=self.heads).unbind(0)


class Mlp(nn.Module):
    """fc2(GELU(fc1(x))), exact GELU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = linear(width, hidden), linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return self.fc2(functional.gelu(self.fc1(x)))


class AttentionBlock(nn.Module):
    """Pre-norm transformer block: every token attends to every token; no mask, no positions."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4, qk_norm: bool = False):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads, qk_norm), Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor, schedule: Schedule) -> Tensor:
        """[B, L, D] to [B, L, D]. Keys and values are held for all tokens, everything else for one segment."""
        k, v = self.attn.keys_values(self.norm1(x))
        parts = []
        for span in schedule.spans(x.shape[1]):
            y = x[:, span] + self.attend(self.norm1(x[:, span]), k, v, schedule)
            parts.append(y + self.mlp(self.norm2(y)))
        del k, v
        return torch.cat(parts, 1)

    def attend(self, normed: Tensor, k: Tensor, v: Tensor, schedule: Schedule) -> Tensor:
        """Attention output of some tokens [B, l, D] over all keys and values."""
        out = attention(self.attn.queries(normed), k, v, backend=schedule.attention)
        return self.attn.proj(rearrange(out, "b h l d -> b l (h d)"))

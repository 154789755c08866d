"""The bidirectional Mamba-2 block: two scans, one from each end, between shared projections."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...kernels_glue import causal_conv, ssd_scan
from .blocks import RMSNorm, linear
from .schedule import Schedule

CONV = 4  # taps of the short convolution

Carried = tuple[Tensor | None, Tensor | None]  # the neighbour's edge [B, 3, C] of u, and its state [B, H, P, S]


class Scan(nn.Module):
    """One direction: short convolution, selective scan, gate, norm."""

    def __init__(self, inner: int, head_size: int, state: int, reverse: bool):
        super().__init__()
        heads = inner // head_size
        self.state, self.reverse = state, reverse
        self.conv1d = nn.Conv1d(inner + 2 * state, inner + 2 * state, CONV, groups=inner + 2 * state)
        # steps log-uniform in 0.001..0.1, decay rates uniform in 1..16
        dt = torch.exp(torch.rand(heads) * math.log(100) + math.log(1e-3)).clamp_min(1e-4)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(inner)

    def forward(self, z: Tensor, u: Tensor, dt: Tensor, carried: Carried, schedule: Schedule) -> tuple[Tensor, Carried]:
        """Scan a segment: gate z [B, L, I], input u [B, L, I + 2 S], steps dt [B, L, H] -> [B, L, I].

        ``carried`` comes from the segment before in scan order, which for the reverse scan is the one to the right.
        """
        edge, state = carried
        filtered = causal_conv(
            u, self.conv1d.weight[:, 0], self.conv1d.bias, reverse=self.reverse, history=edge, backend=schedule.conv
        )
        x, B, C = filtered.split([z.shape[-1], self.state, self.state], -1)
        dt = functional.softplus(dt.to(torch.promote_types(dt.dtype, torch.float32)) + self.dt_bias)
        x = x.unflatten(-1, (dt.shape[-1], -1))
        # the decay rate is rounded in the parameters' dtype, as the reference does
        y, state = ssd_scan(
            x, dt, -self.A_log.exp(), B, C, self.D, initial_state=state, reverse=self.reverse, backend=schedule.scan
        )
        gated = y.flatten(2).to(dt.dtype) * functional.silu(z.to(dt.dtype))
        return self.norm(gated).to(z.dtype), (self._edge(u, edge), state)

    def _edge(self, u: Tensor, edge: Tensor | None) -> Tensor:
        """The last three inputs in scan order, also when the segment itself is shorter."""
        if edge is None:
            edge = u.new_zeros(u.shape[0], CONV - 1, u.shape[2])
        if self.reverse:
            return torch.cat((u[:, : CONV - 1], edge), 1)[:, : CONV - 1]
        return torch.cat((edge, u[:, 1 - CONV :]), 1)[:, 1 - CONV :]


class Mamba(nn.Module):
    """Both scans and the projections they share."""

    def __init__(self, width: int, expand: int, head_size: int, state: int):
        super().__init__()
        inner = expand * width
        self.split = [inner, inner + 2 * state, inner // head_size]  # z, u, dt
        self.in_proj, self.out_proj = linear(width, sum(self.split), False), linear(inner, width, False)
        self.mamba_scans = nn.ModuleList(Scan(inner, head_size, state, reverse) for reverse in (False, True))


class MambaBlock(nn.Module):
    """x + out_proj(forward scan + backward scan) of the normed x, over the whole sequence."""

    def __init__(self, width: int, expand: int = 2, head_size: int = 64, state: int = 256):
        super().__init__()
        self.norm, self.mamba = RMSNorm(width), Mamba(width, expand, head_size, state)

    def forward(self, x: Tensor, schedule: Schedule) -> Tensor:
        """[B, L, D] to [B, L, D], exactly the same for any segment size.

        Segments go left to right for the forward scan, whose outputs are kept, then right to left for the backward
        scan, each finished at once. Projections are computed again on the way back: holding them would cost more.
        """
        ahead, behind = self.mamba.mamba_scans
        spans = schedule.spans(x.shape[1])
        kept, carried = [], (None, None)
        for span in spans:
            projected = self.project(x[:, span])
            y, carried = ahead(*projected, carried, schedule)
            kept.append(y)
        parts, carried = [], (None, None)
        for span in reversed(spans):
            if span is not spans[-1]:  # the last segment's projections are still at hand
                projected = self.project(x[:, span])
            y, carried = behind(*projected, carried, schedule)
            parts.append(x[:, span] + self.mamba.out_proj(kept.pop() + y))
        return torch.cat(parts[::-1], 1)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Gate z, scan input u and steps dt of some tokens [B, l, D]."""
        return self.mamba.in_proj(self.norm(x)).split(self.mamba.split, -1)

"""GEN3C's transformer: diffusers' Cosmos 7B network, corrected to the released one's numbers and made memory-lean."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from diffusers import CacheMixin, CosmosTransformer3DModel, FirstBlockCacheConfig
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.transformers.transformer_cosmos import CosmosTransformerBlock
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...kernels_glue.attention import SPARSE, attention
from ...kernels_glue.quantised import BITS, linear, norm_rows
from ...kernels_glue.registry import KernelUnavailable
from ...kernels_glue.tokens import EPSILON, norm_rotate, residual_norm
from ..callbacks import OnStep, no_progress, part
from ..configs import CHANNELS, TEACHER_INPUTS, TeacherConfig
from .eight_bit import Linears, Rows, example, to_eight_bits
from .rope import STRETCH, Grid, RotaryTables
from .sampler import Branch
from .tokens import by_rows, can_tile, in_rows, in_tiles, weight_of


def project(layer: nn.Module, norm: nn.RMSNorm, rows: Tensor | Rows, *angles: Tensor) -> Tensor:
    """Normalised and, given cos and sin, rotated heads [B, L, heads, d] of rows [B, L, D]."""
    heads = layer(rows).unflatten(-1, (-1, *norm.normalized_shape))
    return norm_rotate(heads, weight_of(norm, heads), *angles) if angles else norm(heads)


def modulation(norm: Any, sinusoid: Tensor, shared: Tensor) -> Iterable[Tensor]:
    """Shift, scale and gate [B, 1, D] of a branch, by the timestep: diffusers' layer without its norm."""
    made = norm.linear_2(norm.linear_1(norm.activation(sinusoid))) + shared
    return made[:, None].chunk(3, dim=-1)


class AttentionProcessor:
    """Self- or cross-attention with the backend chosen by each call; diffusers' choice is process-wide."""

    def __call__(
        self,
        attn: Any,  # diffusers' Attention
        hidden_states: Tensor | Rows,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        angles: tuple[Tensor, ...] = (),
        backend: str = "auto",
        sinks: int = 0,
    ) -> Tensor:
        """[B, L, D] -> [B, L, D]; ``angles`` are the rotary cos and sin, ``attention_mask`` part of the interface."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        key = project(attn.to_k, attn.norm_k, source, *angles)
        value = attn.to_v(source).unflatten(-1, (attn.heads, -1))
        query = project(attn.to_q, attn.norm_q, hidden_states, *angles)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # [B, heads, L, d]
        out = attention(query, key, value, backend=backend, sinks=sinks).transpose(1, 2).flatten(2)
        return attn.to_out[0](out)


class Block(CosmosTransformerBlock):
    """Self-attention, cross-attention, MLP, each modulated and gated by the timestep (teacher.md 6.3)."""

    linears: Linears = "exact"  # what ``eight_bit`` made of the layers

    def __init__(self, config: TeacherConfig):
        super().__init__(
            num_attention_heads=config.heads,
            attention_head_dim=config.head_dim,
            cross_attention_dim=config.text_dim,
            adaln_lora_dim=config.adaln_rank,
        )
        attentions: tuple[Any, Any] = (self.attn1, self.attn2)
        for attn in attentions:
            attn.set_processor(AttentionProcessor())
            attn.norm_q = nn.RMSNorm(config.head_dim, eps=EPSILON)
            attn.norm_k = nn.RMSNorm(config.head_dim, eps=EPSILON)

    def forward(
        self,
        hidden_states: Tensor,  # [B, L, D]; the step cache finds it by this name
        text: Tensor,  # [B, M, text_dim]; no rows are as good as zeros, to which attention adds nothing
        sinusoid: Tensor,  # [B, D] normalised timestep embedding
        shared: Tensor,  # [B, 3 D] part that all modulations share
        angles: tuple[Tensor, Tensor],
        positions: Tensor,  # [1, L, D]
        backend: str,
        sinks: int,  # of how many tokens self-attention may leave none out
    ) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        shift, scale, gate = modulation(self.norm1, sinusoid, shared)
        x, y = self.between(hidden_states, shift, scale, add=positions)
        y = self.attn1(y, angles=angles, backend=backend, sinks=sinks)
        if text.shape[1]:
            shift, scale, after = modulation(self.norm2, sinusoid, shared)
            x, y = self.between(x, shift, scale, add=y, gate=gate)
            y, gate = self.attn2(y, encoder_hidden_states=text), after
        shift, scale, last = modulation(self.norm3, sinusoid, shared)
        x, y = self.between(x, shift, scale, add=y, gate=gate)
        if isinstance(y, Rows):
            return by_rows(lambda x, *rows: torch.addcmul(x, last, self.ff(Rows(*rows))), x, *y)
        return by_rows(lambda x, y: torch.addcmul(x, last, self.ff(y)), x, y)

    def between(
        self, x: Tensor, shift: Tensor, scale: Tensor, *, add: Tensor, gate: Tensor | None = None
    ) -> tuple[Tensor, Tensor | Rows]:
        """The end of one branch and the beginning of the next, in 8 bits where its products are."""
        if self.linears == "exact":
            return residual_norm(x, shift, scale, add=add, gate=gate)
        x, *rows = norm_rows(x, shift, scale, BITS[self.linears], add=add, gate=gate)
        return x, Rows(*rows)


class GEN3C(CosmosTransformer3DModel, CacheMixin):
    """The denoising network F of teacher.md 6, with the padding mask as an ordinary input channel."""

    _tiled = False  # whether the tokens of the last pass stood in tiles

    def __init__(self, config: TeacherConfig):
        super().__init__(
            in_channels=TEACHER_INPUTS + 1,
            out_channels=CHANNELS,
            num_attention_heads=config.heads,
            attention_head_dim=config.head_dim,
            num_layers=0,
            text_embed_dim=config.text_dim,
            adaln_lora_dim=config.adaln_rank,
            max_size=config.max_grid,
            rope_scale=STRETCH,
            concat_padding_mask=False,
        )
        self.rope = RotaryTables(config.head_dim, torch.bfloat16 if config.bf16_angles else torch.float32)
        embed: Any = self.time_embed
        embed.norm = nn.RMSNorm(config.heads * config.head_dim, eps=EPSILON)  # one kind of norm everywhere
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))

    @part("pass of the teacher")
    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        text: Tensor,
        branch: Branch = "cond",
        *,
        fps: float = 24.0,
        padding_mask: Tensor | None = None,
        backend: str = "auto",
        on_block: OnStep = no_progress,
    ) -> Tensor:
        """Network output [B, 16, T, h, w] of x [B, 81, T, h, w] = [scaled state | condition mask | warps].

        ``c_noise`` [B] = ln(sigma) / 4, ``text`` [B, M, text_dim] (M 0 for none), ``padding_mask`` [1, 1, H, W] at any
        size (zeros by default), ``backend`` of kernels_glue.attention. ``branch`` keeps the step caches of the two
        guidance branches apart. ``on_block`` is called when a block has been computed, on the device too, and may
        raise.
        """
        grid = self._token_grid(x)
        x = torch.cat((x, self._padding_channel(x, padding_mask)), dim=1)
        angles = self.rope(grid, fps, x.device)
        positions = self.position_embedding(grid, x.device).to(x.dtype)
        x = self.patch_embed(x).flatten(1, 3)  # [B, L, D]
        tiled = backend in SPARSE and can_tile(grid)
        if tiled:
            angles = tuple(in_tiles(table, grid) for table in angles)
            x, positions = in_tiles(x, grid), in_tiles(positions, grid)
        if self.is_cache_enabled and tiled != self._tiled:  # what it keeps is of tokens in the other order
            self._reset_stateful_cache()
        self._tiled = tiled
        sinks = grid[1] * grid[2]  # the first frame, which is given
        shared, sinusoid = self.time_embed(x, c_noise)
        with self.cache_context(branch) if self.is_cache_enabled else nullcontext():
            for done, block in enumerate(self.transformer_blocks, start=1):
                x = block(x, text, sinusoid, shared, angles, positions, backend, sinks)
                if on_block is not no_progress:
                    if x.is_cuda:  # kernels are queued far ahead: without waiting, a cancelled run would still finish
                        torch.cuda.current_stream(x.device).synchronize()
                    on_block(done, len(self.transformer_blocks))
        x = in_rows(x, grid) if tiled else x
        x = self.proj_out(self.norm_out(x, sinusoid, shared))
        t, h, w = grid  # the output patch is (h, w, channel), the input patch (channel, h, w)
        return rearrange(x, "b (t h w) (p q c) -> b c t (h p) (w q)", t=t, h=h, w=w, p=2, q=2)

    @property
    def linears(self) -> Linears:
        """What the blocks' products are computed in."""
        first: Any = self.transformer_blocks[0]
        return first.linears

    def use_linears(self, linears: Linears, device: torch.device | None = None) -> None:
        """Take the blocks' products in 8 bits from now on: their weights are replaced, to half of their memory.

        They stay where they are; ``device``, by default the same, quantises them and will compute.

        Raises KernelUnavailable where the card cannot, and ValueError where they have been replaced by others.
        """
        if linears == self.linears:
            return
        if self.linears != "exact" or linears == "exact":
            raise ValueError(f"linears {linears}: this teacher's weights have been made {self.linears}; load it again")
        weight = self.proj_out.weight
        device = device or weight.device
        if reason := linear.why_not(linears, *example(weight.shape[1], weight.dtype, device)):
            raise KernelUnavailable(f"linears {linears} cannot run here: {reason}; use exact")
        to_eight_bits(self.transformer_blocks, linears, device)

    def compile_blocks(self) -> None:
        """Have torch compile each block when it runs first, which takes a while: 23 s on an H200."""
        for block in self.transformer_blocks:
            block.compile(dynamic=False)

    def position_embedding(self, grid: Grid, device: torch.device) -> Tensor:
        """Learned positions [1, L, D], float32: the sum of three tables over its root mean square (teacher.md 6.3).

        Made once a forward pass and not kept: it depends on weights, takes 880 MiB at full size and a few ms. The
        tables, 3 MB, are no layer: a host that streams layers leaves them where they are.
        """
        learned: Any = self.learnable_pos_embed
        tables = (learned.pos_emb_t, learned.pos_emb_h, learned.pos_emb_w)
        t, h, w = (table[:count].to(device, torch.float32) for table, count in zip(tables, grid, strict=True))
        total = (t[:, None, None] + h[None, :, None] + w[None, None]).flatten(0, 2)[None]
        rms = torch.linalg.vector_norm(total, dim=-1, keepdim=True) / total.shape[-1] ** 0.5
        return total / (EPSILON + rms)

    @contextmanager
    def step_cache(self, threshold: float) -> Iterator[None]:
        """Skip the later blocks of a pass while the first block's change stays within ``threshold`` of its last.

        First-block caching of diffusers, for one clip: the remembered tensors (6 hidden states) go when it ends.
        """
        TransformerBlockRegistry.register(Block, TransformerBlockMetadata(return_hidden_states_index=0))
        self.enable_cache(FirstBlockCacheConfig(threshold=threshold))
        try:
            yield
        finally:
            self._reset_stateful_cache()  # now: removed hooks hold each other in circles, and their tensors with them
            self.disable_cache()

    def _token_grid(self, x: Tensor) -> Grid:
        """Tokens along T, h, w of an input [B, 81, T, h, w], or why it does not fit."""
        if x.ndim != 5 or x.shape[1] != TEACHER_INPUTS:
            raise ValueError(f"GEN3C: expected [B {TEACHER_INPUTS} T h w] (state, mask, warps), got {tuple(x.shape)}")
        t, h, w = x.shape[2:]
        limit = tuple(self.config["max_size"])
        if h % 2 or w % 2 or any(n > most for n, most in zip((t, h, w), limit, strict=True)):
            raise ValueError(
                f"GEN3C: latent grid (T, h, w) = {(t, h, w)}; h and w must be even and at most {limit}: use clips "
                "whose sides are multiples of 16, at the trained size"
            )
        return t, h // 2, w // 2

    def _padding_channel(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """[B, 1, T, h, w] of a mask at pixel size, sampled nearest; zeros where everything is picture."""
        if padding_mask is None:
            return x.new_zeros(len(x), 1, *x.shape[2:])
        mask = interpolate(padding_mask.to(x), size=x.shape[-2:], mode="nearest")
        return mask[:, :, None].expand(len(x), -1, *x.shape[2:])


def build(config: TeacherConfig) -> GEN3C:
    """The network without weights, on ``meta``, for ``load_weights``."""
    with torch.device("meta"):
        return GEN3C(config)

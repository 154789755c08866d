"""GEN3C's network on core's Cosmos transformer: the trained rotary tables, and blocks with bounded temporaries.

Names of weights are the released ones, so LoRAs, quantised files and core's patches apply. The shell's network is
``comfyui_lyra.gen3c.dit``; a test holds both to 2e-5.
"""

from collections.abc import Callable
from functools import partial

import torch
from comfy.ldm.cosmos.blocks import Attention, GeneralDITTransformerBlock
from comfy.ldm.cosmos.model import GeneralDIT
from comfy.ldm.modules import attention as core
from torch import Tensor, nn

from ...comfyui_lyra.configs import CHANNELS, TEACHER_INPUTS, TeacherConfig
from ...comfyui_lyra.gen3c.rope import BASE_FPS, grid_angles
from ...comfyui_lyra.gen3c.tokens import by_rows, can_tile, in_rows, in_tiles, weight_of
from ...kernels_glue.attention import SPARSE, attention
from ...kernels_glue.tokens import norm_rotate, residual_norm

# of transformer_options: Load Teacher's choice, who counts blocks, what steps share, tokens along T, h, w
ATTENTION, ON_BLOCK, STEP_CACHE, GRID = "gen3c_attention", "gen3c_on_block", "gen3c_step_cache", "gen3c_grid"
EXACT = "gen3c_exact"  # whoever asks: attention is ours, also where ComfyUI was started with another
OVERRIDE = "optimized_attention_override"  # what core's nodes choose attention by
ITS_OWN = ("pytorch", "sub_quad", "xformers")  # attention that core takes where nobody chose one


def unet_config(config: TeacherConfig) -> dict:
    """What core's class is made with for a teacher."""
    frames, height, width = config.max_grid
    return {
        "image_model": "cosmos", "in_channels": TEACHER_INPUTS, "out_channels": CHANNELS,
        "max_img_h": height, "max_img_w": width, "max_frames": frames, "patch_spatial": 2, "patch_temporal": 1,
        "model_channels": config.heads * config.head_dim, "num_blocks": config.blocks, "num_heads": config.heads,
        "block_config": "FA-CA-MLP", "block_x_format": "THWBD", "concat_padding_mask": True,
        "crossattn_emb_channels": config.text_dim, "affline_emb_norm": True,
        "use_adaln_lora": True, "adaln_lora_dim": config.adaln_rank,
        "pos_emb_cls": "rope3d", "pos_emb_learnable": False, "pos_emb_interpolation": "crop",
        "rope_h_extrapolation_ratio": 1.0, "rope_w_extrapolation_ratio": 1.0, "rope_t_extrapolation_ratio": 2.0,
        "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
        "bf16_angles": config.bf16_angles,
    }  # fmt: skip


class RotaryFormat(nn.Module):
    """The trained angles as core's rotary table, for the grid last asked for; no parameters."""

    def __init__(self, head_dim: int, dtype: torch.dtype):
        super().__init__()
        self.head_dim, self.dtype = head_dim, dtype
        self._key: tuple | None = None
        self._table: Tensor | None = None

    def forward(self, x: Tensor, fps: Tensor | float | None = None, device: torch.device | None = None) -> Tensor:
        """[T h w, head_dim/2, 2, 2] = (cos, -sin, sin, cos) for tokens x [B, T, h, w, D] (teacher.md 6.4)."""
        rate = BASE_FPS if fps is None else float(fps)
        key = (tuple(x.shape[1:4]), rate, device)
        if self._table is None or key != self._key:
            with torch.inference_mode(False):
                angles = grid_angles(key[0], self.head_dim, rate, self.dtype)
                cos, sin = angles.cos(), angles.sin()
                table = torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))
                self._key, self._table = key, table.to(device)
        return self._table


class LeanAttention(Attention):
    """Core's attention on tokens [B, L, D]: q and k are normalised and rotated in one pass, without float32 copies."""

    def heads_of(self, layers: nn.Sequential, tokens: Tensor, angles: tuple[Tensor, ...]) -> Tensor:
        """Heads [B, L, heads, d] of tokens [B, L, D], normalised, and rotated where there are angles."""
        heads = layers[0](tokens).unflatten(-1, (self.heads, self.dim_head))
        return norm_rotate(heads, weight_of(layers[1], heads), *angles) if angles else layers[1](heads)

    def forward(self, x: Tensor, context: Tensor | None = None, angles: tuple[Tensor, ...] = (), *, options):
        """[B, L, D] -> [B, L, D]; ``context`` [B, M, text_dim], ``angles`` cos and sin [1, L, 1, d/2]."""
        source = x if context is None else context
        key = self.heads_of(self.to_k, source, angles).transpose(1, 2)
        value = self.heads_of(self.to_v, source, ()).transpose(1, 2)
        query = self.heads_of(self.to_q, x, angles).transpose(1, 2)
        out = attend(query, key, value, options)
        del query, key, value
        return self.to_out(out.transpose(1, 2).flatten(2))


class LeanBlock(GeneralDITTransformerBlock):
    """Core's block on tokens [B, L, D], with one pass over memory between its products, as the shell's."""

    def forward(self, x, add, emb, shared, text, angles, options) -> Tensor:
        """[B, L, D] -> [B, L, D]; ``add`` [B or 1, L, D] are positions, ``emb`` [B, D], ``shared`` [B, 3 D]."""
        attention, cross, mlp = self.blocks
        (shift, scale, gate), (shift2, scale2, gate2), (shift3, scale3, gate3) = (
            (part.adaLN_modulation(emb) + shared)[:, None].chunk(3, dim=-1) for part in self.blocks
        )
        x, y = residual_norm(x, shift, scale, add=add)
        y = attention.block.attn(y, angles=angles, options=options)
        if text.shape[1]:  # else there is none: zeros would add nothing
            x, y = residual_norm(x, shift2, scale2, add=y, gate=gate)
            y, gate = cross.block.attn(y, context=text, options=options), gate2
        x, y = residual_norm(x, shift3, scale3, add=y, gate=gate)
        return by_rows(lambda x, y: torch.addcmul(x, gate3, mlp.block(y)), x, y)


LEAN = {Attention: LeanAttention, GeneralDITTransformerBlock: LeanBlock}


def attend(query: Tensor, key: Tensor, value: Tensor, options: dict) -> Tensor:
    """Attention [B, heads, L, d] by what a node chose, else by Load Teacher's choice, else by our fastest exact one.

    Core's own choice stays where ComfyUI was started with one, but not in Generate Latents, and where a compiler looks.
    """
    backend = options.get(ATTENTION, "auto")
    if OVERRIDE not in options and (backend != "auto" or is_free(options.get(EXACT, False))):
        options = {**options, OVERRIDE: partial(ours, options)}
    return core.optimized_attention(
        query, key, value, query.shape[1], skip_reshape=True, skip_output_reshape=True,
        transformer_options=options,
    )  # fmt: skip


def is_free(exact: bool) -> bool:
    """Whether nobody chose an attention for core, or it does not count."""
    taken = (core.get_attention_function(name, None) for name in ITS_OWN)
    return (exact or core.optimized_attention in taken) and not torch.compiler.is_compiling()


def ours(options: dict, _core: Callable, query: Tensor, key: Tensor, value: Tensor, _heads: int, **__) -> Tensor:
    """Attention by ``kernels_glue``; an override as core calls it. Sparse kernels get neighbours beside each other."""
    backend, grid = options.get(ATTENTION, "auto"), options.get(GRID)
    if backend not in SPARSE:
        return attention(query, key, value, backend=backend)
    if query.shape[2] != key.shape[2]:  # to the text, for which they are not made
        return attention(query, key, value)
    sinks = grid[1] * grid[2] if grid else 0
    if grid is None or not can_tile(grid):
        return attention(query, key, value, backend=backend, sinks=sinks)
    tiled = (in_tiles(x.flatten(0, 1), grid).unflatten(0, x.shape[:2]) for x in (query, key, value))
    out = attention(*tiled, backend=backend, sinks=sinks)
    return in_rows(out.flatten(0, 1), grid).unflatten(0, out.shape[:2])


class StepCache:
    """First-block caching: a pass whose first block changes little since the last whole pass takes over its others.

    One for each branch of guidance; it keeps two hidden states.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold  # of the first block's relative change
        self._first: Tensor | None = None
        self._others: Tensor | None = None
        self.skipped = 0

    def others(self, first: Tensor) -> Tensor | None:
        """What the other blocks added to the last whole pass, where ``first``, what block 0 adds, is near enough."""
        if self._first is not None:
            change = (first - self._first).abs().mean() / self._first.abs().mean()
            if change.item() <= self.threshold:
                self.skipped += 1
                return self._others
        self._first = first
        return None

    def keep(self, others: Tensor) -> None:
        """Remember what the other blocks added."""
        self._others = others


class GEN3CDiT(GeneralDIT):
    """Core's Cosmos transformer with GEN3C's rotary tables; ``lean`` blocks give core's values in less memory."""

    def __init__(self, *, bf16_angles: bool = True, lean: bool = True, **config):
        super().__init__(**config)
        dtype = torch.bfloat16 if bf16_angles else torch.float32
        self.pos_embedder = RotaryFormat(self.model_channels // self.num_heads, dtype)
        self.lean = lean
        for layer in self.modules() if lean else ():
            if kind := LEAN.get(type(layer)):
                layer.__class__ = kind

    def _forward(
        self, x, timesteps, context, attention_mask=None, fps=None, image_size=None, padding_mask=None, *_,
        transformer_options=None, **__,
    ):  # fmt: skip
        """F [B, 16, T, h, w] of x [B, 81, T, h, w], timesteps [B] = ln(sigma) / 4 and context [B, M, text_dim].

        The padding mask is a channel that core adds; the rows of zeros of a text take part, so no mask is used.
        """
        if not self.lean:
            return super()._forward(x, timesteps, context, attention_mask, fps, image_size, padding_mask,
                                    transformer_options=transformer_options or {})  # fmt: skip
        given = self.forward_before_blocks(
            x=x, timesteps=timesteps, crossattn_emb=context, fps=fps, padding_mask=padding_mask
        )
        emb, shared, table = (given[name] for name in ("affline_emb_B_D", "adaln_lora_B_3D", "rope_emb_L_1_1_D"))
        state, positions = given.pop("x"), given.pop("extra_pos_emb_B_T_H_W_D_or_T_H_W_B_D")  # [T, h, w, B, D]
        grid = tuple(state.shape[:3])
        options = {**(transformer_options or {}), GRID: grid}
        angles = tuple(table[None, :, None, :, row, 0].contiguous() for row in (0, 1))
        text = given["crossattn_emb"].transpose(0, 1)
        run = partial(self.through_blocks, emb=emb, shared=shared, text=text, angles=angles, options=options)
        state = run(tokens_of(state), tokens_of(positions[..., :1, :]).to(x.dtype))
        state = state.unflatten(1, grid)
        return self.decoder_head(state, emb, None, given["original_shape"], adaln_lora_B_3D=shared)

    def through_blocks(self, state: Tensor, positions: Tensor, options: dict, **given) -> Tensor:
        """The hidden state [B, L, D] behind all blocks, each of which is shown the positions [1, L, D] too."""
        cache, on_block = options.get(STEP_CACHE), options.get(ON_BLOCK)
        blocks, first = list(self.blocks.values()), None
        for done, block in enumerate(blocks, start=1):
            before, state = state, block(state, positions, options=options, **given)
            if on_block is not None:
                if state.is_cuda:  # kernels are queued far ahead: without waiting, a cancelled run would still finish
                    torch.cuda.current_stream(state.device).synchronize()
                on_block(done, len(blocks))
            if cache is not None and done == 1:
                first = state
                if (others := cache.others(first - before)) is not None:
                    return first + others
            del before
        if cache is not None:
            cache.keep(state - first)
        return state


def tokens_of(state: Tensor) -> Tensor:
    """[B, L, D] of core's [T, h, w, B, D], one after another."""
    return state.flatten(0, 2).transpose(0, 1).contiguous()

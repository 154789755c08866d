"""The splat decoder: latents and Pluecker latents of several videos, as one token sequence, to Gaussians."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..callbacks import OnStep, no_progress, part
from ..configs import COMPRESSION, PATCH, ReconConfig
from ..splats.gaussians import Gaussians, concatenate
from ..splats.pruning import most_opaque
from .blocks import AttentionBlock, PatchEmbed
from .heads import OPACITY, RAW, gaussians, opacity, upsample
from .inputs import ReconInputs
from .mamba import MambaBlock
from .schedule import DEFAULT, Schedule


class Recon(nn.Module):
    """Lyra's splat decoder; module names are those of the released files."""

    def __init__(self, config: ReconConfig):
        super().__init__()
        self.config, width = config, config.width
        channels, step = config.latent_channels, PATCH * COMPRESSION // config.pixels_per_splat
        self.patch_embed = PatchEmbed(channels, width)
        self.patch_plucker_embed = PatchEmbed(2 * channels, width, zero=True)
        self.patch_time_embed = PatchEmbed(channels, width, zero=True)  # held by static models too, unused
        self.patch_time_embed_tgt = PatchEmbed(channels, width, zero=True)
        self.enc_blocks = nn.ModuleList(
            AttentionBlock(width, config.heads, config.mlp_ratio, config.qk_norm)
            if (i + 1) % config.attention_every == 0
            else MambaBlock(width, config.expand, config.head_size, config.state)
            for i in range(config.blocks)
        )
        self.enc_norm = nn.LayerNorm(width, eps=1e-6)
        self.deconv = nn.ConvTranspose3d(
            width, RAW, (COMPRESSION + 1, step, step), (COMPRESSION, step, step), (4, 0, 0)
        )

    @part("splat decoder")
    def forward(
        self,
        inputs: ReconInputs,
        *,
        keep: float | None = None,
        schedule: Schedule = DEFAULT,
        on_step: OnStep = no_progress,
    ) -> tuple[Gaussians, ...]:
        """Gaussians of each scene: the share ``keep`` (the config's if None), most opaque first.

        With ``keep`` 1 nothing is dropped, in the order view, frame, row, column. ``on_step`` counts blocks.
        """
        x = self.embed(inputs)
        for i, block in enumerate(self.enc_blocks):
            if schedule.checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, schedule, use_reentrant=False)
            else:
                x = block(x, schedule)
            on_step(i + 1, len(self.enc_blocks))
        return self.splats(x, inputs, keep, schedule)

    def embed(self, inputs: ReconInputs) -> Tensor:
        """Tokens [B, V T h/2 w/2, D]: images (+ frame times + bullet time) + Pluecker, added in this order."""
        views, frames = inputs.latents.shape[1], inputs.latents.shape[3]
        if self.config.dynamic:
            if inputs.time_source is None or inputs.time_target is None:
                raise ValueError("a dynamic splat decoder needs time_source and time_target")
            source = self.patch_time_embed(inputs.time_source)
            target = self.patch_time_embed_tgt(inputs.time_target).repeat(1, frames, 1)
        parts = []
        for view in range(views):
            x = self.patch_embed(inputs.latents[:, view])
            if self.config.dynamic:
                x = x + source + target
            parts.append(x + self.patch_plucker_embed(inputs.plucker[:, view]))
        return torch.cat(parts, 1)

    def splats(self, x: Tensor, inputs: ReconInputs, keep: float | None, schedule: Schedule) -> tuple[Gaussians, ...]:
        """Gaussians of each scene from the trunk's output [B, L, D].

        Opacity is computed first, for all; the other channels view by view, and kept for the chosen splats only.
        """
        _, views, _, frames, height, width = inputs.latents.shape
        grid = (views, frames, height // PATCH, width // PATCH)
        share = self.config.keep if keep is None else keep
        return tuple(
            self._scene(features.unflatten(0, grid), origins, directions, share, schedule)
            for features, origins, directions in zip(x, inputs.origins, inputs.directions, strict=True)
        )

    def _scene(
        self, features: Tensor, origins: Tensor, directions: Tensor, keep: float, schedule: Schedule
    ) -> Gaussians:
        """One scene: features [V, T, h/2, w/2, D], origins [V, F, 3], directions [V, F, 3, h', w']."""
        at_once = max(1, schedule.segment // features[0, ..., 0].numel())
        spans = [slice(start, start + at_once) for start in range(0, len(features), at_once)]
        if keep == 1:
            return concatenate([self._views(features[s], origins[s], directions[s], slice(None)) for s in spans])
        rows = most_opaque(torch.cat([opacity(self.raw(features[s], OPACITY)).flatten() for s in spans]), keep)
        size, parts, places = at_once * directions[0, :, 0].numel(), [], []
        for i, span in enumerate(spans):
            place = (rows // size == i).nonzero()[:, 0]
            parts.append(self._views(features[span], origins[span], directions[span], rows[place] - i * size))
            places.append(place)
        return concatenate(parts)[torch.cat(places).argsort()]

    def _views(self, features: Tensor, origins: Tensor, directions: Tensor, rows: Tensor | slice) -> Gaussians:
        """Some rows of some views' splats."""
        raw = self.raw(features, slice(None)).flatten(0, 3)[rows]
        rays = (
            origins[..., None, None].expand_as(directions).movedim(2, -1).flatten(0, 3)[rows],
            directions.movedim(2, -1).flatten(0, 3)[rows],
        )
        config = self.config
        return gaussians(
            raw, *(ray.to(raw) for ray in rays),
            near=config.near, far=config.far, shift=config.distance_shift, cap=config.scale_cap,
        )  # fmt: skip

    def raw(self, features: Tensor, channels: slice) -> Tensor:
        """Raw channels [V, F, h', w', c]; in float32 when positions must not be rounded to the model's dtype."""
        weight, bias = self.deconv.weight, self.deconv.bias
        assert bias is not None
        raw = upsample(self.enc_norm(features), weight[:, channels], bias[channels])
        return raw if self.config.bf16_rays else raw.to(torch.promote_types(raw.dtype, torch.float32))

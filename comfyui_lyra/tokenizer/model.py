"""The Cosmos CV8x8x8 tokenizer: diffusers' network, the released files, memory that does not grow with the clip."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..callbacks import part
from ..configs import COMPRESSION, TOKENIZER_PRESETS, TokenizerConfig
from ..weights.checkpoints.parts import parts_of
from ..weights.checkpoints.quantised import Scaled
from ..weights.load import (
    fingerprint,
    known_fingerprint,
    load_weights,
    remember_fingerprint,
    save_weights,
    stored_config,
)
from .files import files_of, read_statistics, read_weights, statistics_files, statistics_of
from .keys import rules
from .streaming import CHUNK, HAAR_LEVELS, Past, decode_frames, encode_frames, latent_chunks


def build_autoencoder(config: TokenizerConfig, device: torch.device | str = "cpu") -> nn.Module:
    """The network, diffusers' AutoencoderKLCosmos, with random weights; on ``meta`` with none."""
    # deferred: importing diffusers takes seconds, which ComfyUI would spend at its start
    from diffusers.models.autoencoders.autoencoder_kl_cosmos import (
        AutoencoderKLCosmos,
        CosmosPatchEmbed3d,
        CosmosUnpatcher3d,
    )

    widths = [config.channels * multiplier for multiplier in config.multipliers]
    with torch.device(device):
        autoencoder = AutoencoderKLCosmos(
            latent_channels=config.latent_channels,
            encoder_block_out_channels=(config.channels, *widths),
            decode_block_out_channels=(*widths, widths[-1]),
            num_layers=config.layers,
            patch_size=2**HAAR_LEVELS,
            spatial_compression_ratio=COMPRESSION,
            temporal_compression_ratio=COMPRESSION,
        )
    # the wavelets are constants, in no checkpoint: real also on meta
    autoencoder.encoder.patch_embed = CosmosPatchEmbed3d(2**HAAR_LEVELS, "haar")
    autoencoder.decoder.unpatch_embed = CosmosUnpatcher3d(2**HAAR_LEVELS, "haar")
    return autoencoder.eval()


class CosmosTokenizer(nn.Module):
    """Video autoencoder with 8 x 8 x 8 compression (see ``protocol.Tokenizer``), a few frames at a time."""

    def __init__(
        self, config: TokenizerConfig, autoencoder: nn.Module, mean: Tensor, std: Tensor, name: str | None = None
    ):
        """``name`` is the fingerprint of weights and statistics, where it is known; computing it reads them all."""
        super().__init__()
        if mean.shape != std.shape or mean.ndim != 2 or mean.shape[0] != config.latent_channels:
            raise ValueError(
                f"tokenizer statistics: mean {tuple(mean.shape)} and std {tuple(std.shape)}, expected "
                f"[{config.latent_channels} T] each"
            )
        self.config, self.autoencoder = config, autoencoder
        self.mean, self.std = mean, std  # [C, T]; no buffers: a cast of the weights must not round them
        self.latent_channels, self.family = config.latent_channels, config.family
        self.time_compression = self.space_compression = COMPRESSION
        self.fingerprint = name or fingerprint(autoencoder.state_dict() | {"mean": mean, "std": std})

    @property
    def identity(self) -> str:
        """Hash of the weights as loaded, and the precision they run in."""
        return f"{self.fingerprint}-{str(self._weight.dtype).removeprefix('torch.')}"

    @property
    def _weight(self) -> Tensor:
        return self.autoencoder.quant_conv.weight

    @part("encode")
    @torch.no_grad()  # not inference_mode: training the splat decoder keeps latents for its backward pass
    def encode(self, video: Tensor) -> Tensor:
        """Raw latents [B, C, T, h, w] of a video [B, 3, F, H, W], F = 8 (T - 1) + 1, H = 8 h, W = 8 w; never clamped.

        Frames go to the weights' device a few at a time; the latents lie where the video does.
        """
        if video.ndim != 5 or video.shape[1] != 3:
            raise ValueError(f"video: expected [B 3 F H W], got {tuple(video.shape)}")
        frames, height, width = video.shape[2:]
        if frames % COMPRESSION != 1:
            raise ValueError(f"video of {frames} frames; the tokenizer takes 1, 9, 17, ... (8 n + 1), such as 121")
        if height % COMPRESSION or width % COMPRESSION:
            raise ValueError(f"video of {width}x{height}; the tokenizer takes multiples of 8, such as 1280x704")
        latents = frames // COMPRESSION + 1
        shape = self.latent_channels, latents, height // COMPRESSION, width // COMPRESSION
        found = video.new_empty(video.shape[0], *shape, dtype=self._weight.dtype)
        for source, target in zip(video, found, strict=True):
            past = Past()
            for some, frames in latent_chunks(latents):
                chunk = source[:, frames].transpose(0, 1).to(self._weight.device)
                target[:, some] = encode_frames(self.autoencoder, chunk, past).transpose(0, 1)
        return found

    @part("decode")
    @torch.no_grad()
    def decode(self, latents: Tensor, at_once: int = CHUNK) -> Tensor:
        """Video [B, 3, F, H, W], about [-1, 1] and not clamped, of raw latents [B, C, T, h, w].

        Latents go to the weights' device ``at_once`` at a time; the video lies where the latents do.
        """
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels or not latents.shape[2]:
            raise ValueError(f"latents: expected [B {self.latent_channels} T h w], got {tuple(latents.shape)}")
        count, height, width = latents.shape[2:]
        shape = 3, COMPRESSION * (count - 1) + 1, COMPRESSION * height, COMPRESSION * width
        video = latents.new_empty(latents.shape[0], *shape, dtype=self._weight.dtype)
        for source, target in zip(latents, video, strict=True):
            past = Past()
            for some, frames in latent_chunks(count, at_once):
                chunk = source[:, some].transpose(0, 1).to(self._weight.device)
                target[:, frames] = decode_frames(self.autoencoder, chunk, past).transpose(0, 1)
        return video


def to_uint8(video: Tensor) -> Tensor:
    """Pictures [F, H, W, 3] in 0..255 of one decoded video [3, F, H, W], truncated (teacher.md 9)."""
    return ((1 + video).clamp(0, 2) / 2 * 255).to(torch.uint8).permute(1, 2, 3, 0)


def load_tokenizer(
    *files: Path, mean_std: Path | None = None, config: TokenizerConfig | None = None
) -> CosmosTokenizer:
    """Tokenizer from its files in any form: see ``checkpoints.state.read_state``.

    NVIDIA's model.pt, autoencoder.jit, or encoder.jit with the decoder.jit beside it (their tensors are read, their
    programs are not run), ComfyUI's cosmos_cv8x8x8_1.0.safetensors, diffusers' folder, ours; a folder of them; an
    encoder's and a decoder's file. Statistics not in the file come from ``mean_std``, by default from mean_std.pt or
    diffusers' config.json beside the first file. ``config`` is by default what the file says of itself; one that says
    nothing is of the released size.
    """
    chosen = files_of(files)
    config = config or stored_config(chosen[0], TokenizerConfig) or TOKENIZER_PRESETS["lyra"]
    state, statistics = read_weights(chosen)
    autoencoder = load_autoencoder(config, state, " + ".join(file.name for file in chosen))
    sources = [part for file in chosen for part in parts_of(file)]
    if mean_std and not statistics:
        statistics, sources = read_statistics(mean_std, config.latent_channels), [*sources, mean_std]
    else:
        sources += [] if statistics else statistics_files(chosen[0])
        statistics = statistics_of(statistics, chosen[0], config.latent_channels)
    known = known_fingerprint(sources)
    tokenizer = CosmosTokenizer(config, autoencoder, *statistics, known)
    if known is None:
        remember_fingerprint(sources, tokenizer.fingerprint)
    return tokenizer


def load_autoencoder(config: TokenizerConfig, state: Mapping[str, Tensor | Scaled], source: str) -> nn.Module:
    """The network with the weights of ``state``, in the names of the release or of diffusers."""
    return load_weights(build_autoencoder(config, "meta"), state, rules(len(config.multipliers)), source)


def save_tokenizer(tokenizer: CosmosTokenizer, file: Path, licence: str = "") -> None:
    """One safetensors file with weights, statistics, configuration, family and licence, for ``load_tokenizer``."""
    state = tokenizer.autoencoder.state_dict() | {"mean": tokenizer.mean, "std": tokenizer.std}
    save_weights(file, state, tokenizer.config, licence)

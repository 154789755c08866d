"""Many short clips through the tokenizer at once, with gradients where they are wanted.

``CosmosTokenizer`` takes one clip a few frames at a time, which bounds memory; clips of mini size fit by the hundred.
The layers are the same functions. Large clips go its way here too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ....kernels_glue.devices import by_device
from ...configs import COMPRESSION
from ...latents import VideoLatents
from ...tokenizer.clips import statistics
from ...tokenizer.model import CosmosTokenizer
from ...tokenizer.streaming import Past, decode_frames, encode_frames
from ..world.filming import is_large

AT_ONCE = {"cpu": 4, "cuda": 96}  # clips of mini size, without gradients


def encode_clips(autoencoder: nn.Module, video: Tensor) -> Tensor:
    """Raw latents [B, C, T, h, w] of whole clips [B, 3, F, H, W], in the precision of the weights."""
    raw = encode_frames(autoencoder, rearrange(video, "b c f h w -> (f b) c h w"), Past(len(video)))
    return rearrange(raw, "(t b) c h w -> b c t h w", b=len(video))


def decode_clips(autoencoder: nn.Module, raw: Tensor) -> Tensor:
    """Whole clips [B, 3, F, H, W], not clamped, of raw latents [B, C, T, h, w]."""
    frames = decode_frames(autoencoder, rearrange(raw, "b c t h w -> (t b) c h w"), Past(len(raw)))
    return rearrange(frames, "(f b) c h w -> b c f h w", b=len(raw))


@torch.inference_mode()
def to_latents(tokenizer: CosmosTokenizer, video: Tensor) -> Tensor:
    """Diffusion-space latents [B, C, T, h, w], float32, of clips [B, 3, F, H, W] in [-1, 1], some at a time."""
    if is_large(*video.shape[2:]):
        raw = tokenizer.encode(video)
    else:
        at_once = by_device(AT_ONCE, video.device)
        raw = torch.cat([encode_clips(tokenizer.autoencoder, some) for some in video.split(at_once)])
    return VideoLatents(values=raw, space="tokenizer").to_diffusion(*statistics(tokenizer, raw)).values


@torch.inference_mode()
def to_frames(tokenizer: CosmosTokenizer, latents: Tensor) -> Tensor:
    """Frames [B, F, H, W, 3] in [0, 1], float32, of diffusion-space latents [B, C, T, h, w], some at a time."""
    raw = VideoLatents(values=latents).to_tokenizer(*statistics(tokenizer, latents)).values
    if is_large(*clip_size(latents)):
        video = tokenizer.decode(raw).float()
    else:
        at_once = by_device(AT_ONCE, latents.device)
        video = torch.cat([decode_clips(tokenizer.autoencoder, some).float() for some in raw.split(at_once)])
    return ((video.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 4, 1)


def clip_size(latents: Tensor) -> tuple[int, int, int]:
    """Frames, height and width of the clips that latents [B, C, T, h, w] stand for."""
    count, height, width = latents.shape[2:]
    return COMPRESSION * (count - 1) + 1, COMPRESSION * height, COMPRESSION * width


def to_video(frames: Tensor) -> Tensor:
    """Clips [B, 3, F, H, W] in [-1, 1] of bytes [B, F, H, W, 3]."""
    return (frames.float() / 127.5 - 1).permute(0, 4, 1, 2, 3)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Only attention kernels that need no plan for each shape: making plans costs short runs more than they save."""
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield

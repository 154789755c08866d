"""Between pictures and latents in diffusion space, whatever the tokenizer."""

import torch
from torch import Tensor

from ..callbacks import CheckFrames
from ..latents import MultiViewLatents, VideoLatents
from ..shapes import plural
from .protocol import Tokenizer
from .streaming import CHUNK


def encode_clip(tokenizer: Tokenizer, video: Tensor) -> Tensor:
    """Latents [B, C, T, h, w] in diffusion space, float32, of a video [B, 3, F, H, W] in [-1, 1]."""
    raw = VideoLatents(values=tokenizer.encode(video), space="tokenizer")
    return raw.to_diffusion(*statistics(tokenizer, raw.values)).values


def decode_clip(tokenizer: Tokenizer, latents: Tensor, chunks: int = 1, at_once: int = CHUNK) -> Tensor:
    """Video [3, F, H, W], about [-1, 1] and not clamped, of one view's latents [C, T, h, w] in diffusion space.

    Of several chunks (see ``MultiViewLatents.chunks``) each is decoded alone and the frame it shares is dropped.
    ``at_once`` latent frames are decoded together.
    """
    if chunks < 1 or latents.shape[1] % chunks:
        raise ValueError(f"{latents.shape[1]} latents do not hold {chunks} chunks; they belong to other cameras")
    parts = []
    for part in latents.chunk(chunks, dim=1):
        raw = VideoLatents(values=part[None]).to_tokenizer(*statistics(tokenizer, part[None])).values
        video = tokenizer.decode(raw, at_once)[0]
        parts.append(video[:, 1:] if parts else video)
    return torch.cat(parts, dim=1)


def statistics(tokenizer: Tokenizer, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, T] for latents [B, C, T, h, w], where they lie."""
    count, covered = latents.shape[2], tokenizer.mean.shape[1]
    if count > covered:
        most = plural(1 + tokenizer.time_compression * (covered - 1), "frame")
        raise ValueError(
            f"the tokenizer's statistics cover {plural(covered, 'latent frame')} ({most}), the clip has {count}; "
            f"use clips of at most {most}"
        )
    mean, std = (statistic[:, :count].to(latents.device) for statistic in (tokenizer.mean, tokenizer.std))
    return mean, std


def decode(
    tokenizer: Tokenizer,
    latents: MultiViewLatents,
    view: int,
    check_frames: CheckFrames | None = None,
    at_once: int = CHUNK,
) -> Tensor:
    """Frames [F, H, W, 3] in [0, 1] that one view's latents stand for, all chunks, where the latents lie.

    ``at_once`` latent frames are decoded together: fewer take less memory.
    """
    frames = to_frames(decode_view(tokenizer, latents, view, at_once))
    return check_frames(frames) if check_frames else frames


def decode_view(tokenizer: Tokenizer, latents: MultiViewLatents, view: int, at_once: int = CHUNK) -> Tensor:
    """Video [3, F, H, W], about [-1, 1] and not clamped, of one view of some latents."""
    if not 0 <= view < len(latents.cameras):
        raise ValueError(f"view {view}: the latents have {plural(len(latents.cameras), 'view')}, counted from 0")
    if latents.family != tokenizer.family:
        raise ValueError(
            f"latents of family '{latents.family}' and tokenizer '{tokenizer.family}' do not belong together; load the "
            "tokenizer of the latents' family"
        )
    return decode_clip(tokenizer, latents.latents.values[view], latents.chunks, at_once)


def to_frames(video: Tensor) -> Tensor:
    """Frames [F, H, W, 3] in [0, 1] of a video [3, F, H, W] in about [-1, 1]."""
    return ((video.permute(1, 2, 3, 0).float() + 1) / 2).clamp(0, 1)

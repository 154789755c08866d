"""What any video tokenizer offers the rest of the pack."""

from typing import Protocol

from torch import Tensor

from .streaming import CHUNK


class Tokenizer(Protocol):
    """Causal video autoencoder: frame 0 makes latent 0, every further ``time_compression`` frames make one more.

    Both ways the result lies on the device of the input, in the precision of the weights.
    """

    mean: Tensor  # [C, T] statistics of raw latents, T as in the trained clip; a shorter clip takes the first
    std: Tensor  # [C, T]
    latent_channels: int  # C
    time_compression: int  # frames a latent after the first: F = 1 + time_compression * (T - 1)
    space_compression: int  # pixels a latent cell, each way
    family: str  # "lyra", "mini": latents of one family fit models of the same only

    @property
    def identity(self) -> str:
        """Names weights and precision: equal strings mean equal results, for cache keys."""
        ...

    def encode(self, video: Tensor) -> Tensor:
        """Raw latents [B, C, T, h, w] of a video [B, 3, F, H, W]: pictures in [-1, 1], or any values, never clamped."""
        ...

    def decode(self, latents: Tensor, at_once: int = CHUNK) -> Tensor:
        """Video [B, 3, F, H, W], about [-1, 1] and not clamped, of raw latents [B, C, T, h, w], so many at once."""
        ...

"""Latents of GEN3C as core previews them."""

import comfy.latent_formats
import torch
from torch import Tensor


class GEN3CLatents(comfy.latent_formats.Cosmos1CV8x8x8):
    """Core's Cosmos latents, of which a preview shows the first, the middle and the last frame side by side.

    Core shows latent frame 0 of what it is given: here that is always the picture everything began with.
    """

    @staticmethod
    def latent_rgb_factors_reshape(x0: Tensor) -> Tensor:
        """[B, 16, 1, h, 3 w] of a clip [B, 16, T, h, w]; anything else as it is."""
        if x0.ndim != 5:
            return x0
        last = x0.shape[2] - 1
        moments = sorted({0, (last + 1) // 2, last})
        return torch.cat([x0[:, :, moment : moment + 1] for moment in moments], dim=-1)


class MiniLatents(GEN3CLatents):
    """The same of the mini tokenizer: colours by least squares over the shipped latents, rms 0.084 of 0.33."""

    latent_rgb_factors = [
        [-1.233, -1.099, -1.260], [0.850, 0.161, 0.108], [-0.142, -0.222, -0.272], [-0.029, -0.046, -0.270],
        [0.320, 0.285, 0.646], [-0.020, 0.063, -0.370], [0.610, 0.014, 0.237], [0.452, 0.035, -0.196],
        [-0.249, -0.167, -0.140], [-0.146, -0.327, -0.268], [0.384, 0.254, 0.264], [0.085, -0.475, -0.694],
        [-0.887, -0.160, 0.029], [0.775, 0.436, 0.389], [-0.429, -0.367, -0.342], [0.144, 0.072, -0.038],
    ]  # fmt: skip
    latent_rgb_factors_bias = [0.051, -0.003, 0.014]


FORMATS = {"lyra": GEN3CLatents, "mini": MiniLatents}  # by family

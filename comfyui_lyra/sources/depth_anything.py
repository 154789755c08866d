"""Depth Anything V2, which guesses the depth of any picture: transformers' network on files that lie on this machine.

It gives 1/z up to a factor and an offset. So what comes back is levels, as near-far depth has them: 1 is nearest.
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from torch import nn

PATCH, SHORT = 14, 518  # pixels: of a patch, and of the shorter side of the pictures it was trained on
FLAT = 1e-5  # of the values: less difference is rounding
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours


class DepthAnything:
    """The network, where it computes."""

    def __init__(self, network: "nn.Module", short: int = SHORT):
        self.network, self.short = network, short

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "DepthAnything":
        """The model in a folder of ``config.json`` and ``model.safetensors``; nothing is downloaded."""
        from transformers import DepthAnythingForDepthEstimation  # deferred: seconds

        if not (Path(folder) / "config.json").is_file():
            raise FileNotFoundError(f"{folder}: no Depth Anything here (config.json and model.safetensors)")
        try:
            network = DepthAnythingForDepthEstimation.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            )
        except (OSError, KeyError, RuntimeError) as error:
            raise ValueError(f"{folder}: not a Depth Anything model of transformers: {error}") from error
        return cls(cast("nn.Module", network).eval().requires_grad_(False).to(device))

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        """Levels [F, H, W] of frames [F, H, W, 3] in [0, 1], on one scale for all frames of a clip."""
        place = next(self.network.parameters())
        found = torch.cat([self.disparity(frame.to(place)) for frame in frames]).cpu()
        least, most = found.min(), found.max()
        if not (found.isfinite().all() and most - least > FLAT * found.abs().max()):
            raise ValueError("Depth Anything gives no depth for this picture: all of it is as far; bring its depth")
        return ((found - least) / (most - least)).clone()

    def disparity(self, frame: Tensor) -> Tensor:
        """1/z [1, H, W] of a frame [H, W, 3], up to a factor and an offset."""
        height, width, _ = frame.shape
        scale = self.short / min(height, width)
        size = [max(PATCH, round(side * scale / PATCH) * PATCH) for side in (height, width)]
        mean, deviation = (torch.tensor(numbers).to(frame) for numbers in (MEAN, DEVIATION))
        shown = ((frame - mean) / deviation).permute(2, 0, 1)[None]
        shown = interpolate(shown, size, mode="bicubic", antialias=True)
        found = self.network(pixel_values=shown).predicted_depth  # [1, h, w]
        return interpolate(found[:, None].float(), (height, width), mode="bilinear")[:, 0]

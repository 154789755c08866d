"""Distances of pictures as networks see them: LPIPS on a VGG16, TPIPS on the video tokenizer's encoder.

Zhang et al. 2018: activations at several depths, unit length over channels, squared difference, weighted by
non-negative heads, mean over the picture, sum over depths.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..weights.checkpoints.state import read_state
from ..weights.load import load_weights

WIDTHS = (64, 128, 256, 512, 512)  # channels of VGG16's five blocks of convolutions
CONVOLUTIONS = (2, 2, 3, 3, 3)  # in each block, every one with a ReLU; blocks end in a pool
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # per colour, of pictures in [-1, 1]
EPS = 1e-10  # added to the length of an activation
LARGEST = 704  # picture height above which the training loss looks at a smaller copy

RULES = (
    (r"^(module|model)\.", ""),
    (r"^net\.slice\d+\.", "features."),  # the lpips package keeps VGG16's numbers behind its own slices
    (r"^(classifier|scaling_layer|lins)\.", None),  # lins are the lin0..lin4 once more
    (r"^lin(\d)\.model\.1\.weight$", r"heads.\1"),
)


class Perceptual(Protocol):
    """A perceptual term."""

    name: str

    def __call__(self, pictures: Tensor, targets: Tensor, chunk: int = 1) -> Tensor:
        """Distance of each pair of frames [B, N, H, W, 3] in [0, 1]: [B, N], ``chunk`` views at a time."""
        ...


class Lpips(nn.Module):
    """LPIPS, version 0.1, on VGG16; ``features`` are numbered as torchvision's.

    Frames higher than ``largest`` are compared at that height; None leaves them as they are.
    """

    name = "lpips"

    def __init__(self, largest: int | None = LARGEST):
        super().__init__()
        self.largest = largest
        layers, channels = [], 3
        for width, count in zip(WIDTHS, CONVOLUTIONS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.heads = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in WIDTHS)

    def forward(self, pictures: Tensor, targets: Tensor, chunk: int = 1) -> Tensor:
        """Distance of each pair of frames [B, N, H, W, 3] in [0, 1]: [B, N], ``chunk`` views at a time."""
        return in_chunks(self.distance, pictures, targets, chunk)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [I] of pictures [I, 3, H, W] in [-1, 1]."""
        if self.largest is not None:
            a, b = shrink(a, self.largest), shrink(b, self.largest)
        layers = zip(self.activations(a), self.activations(b), self.heads, strict=True)
        parts = (((unit(x) - unit(y)).square() * head).sum(1).mean((1, 2)) for x, y, head in layers)
        return reduce(torch.add, parts)

    def activations(self, pictures: Tensor) -> list[Tensor]:
        """Of pictures [I, 3, H, W] in [-1, 1]: what comes out of each block, before its pool."""
        x = (pictures - pictures.new_tensor(SHIFT)[:, None, None]) / pictures.new_tensor(SCALE)[:, None, None]
        found = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                found.append(x)
            x = layer(x)
        return [*found, x]


class Tpips:
    """LPIPS's distance on a frozen tokenizer encoder's activations. No substitute for LPIPS: the numbers differ.

    ``activations`` takes pictures [I, 3, H, W] in [-1, 1] and gives tensors [I, C, ...] of several depths. Heads are
    ones; the mean over depths lies in [0, 4].
    """

    name = "tpips"

    def __init__(self, activations: Callable[[Tensor], Sequence[Tensor]]):
        self.activations = activations

    def __call__(self, pictures: Tensor, targets: Tensor, chunk: int = 1) -> Tensor:
        """Distance of each pair of frames [B, N, H, W, 3] in [0, 1]: [B, N], ``chunk`` views at a time."""
        return in_chunks(self.distance, pictures, targets, chunk)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [I] of pictures [I, 3, H, W] in [-1, 1]."""
        pairs = [*zip(self.activations(a), self.activations(b), strict=True)]
        parts = ((unit(x) - unit(y)).square().sum(1).flatten(1).mean(1) for x, y in pairs)
        return reduce(torch.add, parts) / len(pairs)


def load_lpips(vgg: Path | str, heads: Path | str | None = None, largest: int | None = LARGEST) -> Lpips:
    """LPIPS, frozen, from files of the user: VGG16 as torchvision or torch hub name it, and the lpips package's heads.

    ``heads`` is left out for a file that holds both, as the lpips package saves a whole model. ``largest``: see Lpips.
    """
    state: dict[str, Any] = read_state(Path(vgg))
    if heads is not None:
        state |= read_state(Path(heads))
    with torch.device("meta"):
        model = Lpips(largest)
    source = Path(vgg).name if heads is None else f"{Path(vgg).name} with {Path(heads).name}"
    state = {name: tensor.float() for name, tensor in state.items()}
    return load_weights(model, state, RULES, source).requires_grad_(False)


def in_chunks(distance: Callable[[Tensor, Tensor], Tensor], pictures: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """Distances [B, N] of frames [B, N, H, W, 3] in [0, 1], ``chunk`` of the N at a time.

    One chunk's activations are held at a time: they are computed again in the backward pass.
    """
    if pictures.shape != targets.shape or pictures.ndim != 5:
        raise ValueError(f"expected two tensors [B N H W 3], got {tuple(pictures.shape)} and {tuple(targets.shape)}")
    found = []
    for start in range(0, pictures.shape[1], chunk):
        pair = [
            frames[:, start : start + chunk].flatten(0, 1).permute(0, 3, 1, 2) * 2 - 1 for frames in (pictures, targets)
        ]
        here = checkpoint(distance, *pair, use_reentrant=False) if torch.is_grad_enabled() else distance(*pair)
        found.append(here.unflatten(0, (len(pictures), -1)))
    return torch.cat(found, 1)


def shrink(pictures: Tensor, largest: int) -> Tensor:
    """Pictures [I, 3, H, W] no higher than ``largest``: bilinear, not antialiased, the width's fraction cut off."""
    height, width = pictures.shape[2:]
    size = min(height, largest), min(width, int(largest / height * width))
    if size == (height, width):
        return pictures
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)


def unit(x: Tensor) -> Tensor:
    """Activations [I, C, ...] of unit length over channels; where all are 0 they stay 0, and so does the gradient."""
    length = x.square().sum(1, keepdim=True).clamp_min(EPS * EPS).sqrt()  # sqrt has no finite slope at 0
    return x / (length + EPS)

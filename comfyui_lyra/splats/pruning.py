"""Which splats are kept: the most opaque ones (decoder.md 3.7)."""

import torch
from torch import Tensor


def most_opaque(opacities: Tensor, keep: float) -> Tensor:
    """Indices [int(N * keep)] of the highest opacities [N], highest first; ties in the order of their index."""
    if not 0 <= keep <= 1:
        raise ValueError(f"keep {keep} is a share and must lie in 0..1")
    count = int(opacities.shape[0] * keep)
    return torch.sort(opacities, descending=True, stable=True).indices[:count]

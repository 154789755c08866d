"""antimatter15's .splat, read: 32 bytes a splat, which begin with the first and have no header; axes are ours."""

import numpy as np
import torch

from ...splats.gaussians import Gaussians

RECORD = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def parse_splat(data: bytes) -> Gaussians:
    """Splats, unusable ones among them, from a file's bytes; ValueError where these are no whole records."""
    if not data or len(data) % RECORD.itemsize:
        raise ValueError(f"no .splat: {len(data)} bytes are not a number of splats of {RECORD.itemsize} bytes")
    table = np.frombuffer(data, RECORD)
    rgba = torch.from_numpy(table["rgba"].astype(np.float32)) / 255
    scales = torch.from_numpy(table["scales"].astype(np.float32))
    quats = (torch.from_numpy(table["quats"].astype(np.float32)) - 128) / 128  # wxyz
    return Gaussians(
        means=torch.from_numpy(table["means"].astype(np.float32)),
        scales=torch.where(scales < 0, torch.nan, scales),
        quats=quats / quats.norm(dim=1, keepdim=True),  # NaN where they are zero
        opacities=rgba[:, 3],
        colors=rgba[:, :3],
    )

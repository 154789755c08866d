"""The page's reading of a moment, once more in numpy: what the tests compare with."""

import zlib

import numpy as np
import torch
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians


def unpacked(packed: bytes) -> Gaussians:
    """The splats of a moment, in the order of the file."""
    raw = zlib.decompress(packed)
    count = int(np.frombuffer(raw, "<u4", 1)[0])
    *origin, unit = np.frombuffer(raw, "<f4", 4, 4)
    parts = -(-count // 256)
    bounds = np.frombuffer(raw, "<f4", 8 * parts, 32).reshape(parts, 8).repeat(256, 0)[:count]
    planes = np.frombuffer(raw, "u1", offset=32 + 32 * parts).reshape(16, count)
    a, b, c, d = np.ascontiguousarray(planes.T).view("<u4").T.astype(np.int64)

    def between(low: slice, high: slice, share: np.ndarray) -> np.ndarray:
        return bounds[:, low] + share * (bounds[:, high] - bounds[:, low])

    share = np.stack((a & 32767, a >> 15 & 32767, b & 65535), 1) / (32767, 32767, 65535)
    far = between(slice(0, 3), slice(4, 7), share)
    others = (np.stack((b >> 16 & 255, b >> 24, c & 255), 1) / 255 - 0.5) * 2**0.5
    largest = a >> 30
    quats = np.zeros((count, 4))
    for i in range(4):
        rows = largest == i
        quats[rows] = np.insert(others[rows], i, np.sqrt(np.clip(1 - (others[rows] ** 2).sum(1), 0, 1)), 1)
    scales = np.exp(between(slice(3, 4), slice(7, 8), np.stack((c >> 8 & 255, c >> 16 & 255, c >> 24), 1) / 255))
    rgba = np.stack((d & 255, d >> 8 & 255, d >> 16 & 255, d >> 24), 1) / 255
    means = np.array(origin) + np.sign(far) * np.expm1(np.abs(far)) * unit
    return Gaussians(
        **{
            name: torch.from_numpy(values).float()
            for name, values in {
                "means": means, "scales": scales, "quats": quats, "opacities": rgba[:, 3], "colors": rgba[:, :3]
            }.items()
        }
    )  # fmt: skip

"""Pictures brought to a model's size: the counterpart of ``CameraTrajectory.resized``."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from ..cameras.path import crop_start, largest_crop


def crop_resize(pictures: Tensor, height: int, width: int, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
    """The largest central part of pictures [F, C, H, W] that has the target's aspect ratio, resized to the target.

    ``bilinear`` is antialiased, for colours; ``nearest`` is for depth (decoder.md 2.3 step 3).
    """
    if pictures.ndim != 4:
        raise ValueError(f"pictures: expected [F C H W], got {tuple(pictures.shape)}")
    rows, columns = largest_crop(pictures.shape[2], pictures.shape[3], height, width)
    top, left = (crop_start(size, part) for size, part in zip(pictures.shape[2:], (rows, columns), strict=True))
    cropped = pictures[:, :, top : top + rows, left : left + columns]
    if mode == "nearest":
        return functional.interpolate(cropped, (height, width), mode="nearest")
    return functional.interpolate(cropped, (height, width), mode="bilinear", antialias=True)

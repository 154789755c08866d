"""A ray for each pixel, and its Pluecker coordinates."""

import torch
from einops import rearrange
from torch import Tensor

from .path import CameraTrajectory


def rays(cameras: CameraTrajectory, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Origins and unit directions of the rays through the pixel centres, [F, 3, H/stride, W/stride] each, world axes.

    Arithmetic is in the dtype of the cameras, one rounding an operation, in the reference's order (decoder.md 2.4):
    a stride stands for the grid of a smaller picture, with K divided by it and pixel centres at + 0.5 of *its* pixels.
    """
    if cameras.height % stride or cameras.width % stride:
        raise ValueError(f"{cameras.width}x{cameras.height} is not divisible into rays of stride {stride}")
    height, width = cameras.height // stride, cameras.width // stride
    K = cameras.K / stride
    # the grid is made on the CPU: it is a few numbers, and half-precision linspace may round otherwise elsewhere
    u, v = (torch.linspace(0, n - 1, n, dtype=K.dtype).to(K.device) + 0.5 for n in (width, height))
    x = (u - K[:, 0, 2, None]) / K[:, 0, 0, None]  # [F, W]
    y = (v - K[:, 1, 2, None]) / K[:, 1, 1, None]  # [F, H]
    x, y = x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)
    directions = torch.stack((x, y, torch.ones_like(x)), dim=-1)  # [F, H, W, 3]
    directions = directions / directions.norm(dim=-1, keepdim=True)
    directions = directions.flatten(1, 2) @ cameras.c2w[:, :3, :3].mT  # [F, H*W, 3]
    directions = rearrange(directions, "F (H W) xyz -> F xyz H W", H=height)
    return cameras.c2w[:, :3, 3, None, None].expand_as(directions), directions


def plucker(cameras: CameraTrajectory) -> Tensor:
    """Pluecker coordinates (moment o x d, direction d) of each pixel's ray, [F, 6, H, W], world axes.

    A whole clip is large: ask for ``plucker(cameras[a:b])``.
    """
    origins, directions = rays(cameras)
    return torch.cat((torch.linalg.cross(origins, directions, dim=1), directions), dim=1)


def rays_bf16(cameras: CameraTrajectory, stride: int = 1) -> tuple[Tensor, Tensor]:
    """``rays`` with cameras, pixel grid and every operation in bfloat16: what the weights were trained with.

    Pixel centres beyond 128 lose their half, beyond 256 their oddness (decoder.md 2.4, dtype trap).
    """
    return rays(cameras.to(torch.bfloat16), stride)


def plucker_bf16(cameras: CameraTrajectory) -> Tensor:
    """``plucker`` with every operation in bfloat16: what the weights were trained with (decoder.md 2.4, dtype trap)."""
    return plucker(cameras.to(torch.bfloat16))

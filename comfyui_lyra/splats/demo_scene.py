"""A small coloured scene of Gaussians, made by formula: something to look at before any model is loaded."""

import math

import torch
from torch import Tensor

from .gaussians import Gaussians, concatenate


def demo_scene(seed: int = 0) -> Gaussians:
    """A tiled floor, a ball, a ring and a spiral stair around a pillar, about 14 000 splats in front of the origin.

    OpenCV axes, one unit to the centre of the scene, as the camera paths expect.
    """
    generator = torch.Generator().manual_seed(seed)
    return concatenate([_floor(generator), _ball(generator), _ring(), _stair(generator)])


def _splats(means: Tensor, colors: Tensor, size: float) -> Gaussians:
    """Round, nearly opaque splats of one size."""
    count = means.shape[0]
    return Gaussians(
        means=means,
        scales=torch.full((count, 3), size),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        opacities=torch.full((count,), 0.95),
        colors=colors.expand(count, 3).contiguous(),
    )


def _floor(generator: torch.Generator) -> Gaussians:
    """A chequered floor [-0.9, 0.9] wide, from z 0.55 to 2.1, at y 0.3."""
    x, z = torch.meshgrid(torch.linspace(-0.9, 0.9, 91), torch.linspace(0.55, 2.1, 78), indexing="ij")
    dark = ((x / 0.15).floor() + (z / 0.15).floor()) % 2
    colors = torch.lerp(torch.tensor([0.87, 0.85, 0.80]), torch.tensor([0.25, 0.42, 0.48]), dark.reshape(-1, 1))
    colors = colors + 0.03 * torch.randn(colors.shape, generator=generator)
    means = torch.stack((x, torch.full_like(x, 0.3), z), dim=-1).reshape(-1, 3)
    floor = _splats(means, colors.clamp(0, 1), 0.012)
    floor.scales[:, 1] = 0.002  # flat on the ground
    return floor


def _ball(generator: torch.Generator) -> Gaussians:
    """A ball of radius 0.17 that shades from orange to violet, lit from the upper left."""
    count = 3000
    i = torch.arange(count) + 0.5
    y = 1 - 2 * i / count
    turn = math.pi * (1 + 5**0.5) * i  # golden-angle spiral: even cover of the sphere
    normal = torch.stack((torch.cos(turn) * (1 - y * y).sqrt(), y, torch.sin(turn) * (1 - y * y).sqrt()), dim=-1)
    light = (normal @ torch.tensor([-0.5, -0.7, -0.5])).clamp_min(0) * 0.7 + 0.45
    tint = torch.lerp(torch.tensor([1.0, 0.55, 0.15]), torch.tensor([0.55, 0.20, 0.75]), (0.5 + 0.5 * y)[:, None])
    return _splats(normal * 0.17 + torch.tensor([-0.22, 0.13, 0.95]), (tint * light[:, None]).clamp(0, 1), 0.006)


def _ring() -> Gaussians:
    """A standing ring, radius 0.2, whose hue runs once around it."""
    around, across = torch.meshgrid(torch.arange(180) * math.tau / 180, torch.arange(10) * math.tau / 10, indexing="ij")
    radius = 0.2 + 0.025 * torch.cos(across)
    center = torch.tensor([0.28, 0.07, 1.05])
    means = torch.stack((radius * torch.cos(around), radius * torch.sin(around), 0.025 * torch.sin(across)), dim=-1)
    hue = torch.stack(
        [0.55 + 0.45 * torch.cos(around - phase) for phase in (0, math.tau / 3, 2 * math.tau / 3)], dim=-1
    )
    return _splats(means.reshape(-1, 3) + center, hue.reshape(-1, 3), 0.006)


def _stair(generator: torch.Generator) -> Gaussians:
    """Steps that climb around a pale pillar behind the ball and the ring."""
    y = torch.linspace(-0.42, 0.3, 120)
    turn = torch.arange(24) * math.tau / 24
    rise, angle = torch.meshgrid(y, turn, indexing="ij")
    pillar = torch.stack((0.06 * torch.cos(angle), rise, 0.06 * torch.sin(angle)), dim=-1).reshape(-1, 3)
    step = torch.arange(22)
    offset = torch.rand(22, 60, 2, generator=generator)
    out, along = 0.06 + 0.12 * offset[..., 0], step[:, None] * 0.42 + (offset[..., 1] - 0.5) * 0.36
    stairs = torch.stack(
        (out * torch.cos(along), (0.27 - 0.03 * step)[:, None].expand(22, 60), out * torch.sin(along)), -1
    )
    shade = torch.lerp(torch.tensor([0.30, 0.55, 0.30]), torch.tensor([0.95, 0.85, 0.35]), (step / 21)[:, None])
    base = torch.tensor([0.03, 0.0, 1.5])
    light = 0.75 + 0.25 * torch.cos(angle.reshape(-1, 1) - 2.4)
    return concatenate(
        [
            _splats(pillar + base, light * torch.tensor([0.93, 0.90, 0.84]), 0.008),
            _splats(stairs.reshape(-1, 3) + base, shade.repeat_interleave(60, 0), 0.01),
        ]
    )

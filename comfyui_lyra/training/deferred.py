"""Deferred back-propagation: many renders of one scene with the memory of one (training.md 6).

The loss needs the pictures only, and so does its gradient with respect to them. So pictures are made without a graph,
and once their gradients are known each is rendered again, with a graph that lives for one view. Exact, for one extra
render a view.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..cameras.path import CameraTrajectory
from ..splats.gaussians import Gaussians
from ..splats.render import Frames, draw_view

Renderer = Callable[[Gaussians, CameraTrajectory], Frames]  # of one camera, or of a few at once

FIELDS = ("means", "scales", "quats", "opacities", "colors")


def render_deferred(
    gaussians: Gaussians,
    cameras: CameraTrajectory,
    renderer: Renderer = draw_view,
    at_once: int = 1,
) -> Frames:
    """All cameras' pictures, in float32; gradients reach the splats' five fields, never the cameras.

    ``at_once`` lets one graph cover so many cameras, which is faster where splats are few. The loop runs over views in
    their order, so that sums of gradients are the same in every run.
    """
    if gaussians.sh_rest is not None:
        raise ValueError("splats in training have one colour each; spherical harmonics get no gradient here")
    cameras = replace(cameras, c2w=cameras.c2w.detach(), K=cameras.K.detach())
    tensors = (getattr(gaussians, name).float() for name in FIELDS)
    rgb, alpha, depth = Deferred.apply(renderer, cameras, at_once, *tensors)
    return Frames(rgb=rgb, alpha=alpha, depth=depth)


class Deferred(torch.autograd.Function):
    """Pictures without a graph; the backward pass renders view after view again."""

    @staticmethod
    def forward(ctx, renderer, cameras, at_once, *tensors):
        """Colours [F, H, W, 3], alpha [F, H, W], depth [F, H, W]."""
        ctx.renderer, ctx.cameras, ctx.at_once = renderer, cameras, at_once
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        size = (len(cameras), cameras.height, cameras.width)
        pictures = tensors[0].new_empty(*size, 3), tensors[0].new_empty(size), tensors[0].new_empty(size)
        gaussians = Gaussians(**dict(zip(FIELDS, tensors, strict=True)))
        with torch.autocast(tensors[0].device.type, enabled=False):
            for place, camera in views(cameras, at_once):
                for picture, part in zip(pictures, outputs(renderer(gaussians, camera)), strict=True):
                    picture[place] = part
        return pictures

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        """Gradients of the splats' tensors that need one."""
        needed = ctx.needs_input_grad[-len(FIELDS) :]
        leaves = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, needed, strict=True)]
        gaussians = Gaussians(**dict(zip(FIELDS, leaves, strict=True)))
        for place, camera in views(ctx.cameras, ctx.at_once):
            with torch.enable_grad(), torch.autocast(leaves[0].device.type, enabled=False):
                drawn = outputs(ctx.renderer(gaussians, camera))
            # a picture that shows no splat, or that the loss does not look at, has nothing to give
            useful = [(d, g[place]) for d, g in zip(drawn, grads, strict=True) if d.requires_grad and g is not None]
            if useful:
                torch.autograd.backward(*zip(*useful, strict=True))
        found = (leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves)
        return None, None, None, *(grad if need else None for grad, need in zip(found, needed, strict=True))


def outputs(frames: Frames) -> tuple[Tensor, Tensor, Tensor]:
    """What was drawn: colours, alpha, depth."""
    return frames.rgb, frames.alpha, frames.depth


def views(cameras: CameraTrajectory, at_once: int) -> Iterator[tuple[slice, CameraTrajectory]]:
    """Each few cameras, with their place in tensors [F, ...]."""
    for start in range(0, len(cameras), at_once):
        place = slice(start, start + at_once)
        yield place, cameras[place]

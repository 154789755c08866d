"""Drawing Gaussians: gsplat, or plain torch."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..memory import in_turn
from ..proof import Probe, like
from ..registry import Kernel, Op
from .projection import Mode
from .rasterize_torch import check_call, rasterize_torch

PROJECTED = 2**22  # splats times cameras that gsplat projects at once, about 200 bytes each with their gradients


def load_gsplat() -> Callable:
    """Import gsplat, which compiles its CUDA extension the first time unless it came compiled.

    Processes that compile at once would delete each other's files (gsplat 1.5.3 empties the folder it builds in).
    """
    import gsplat

    with in_turn("gsplat"):
        from gsplat.cuda._backend import _C

    if _C is None:
        raise ImportError("gsplat found no CUDA toolkit to compile its extension with")

    def call_gsplat(
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        *,
        width: int,
        height: int,
        background: Tensor | None = None,
        near: float = 0.1,
        far: float = 500.0,
        mode: Mode = "ut_eval3d",
        depth: bool = True,
    ) -> tuple[Tensor, ...]:
        """A few cameras at a time, fewer the more splats there are: each camera has a copy of all of them projected."""
        check_call(means, quats, scales, opacities, colors, viewmats, Ks, width, height, background, near, far, mode)
        background = means.new_zeros(3) if background is None else background.to(means)
        exact = mode == "ut_eval3d"

        def draw(values: Tensor, viewmats: Tensor, Ks: Tensor, background: Tensor, what: str) -> tuple[Tensor, Tensor]:
            pictures, alpha, _ = gsplat.rasterization(
                means, quats, scales, opacities, values, viewmats, Ks, width, height, near_plane=near, far_plane=far,
                packed=False, backgrounds=background.repeat(len(viewmats), 1), render_mode=what, with_ut=exact,
                with_eval3d=exact,
            )  # fmt: skip
            return pictures, alpha[..., 0]

        frames, at_once = [], max(1, PROJECTED // len(means))
        viewmats, Ks = viewmats.detach().to(means), Ks.detach().to(means)
        for start in range(0, len(viewmats), at_once):
            some = slice(start, start + at_once)
            cameras = viewmats[some], Ks[some]
            own = colors if colors.ndim == 2 else colors[some]
            if not depth:
                frames.append(draw(own, *cameras, background, "RGB"))
            elif exact:  # gsplat 1.5.3 evaluates three channels along rays: depth is a second picture, of camera z
                rgb, alpha = draw(own, *cameras, background, "RGB")
                z = (means.detach() * viewmats[some, None, 2, :3]).sum(-1) + viewmats[some, 2, 3, None]  # [C, N]
                z = z[..., None].expand(-1, -1, 3)
                summed = draw(z, *cameras, torch.zeros_like(background), "RGB")[0][..., 0]
                frames.append((rgb, alpha, summed / alpha.clamp_min(1e-10)))
            else:
                rgbd, alpha = draw(own, *cameras, background, "RGB+ED")
                frames.append((rgbd[..., :3], alpha, rgbd[..., 3]))
        return tuple(torch.cat(part) for part in zip(*frames, strict=True))

    return call_gsplat


def gsplat_refuses(means: Tensor, *_, **__) -> str | None:
    """Gsplat divides by the number of splats and knows float32 only."""
    if not means.is_cuda:
        return "needs CUDA tensors"
    if means.dtype != torch.float32:
        return f"needs float32, not {means.dtype}"
    return None if len(means) else "needs one splat at least"


def _probe_sizes(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, *_, mode: Mode = "ut_eval3d",
    depth: bool = True, **__,
) -> tuple:  # fmt: skip
    return "splats", mode, colors.ndim, depth


def _probe_inputs(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    *, background: Tensor | None = None, mode: Mode = "ut_eval3d", depth: bool = True, **_,
) -> tuple[tuple, dict]:  # fmt: skip
    """Small splats before a wall of one, so that depth is defined everywhere, seen by two cameras."""
    count, cameras, columns, rows = 200, min(2, len(viewmats)), 64, 48

    def before_wall(*shape: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(*shape, generator=generator) + torch.tensor([0, 0, 4.0])
        drawn[0] = torch.tensor([0, 0, 9.0])
        return drawn

    def sizes(*shape: int, generator: torch.Generator) -> Tensor:
        drawn = 0.1 + 0.1 * torch.randn(*shape, generator=generator).abs()
        drawn[0] = 20 if len(shape) > 1 else 0.9  # one function for scales and opacities
        return drawn

    def poses(*shape: int, generator: torch.Generator) -> Tensor:
        moved = torch.eye(4).repeat(shape[0], 1, 1)
        moved[:, :3, 3] = 0.2 * torch.randn(shape[0], 3, generator=generator)
        return moved

    def lenses(*shape: int, generator: torch.Generator) -> Tensor:
        return torch.tensor([[50.0, 0, 30], [0, 55, 26], [0, 0, 1]]).repeat(shape[0], 1, 1)

    made = (
        like(means, 0, (count, 3), before_wall),
        like(quats, 1, (count, 4)),
        like(scales, 2, (count, 3), sizes),
        like(opacities, 3, (count,), sizes),
        like(colors, 4, (count, 3) if colors.ndim == 2 else (cameras, count, 3), torch.rand),
        like(viewmats, 5, (cameras, 4, 4), poses),
        like(Ks, 6, (cameras, 3, 3), lenses),
    )
    options = {"width": columns, "height": rows, "mode": mode, "depth": depth}
    return made, options if background is None else options | {"background": like(background, 7, (3,), torch.rand)}


_GSPLAT = Kernel(
    name="gsplat",
    load=load_gsplat,
    refuses=gsplat_refuses,
    probe=Probe(
        sizes=_probe_sizes,
        inputs=_probe_inputs,
        limits={torch.float32: 1e-2},  # either may leave out a contribution that falls on the cut-off, 1/255
        files=("rasterizer/rasterize.py",),
        library="gsplat",
    ),
)

rasterize = Op("rasterize", rasterize_torch, (_GSPLAT,))

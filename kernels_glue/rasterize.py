"""Drawing Gaussians: gsplat, or plain torch."""

from collections.abc import Callable

import torch
from torch import Tensor

from .projection import Mode
from .rasterize_torch import check_call, rasterize_torch
from .registry import Kernel, Op


def load_gsplat() -> Callable:
    """Import gsplat, which compiles its CUDA extension the first time unless it came compiled."""
    import gsplat
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Camera by camera, which bounds memory and takes one colour set a camera."""
        check_call(means, quats, scales, opacities, colors, viewmats, Ks, width, height, background, near, far, mode)
        background = means.new_zeros(3) if background is None else background.to(means)
        exact = mode == "ut_eval3d"

        def draw(values: Tensor, viewmat: Tensor, K: Tensor, background: Tensor, what: str) -> tuple[Tensor, Tensor]:
            pictures, alpha, _ = gsplat.rasterization(
                means, quats, scales, opacities, values, viewmat[None], K[None], width, height, near_plane=near,
                far_plane=far, packed=False, backgrounds=background[None], render_mode=what,
                with_ut=exact, with_eval3d=exact,
            )  # fmt: skip
            return pictures[0], alpha[0, ..., 0]

        frames = []
        for camera, (viewmat, K) in enumerate(zip(viewmats.detach().to(means), Ks.detach().to(means), strict=True)):
            own = colors if colors.ndim == 2 else colors[camera]
            if exact:  # gsplat 1.5.3 evaluates three channels along rays: depth is a second picture, of camera z
                rgb, alpha = draw(own, viewmat, K, background, "RGB")
                z = ((means.detach() * viewmat[2, :3]).sum(-1) + viewmat[2, 3])[:, None].expand(-1, 3)
                depth = draw(z, viewmat, K, torch.zeros_like(background), "RGB")[0][..., 0] / alpha.clamp_min(1e-10)
            else:
                rgbd, alpha = draw(own, viewmat, K, background, "RGB+ED")
                rgb, depth = rgbd[..., :3], rgbd[..., 3]
            frames.append((rgb, alpha, depth))
        rgb, alpha, depth = (torch.stack(part) for part in zip(*frames, strict=True))
        return rgb, alpha, depth

    return call_gsplat


def gsplat_refuses(means: Tensor, *_, **__) -> str | None:
    """Gsplat divides by the number of splats and knows float32 only."""
    if not means.is_cuda:
        return "needs CUDA tensors"
    if means.dtype != torch.float32:
        return f"needs float32, not {means.dtype}"
    return None if len(means) else "needs one splat at least"


rasterize = Op("rasterize", rasterize_torch, (Kernel(name="gsplat", load=load_gsplat, refuses=gsplat_refuses),))

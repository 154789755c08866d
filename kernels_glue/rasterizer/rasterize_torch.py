"""The plain torch rasteriser: defines what ``rasterize`` returns, runs on CPU and CUDA, forward and backward."""

import torch
from torch import Tensor

from .compositing import Composite, cover
from .projection import MODES, Mode, project


def rasterize_torch(
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
    """Draw Gaussians: colours [C, H, W, 3] (not clamped), alpha [C, H, W], expected camera z [C, H, W] (0: nothing).

    Gaussians: means [N, 3], quats [N, 4] wxyz of any length, scales [N, 3], opacities [N], colors [N, 3] or
    [C, N, 3] (one set a camera). Cameras: viewmats [C, 4, 4] world-to-camera, Ks [C, 3, 3] in pixels.
    ``background`` [3] is black by default; splats with centres outside near..far are not drawn. Without ``depth`` there
    are colours and alpha alone, which is faster.

    ``ewa``: Kerbl et al. 2023, with a blur of 0.3 px^2. ``ut_eval3d``: Wu et al. 2025 (3DGUT), Gaussians evaluated
    where the pixel's ray passes closest. Cut-offs of both as in gsplat 1.5.3. Differentiable in the Gaussians; in
    ``ut_eval3d`` no gradient passes through a splat's z into the depth, as gsplat's projection has none.
    """
    check_call(means, quats, scales, opacities, colors, viewmats, Ks, width, height, background, near, far, mode)
    background = means.new_zeros(3) if background is None else background.to(means)
    blocks, frames = cover(width, height), []
    for camera, (viewmat, K) in enumerate(zip(viewmats.detach().to(means), Ks.detach().to(means), strict=True)):
        seen = project(
            means, quats, scales, opacities, viewmat, K, width=width, height=height, near=near, far=far, mode=mode
        )
        own = colors if colors.ndim == 2 else colors[camera]
        features = own[seen.index]
        features = torch.cat((features, seen.depths[:, None]), dim=1) if depth else features
        sums = blocks.picture(Composite.apply(seen.rows, features, seen.boxes, blocks), width, height)
        rgb, alpha = sums[..., :3], sums[..., -1]
        z = (sums[..., 3] / alpha.clamp_min(1e-10),) if depth else ()
        frames.append((rgb + (1 - alpha[..., None]) * background, alpha, *z))
    return tuple(torch.stack(part) for part in zip(*frames, strict=True))


def check_call(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    background: Tensor | None,
    near: float,
    far: float,
    mode: str,
) -> None:
    """Raise ValueError naming the first argument that does not fit the others."""
    if mode not in MODES:
        raise ValueError(f"rasterize: unknown mode '{mode}'; use one of {', '.join(MODES)}")
    if not 0 < near < far:
        raise ValueError(f"rasterize: near {near} and far {far} must satisfy 0 < near < far")
    if width < 1 or height < 1:
        raise ValueError(f"rasterize: a picture of {width}x{height} pixels; both must be positive")
    count, cameras = means.shape[0], viewmats.shape[0]
    expected = {
        "means": (means, (count, 3)),
        "quats": (quats, (count, 4)),
        "scales": (scales, (count, 3)),
        "opacities": (opacities, (count,)),
        "colors": (colors, (cameras, count, 3) if colors.ndim == 3 else (count, 3)),
        "viewmats": (viewmats, (cameras, 4, 4)),
        "Ks": (Ks, (cameras, 3, 3)),
        "background": (means.new_zeros(3) if background is None else background, (3,)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"rasterize: {name} must be {list(shape)}, got {list(tensor.shape)}")
        if name in ("means", "quats", "scales", "opacities", "colors") and (
            tensor.dtype not in (torch.float32, torch.float64) or tensor.dtype != means.dtype
        ):
            raise ValueError(f"rasterize: {name} is {tensor.dtype}; cast all Gaussian tensors to float32")
    if not cameras:
        raise ValueError("rasterize: no cameras; give one view matrix and one K at least")
    unusable = ~(quats.isfinite().all(1) & (quats != 0).any(1))
    if unusable.any():
        raise ValueError(f"rasterize: {int(unusable.sum())} of {count} quats hold NaN or infinity, or are zero")

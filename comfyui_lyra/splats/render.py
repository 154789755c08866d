"""Gaussians seen by cameras: frames, alpha, depth."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels_glue.rasterizer.projection import Mode
from ...kernels_glue.rasterizer.rasterize import rasterize
from ..callbacks import OnStep, no_progress
from ..cameras.path import CameraTrajectory
from ..configs import told
from ..shapes import check_shapes
from .gaussians import Gaussians
from .harmonics import harmonics


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """How splats are drawn. The defaults are what Lyra was trained and is rendered with."""

    background: tuple[float, float, float] = (1.0, 1.0, 1.0)  # RGB
    mode: Mode = told("ut_eval3d", "3DGUT as Lyra, or classic")
    near: float = 0.1  # scene units
    far: float = 500.0  # scene units
    backend: str = told("auto", "auto, torch or gsplat")  # which kernel draws


DEFAULT = RenderSettings()


@dataclass(frozen=True, eq=False, kw_only=True)
class Frames:
    """Rendered pictures."""

    rgb: Tensor  # [F, H, W, 3], not clamped
    alpha: Tensor  # [F, H, W] 1 = splat
    depth: Tensor  # [F, H, W] expected z-depth in scene units, 0 = nothing

    def __post_init__(self) -> None:
        check_shapes(self, rgb="F H W 3", alpha="F H W", depth="F H W")


def sh_colors(gaussians: Gaussians, center: Tensor) -> Tensor:
    """Colours [N, 3] of splats seen from ``center`` [3]: band 0 plus the higher bands, not below 0."""
    if gaussians.sh_rest is None:
        return gaussians.colors
    basis = harmonics(torch.nn.functional.normalize(gaussians.means - center, dim=-1), gaussians.sh_rest.shape[1])
    view_dependent = torch.einsum("kn,nkc->nc", basis, gaussians.sh_rest)
    return (gaussians.colors + view_dependent).clamp_min(0)


def draw_view(gaussians: Gaussians, camera: CameraTrajectory, settings: RenderSettings = DEFAULT) -> Frames:
    """The cameras' pictures, differentiable in the splats; nothing is checked."""
    rgb, alpha, depth = drawn(gaussians, camera, settings)
    return Frames(rgb=rgb, alpha=alpha, depth=depth)


def draw_colors(gaussians: Gaussians, camera: CameraTrajectory, settings: RenderSettings = DEFAULT) -> Tensor:
    """``draw_view(...).rgb`` [F, H, W, 3] alone: without depth, which gsplat draws as a second picture."""
    return drawn(gaussians, camera, settings, depth=False)[0]


def drawn(
    gaussians: Gaussians, camera: CameraTrajectory, settings: RenderSettings, depth: bool = True
) -> tuple[Tensor, ...]:
    """Colours, alpha and, if asked for, depth."""
    colors = gaussians.colors
    if gaussians.sh_rest is not None:
        colors = torch.stack([sh_colors(gaussians, center) for center in camera.c2w[:, :3, 3]])  # [F, N, 3]
    return rasterize(
        gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, colors,
        camera.viewmats, camera.K, width=camera.width, height=camera.height,
        background=gaussians.means.new_tensor(settings.background), near=settings.near, far=settings.far,
        mode=settings.mode, backend=settings.backend, depth=depth,
    )  # fmt: skip


def render_each(
    gaussians: Gaussians,
    cameras: CameraTrajectory,
    settings: RenderSettings = DEFAULT,
    on_step: OnStep = no_progress,
) -> Iterator[Frames]:
    """Draw one camera after another, so that a long path needs the memory of one frame."""
    gaussians.check_finite()
    cameras.check_finite()
    viewmats, centers = cameras.viewmats, cameras.c2w[:, :3, 3]
    background = gaussians.means.new_tensor(settings.background)
    for i in range(len(cameras)):
        rgb, alpha, depth = rasterize(
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities,
            sh_colors(gaussians, centers[i]),
            viewmats[i : i + 1],
            cameras.K[i : i + 1],
            width=cameras.width,
            height=cameras.height,
            background=background,
            near=settings.near,
            far=settings.far,
            mode=settings.mode,
            backend=settings.backend,
        )
        on_step(i + 1, len(cameras))
        yield Frames(rgb=rgb, alpha=alpha, depth=depth)


@torch.inference_mode()
def render(
    gaussians: Gaussians,
    cameras: CameraTrajectory,
    settings: RenderSettings = DEFAULT,
    store: torch.device | str | None = None,
    on_step: OnStep = no_progress,
) -> Frames:
    """Draw every camera of a path.

    ``store`` is the device that keeps the finished frames (20 bytes a pixel), by default the splats' own.
    """
    store, size = store or gaussians.means.device, (len(cameras), cameras.height, cameras.width)
    rgb = gaussians.means.new_empty((*size, 3), device=store)  # filled frame by frame: no frame is there twice
    alpha, depth = (gaussians.means.new_empty(size, device=store) for _ in range(2))
    for index, frame in enumerate(render_each(gaussians, cameras, settings, on_step)):
        rgb[index], alpha[index], depth[index] = frame.rgb[0], frame.alpha[0], frame.depth[0]
    return Frames(rgb=rgb, alpha=alpha, depth=depth)


def depth_view(depth: Tensor) -> Tensor:
    """Depth [F, H, W] as grey pictures [F, H, W, 3]: near is white, far dark, nothing black.

    Linear in disparity between the nearest and farthest percent of all frames, so that a clip does not flicker.
    """
    seen = depth > 0
    if not seen.any():
        return depth.new_zeros(*depth.shape, 3)
    disparity = torch.where(seen, 1 / depth.clamp_min(1e-6), 0)
    sample = disparity[seen]
    sample = sample[:: max(1, sample.numel() // 1_000_000)].float()  # quantile takes at most 16 M values
    low, high = torch.quantile(sample, sample.new_tensor([0.01, 0.99]))
    level = ((disparity - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) * 0.9 + 0.1
    return torch.where(seen, level, 0)[..., None].expand(*depth.shape, 3)

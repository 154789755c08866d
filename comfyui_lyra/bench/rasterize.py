"""How long one frame of a random scene takes to draw, by size, kernel and mode."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ...kernels_glue import rasterize
from ...kernels_glue.devices import by_device
from ...kernels_glue.rasterizer.projection import MODES
from ..cost.timing import measure

FOCAL = 0.8  # of the picture's width
NEAREST, FARTHEST = 1.0, 10.0  # scene units
SIZES = {"cpu": (20_000, 160, 96), "cuda": (2_044_415, 1280, 704)}  # splats, width, height


def benchmark_scene(
    count: int, width: int, height: int, sigma_px: tuple[float, float] = (0.5, 2.0), seed: int = 0
) -> dict[str, Tensor]:
    """Tensor arguments of ``rasterize``: ``count`` round splats uniform in one camera's frustum.

    Projected sigmas are log-uniform in ``sigma_px`` (pixels), opacities uniform in 0.05..0.95.
    """
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random)

    focal = FOCAL * width
    z = uniform(NEAREST**3, FARTHEST**3, count) ** (1 / 3)  # the frustum widens with the square of z
    x = uniform(-0.5, 0.5, count) * width / focal * z
    y = uniform(-0.5, 0.5, count) * height / focal * z
    low, high = torch.tensor(sigma_px).log().tolist()
    sigma = uniform(low, high, count).exp() * z / focal
    return {
        "means": torch.stack((x, y, z), dim=1),
        "quats": torch.randn(count, 4, generator=random),
        "scales": sigma[:, None].repeat(1, 3),
        "opacities": uniform(0.05, 0.95, count),
        "colors": uniform(0, 1, count, 3),
        "viewmats": torch.eye(4)[None],
        "Ks": torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]]),
    }


def psnr(found: Tensor, truth: Tensor) -> float:
    """Of pictures in [0, 1], in dB."""
    return -10 * (found.clamp(0, 1) - truth.clamp(0, 1)).square().mean().log10().item()


@torch.inference_mode()
def rows(device: torch.device, repeats: int = 7) -> Iterator[str]:
    """Seconds, memory and agreement of each kernel and mode; two sizes of splats."""
    count, width, height = by_device(SIZES, device)
    yield f"One frame of {width}x{height}, {count} splats"
    yield ""
    yield "| sigma px | mode | kernel | s | GB | PSNR to torch, same mode | to torch ut_eval3d |"
    yield "|---|---|---|---|---|---|---|"
    for sigma in ((0.5, 2.0), (4.0, 4.0)):
        scene = {name: tensor.to(device) for name, tensor in benchmark_scene(count, width, height, sigma).items()}
        truth = {m: rasterize(**scene, width=width, height=height, mode=m, backend="torch")[0] for m in MODES}
        for mode in MODES:
            for kernel in rasterize.backends[1:]:
                name = f"| {sigma[0]:g}..{sigma[1]:g} | {mode} | {kernel} |"
                reason = kernel != "torch" and rasterize.why_not(kernel, **scene)
                if reason:
                    yield f"{name} - | - | {reason} | |"
                    continue
                draw = partial(rasterize, **scene, width=width, height=height, mode=mode, backend=kernel)
                seconds, peak = measure(draw, device, repeats)
                same, other = (psnr(draw()[0], truth[m]) for m in (mode, MODES[0]))
                yield f"{name} {seconds:.4f} | {peak:.2f} | {same:.1f} dB | {other:.1f} dB |"

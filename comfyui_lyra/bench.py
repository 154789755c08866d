"""The benchmark scene, and how long drawing it takes."""

import time
from statistics import median

import torch
from torch import Tensor

from ..kernels_glue.projection import Mode
from ..kernels_glue.rasterize import rasterize

FOCAL = 0.8  # of the picture's width
NEAREST, FARTHEST = 1.0, 10.0  # scene units


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


@torch.inference_mode()
def time_rasterize(
    scene: dict[str, Tensor],
    width: int,
    height: int,
    mode: Mode = "ut_eval3d",
    backend: str = "torch",
    device: torch.device | str = "cpu",
    repeats: int = 5,
) -> dict[str, float]:
    """Median and least seconds a frame after one warm-up, and peak GPU memory in GiB (0 on CPU)."""
    device = torch.device(device)
    scene = {name: tensor.to(device) for name, tensor in scene.items()}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        rasterize(**scene, width=width, height=height, mode=mode, backend=backend)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return {"median_s": median(seconds[1:]), "least_s": min(seconds[1:]), "peak_gib": peak}


@torch.inference_mode()
def psnr_between_modes(scene: dict[str, Tensor], width: int, height: int) -> float:
    """PSNR in dB of the picture of ``ewa`` against that of ``ut_eval3d``."""
    pictures = [rasterize(**scene, width=width, height=height, mode=mode)[0] for mode in ("ewa", "ut_eval3d")]
    return -10 * (pictures[0] - pictures[1]).square().mean().log10().item()

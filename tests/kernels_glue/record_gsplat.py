"""Records what the real gsplat draws: ``python record_gsplat.py FOLDER`` writes rasterize.safetensors and .json.

Needs a CUDA device, gsplat 1.5.3 and this checkout importable as ``lyra_pack``. ``dev/pack_goldens.py`` packs them
for the repository. The files hold the inputs too, so that the test that reads them builds nothing.
"""

import json
import math
import sys
from pathlib import Path

import gsplat
import torch
from lyra_pack.kernels_glue import rasterize
from safetensors.torch import save_file
from torch import Tensor

GRADIENTS = ("means", "quats", "scales", "opacities", "colors")


def cameras(count: int, width: int, height: int) -> dict[str, Tensor]:
    """Turned, shifted, off-centre cameras whose focal lengths differ, looking along +z."""
    viewmats, Ks = [], []
    for i in range(count):
        yaw, roll = 0.25 * i, 0.4 * i
        turn_y = torch.tensor([
            [math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)],
        ], dtype=torch.float64)  # fmt: skip
        turn_z = torch.tensor([
            [math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1],
        ], dtype=torch.float64)  # fmt: skip
        viewmat = torch.eye(4, dtype=torch.float64)
        viewmat[:3, :3] = turn_z @ turn_y
        viewmat[:3, 3] = torch.tensor([-0.6 * i, 0.15 * i, 0.3 * i])
        viewmats.append(viewmat.float())
        Ks.append(torch.tensor([[0.8 * width, 0, 0.47 * width], [0, 0.9 * width, 0.55 * height], [0, 0, 1]]))
    return {"viewmats": torch.stack(viewmats), "Ks": torch.stack(Ks)}


def splats(
    count: int,
    seed: int,
    depth: tuple[float, float] = (2.0, 6.0),
    size: tuple[float, float] = (0.02, 0.3),
    opacity: tuple[float, float] = (0.05, 0.95),
    spread: float = 0.75,
) -> dict[str, Tensor]:
    """Anisotropic splats about the axis: sizes log-uniform, within ``spread`` of the depth to each side."""
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random)

    z = uniform(*depth, count, 1)
    return {
        "means": torch.cat((uniform(-spread, spread, count, 2) * z, z), dim=1),
        "quats": 2 * torch.randn(count, 4, generator=random),
        "scales": uniform(math.log(size[0]), math.log(size[1]), count, 3).exp(),
        "opacities": uniform(*opacity, count),
        "colors": uniform(-0.1, 1.2, count, 3),
    }


def scenes() -> dict[str, tuple[dict[str, Tensor], dict[str, float]]]:
    """Tensors and options of each scene."""
    small = {"width": 40, "height": 36}
    view, views = cameras(1, 40, 36), cameras(2, 40, 36)
    own = splats(120, 5)
    own["colors"] = torch.stack((own["colors"], own["colors"].flip(0)))
    behind = splats(20, 7)
    behind["means"][:, 2] *= -1
    return {
        "ordinary": (splats(300, 0) | cameras(2, 64, 48), {"width": 64, "height": 48}),
        "huge": (splats(60, 1, depth=(0.3, 3.0), size=(0.05, 1.0), spread=0.9) | view, small),
        "clipped": (splats(150, 2, depth=(-1.0, 7.0)) | view, small | {"near": 1.5, "far": 4.0}),
        "faint": (splats(250, 3, opacity=(0.002, 0.02), size=(0.1, 0.4)) | view, small),
        "saturated": (splats(80, 4, opacity=(0.8, 1.0), size=(0.3, 1.0), depth=(2.0, 4.0)) | view, small),
        "own_colors": (own | views, small),
        "pinpoint": (splats(250, 6, size=(0.001, 0.05)) | view, small),
        "behind": (behind | view, small),
    }


def record(name: str, tensors: dict[str, Tensor], options: dict[str, float]) -> dict[str, Tensor]:
    """Inputs, outputs, and gradients of sum(weights * (rgb, alpha, depth)) / 64, weights being [C, H, W, 5] int8."""
    random = torch.Generator().manual_seed(len(name))
    shape = len(tensors["viewmats"]), options["height"], options["width"], 5
    weights = torch.randint(-64, 65, shape, generator=random, dtype=torch.int8)
    background = torch.tensor([0.3, 0.6, 0.9])
    found = {
        f"{name}/{key}": value for key, value in (tensors | {"background": background, "weights": weights}).items()
    }
    on_gpu = {key: value.cuda() for key, value in tensors.items()}
    for mode in ("ut_eval3d", "ewa"):
        leaves = {key: on_gpu[key].clone().requires_grad_() for key in GRADIENTS}
        rgb, alpha, depth = rasterize(
            **on_gpu | leaves, **options, background=background.cuda(), mode=mode, backend="gsplat"
        )
        drawn = torch.cat((rgb, alpha[..., None], depth[..., None]), dim=-1)
        gradients = torch.autograd.grad((drawn * weights.cuda()).sum() / 64, list(leaves.values()))
        _, _, inner = gsplat.rasterization(
            *(on_gpu[key] for key in ("means", "quats", "scales", "opacities")), tensors["means"].cuda(),
            on_gpu["viewmats"], on_gpu["Ks"], options["width"], options["height"], near_plane=options.get("near", 0.1),
            far_plane=options.get("far", 500.0), packed=False, with_ut=mode == "ut_eval3d",
            with_eval3d=mode == "ut_eval3d",
        )  # fmt: skip
        outputs = {"rgb": rgb, "alpha": alpha, "depth": depth, "tiles": inner["tiles_per_gauss"].to(torch.int16)}
        outputs |= {f"grad_{key}": gradient for key, gradient in zip(leaves, gradients, strict=True)}
        found |= {f"{name}/{mode}/{key}": value.detach().cpu().contiguous() for key, value in outputs.items()}
    return found


def main() -> None:
    """Record all scenes."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tensors, meta = {}, {}
    for name, (inputs, options) in scenes().items():
        tensors |= record(name, inputs, options)
        meta[name] = options
    made_with = {"gsplat": gsplat.__version__, "torch": torch.__version__, "gpu": torch.cuda.get_device_name()}
    save_file({key: value.clone() for key, value in tensors.items()}, folder / "rasterize.safetensors")
    (folder / "rasterize.json").write_text(json.dumps({"scenes": meta, "made_with": made_with}, indent=1) + "\n")


if __name__ == "__main__":
    main()

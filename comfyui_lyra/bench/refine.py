"""What each part of refining costs, and how far a run gets in its time, on random splats of a scene's size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ...kernels_glue import rasterize, ssim
from ...kernels_glue.devices import by_device
from ...kernels_glue.rasterizer.projection import MODES
from ..cameras.moves import PathSettings, camera_paths
from ..cameras.path import CameraTrajectory
from ..configs import TokenizerConfig
from ..cost.timing import measure
from ..refine.footage import Picture, Target
from ..refine.leaves import Leaves
from ..refine.losses import frame_losses
from ..refine.optimise import optimise
from ..refine.report import measure as scored
from ..refine.schedule import Rates, settings_for
from ..splats.gaussians import Gaussians
from ..splats.render import draw_colors
from ..tokenizer.model import CosmosTokenizer, build_autoencoder
from .rasterize import benchmark_scene

SPLATS = ("means", "quats", "scales", "opacities", "colors")
MOST_STEPS = 100_000  # of a run that ends by its time


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the scene is that is refined."""

    splats: int
    width: int
    height: int
    frames: int  # of each of six paths
    seconds: tuple[float, ...]  # of runs
    tokenizer: TokenizerConfig = TokenizerConfig()  # noqa: RUF009 (frozen)


SIZES = {
    "cuda": Size(splats=2_044_415, width=1280, height=704, frames=121, seconds=(20, 60)),
    "cpu": Size(
        splats=20_000, width=160, height=96, frames=17, seconds=(40,),
        tokenizer=TokenizerConfig(channels=32, multipliers=(1, 2, 2), layers=1),
    ),
}  # fmt: skip


def rows(device: torch.device, size: Size | None = None, repeats: int = 5) -> Iterator[str]:
    """Lines of two Markdown tables: the parts of a step, then whole runs."""
    size = size or by_device(SIZES, device)
    yield f"{size.splats} splats, {6 * size.frames} frames of {size.width}x{size.height}"
    yield ""
    yield "| part | ms | GB |"
    yield "|---|---|---|"
    for name, call in parts(size, device):
        seconds, peak = measure(call, device, repeats)
        yield f"| {name} | {1000 * seconds:.2f} | {peak:.2f} |"
    yield ""
    yield "| run | steps | s | steps/s | GB above | picture, dB | frames, dB |"
    yield "|---|---|---|---|---|---|---|"
    yield from runs(size, device)


def parts(size: Size, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and calls."""
    scene = {name: value.to(device) for name, value in benchmark_scene(size.splats, size.width, size.height).items()}
    for mode in MODES:
        for depth in (False, True):
            words = f"{mode}, {'with' if depth else 'without'} depth"
            draw = partial(rasterize, **scene, width=size.width, height=size.height, mode=mode, depth=depth)
            yield f"drawing, {words}", torch.no_grad()(draw)
            yield f"drawing and gradients, {words}", partial(drawn_both_ways, scene, draw)
    batch = settings_for(device, size.width * size.height).batch
    shape = max(6, batch), size.height, size.width, 3
    drawn, wanted = (torch.rand(shape, generator=torch.Generator().manual_seed(i)).to(device) for i in (0, 1))
    drawn.requires_grad_()
    for backend in ("torch", *ssim.kernels):
        if backend == "torch" or ssim.why_not(backend, drawn, wanted) is None:
            similarity = partial(ssim, drawn, wanted, backend=backend)
            yield f"SSIM of {len(drawn)} frames and its gradient, {backend}", partial(slopes, similarity, drawn)
    yield f"L1 of {len(drawn)} frames and its gradient", partial(slopes, lambda: frame_losses(drawn, wanted, 0), drawn)
    leaves = Leaves.of(Gaussians(**{name: scene[name] for name in SPLATS}))
    adam = torch.optim.Adam(leaves.groups(Rates(), 1e-6), eps=1e-15, fused=device.type == "cuda")
    for group in adam.param_groups:
        group["params"][0].grad = torch.rand_like(group["params"][0])
    yield "Adam", adam.step
    kept = torch.zeros(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    yield f"{len(kept)} frames from the host", lambda: [f.to(device, non_blocking=True).float() / 255 for f in kept]
    yield f"decoding {size.frames} frames", decoding(size, device)


def drawn_both_ways(scene: dict[str, Tensor], draw: Callable[..., tuple[Tensor, ...]]) -> None:
    """A picture, and gradients of the splats from its mean distance to grey."""
    given = {name: scene[name].detach().requires_grad_() for name in SPLATS}
    rgb = draw(**given)[0]
    torch.autograd.grad((rgb - 0.5).abs().mean(), list(given.values()))


def slopes(loss: Callable[[], Tensor], drawn: Tensor) -> None:
    """The gradient along frames."""
    torch.autograd.grad(loss().sum(), drawn)


def decoding(size: Size, device: torch.device) -> Callable[[], object]:
    """One path's latents through a tokenizer with random weights, as pictures are made of them."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config, ones = size.tokenizer, torch.ones(size.tokenizer.latent_channels, 1)
    model = CosmosTokenizer(config, build_autoencoder(config), ones, ones).to(device, dtype)
    step = model.time_compression
    shape = 1, config.latent_channels, (size.frames - 1) // step + 1, size.height // 8, size.width // 8
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return lambda: torch.no_grad()(model.decode)(latents)


def runs(size: Size, device: torch.device) -> Iterator[str]:
    """A row for each length of a run, with and without SSIM: how many steps, and how near they bring blurred splats."""
    splats, target = blurred(size, device)
    before = scored(splats, target)
    default = settings_for(device, size.width * size.height, steps=MOST_STEPS)
    for seconds in size.seconds:
        for name, share in (("SSIM 0.2", 0.2), ("L1 alone", 0.0)):
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
            after, run = optimise(splats, target, replace(default, seconds=seconds, similarity=share))
            peak = (torch.cuda.max_memory_allocated(device) - held) / 1e9 if device.type == "cuda" else 0.0
            now = scored(after, target)
            yield (
                f"| {seconds:g} s, {name} | {run.steps} | {run.seconds:.1f} | {run.steps / run.seconds:.2f} | "
                f"{peak:.2f} | {before.picture:.2f} to {now.picture:.2f} | {before.frames:.2f} to {now.frames:.2f} |"
            )


def blurred(size: Size, device: torch.device) -> tuple[Gaussians, Target]:
    """Splats as a decoder might make them, larger and paler than true ones, and what the true ones show."""
    scene = benchmark_scene(size.splats, size.width, size.height, (1.0, 3.0))
    true = Gaussians(**{name: scene[name].to(device) for name in SPLATS})
    base = CameraTrajectory(c2w=torch.eye(4)[None], K=scene["Ks"], height=size.height, width=size.width)
    paths = camera_paths(base, PathSettings("six_paths", size.frames))
    path = base.at(torch.cat([p.c2w for p in paths]), torch.cat([p.K for p in paths]))
    frames = torch.empty(
        len(path), size.height, size.width, 3, dtype=torch.uint8, pin_memory=device.type == "cuda"
    )  # fmt: skip
    with torch.no_grad():
        for row in range(len(path)):
            frames[row] = (draw_colors(true, path[row : row + 1].to(device))[0].clamp(0, 1) * 255).round().byte()
    given = replace(true, scales=true.scales * 1.5, opacities=true.opacities * 0.7, colors=true.colors * 0.7 + 0.15)
    picture = Picture(pixels=frames[0].float() / 255, camera=path[:1])
    return given, Target(frames=frames, cameras=path, weights=torch.ones(len(path)), picture=picture, views=len(paths))

"""How long the 3D cache takes to be drawn at full size, and what memory it needs."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from ..cameras.moves import PathSettings, camera_paths
from ..cameras.path import pinhole_camera
from ..cost.timing import measure
from ..gen3c.cache.align import align
from ..gen3c.cache.cache3d import Cache3D
from ..geometry.geometry import Geometry

BLOBS = 12  # discs that stand in front of the wavy wall


def benchmark_geometry(frames: int, height: int, width: int, seed: int = 0) -> Geometry:
    """Discs at depth 0.5 .. 0.8 before a wavy wall at 0.9 .. 1.1 and a sky: 2 % of the pixels are depth edges."""
    random = torch.Generator().manual_seed(seed)
    v, u = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    depth = 1 + 0.1 * torch.sin(9 * u) * torch.cos(7 * v)
    depth[: height // 4] = torch.inf
    for x, y, z in torch.rand(BLOBS, 3, generator=random):
        depth = torch.where(3 * (u - 2 * x + 1) ** 2 + (v - 2 * y + 1) ** 2 < 0.03, 0.5 + 0.3 * z, depth)
    camera = pinhole_camera(width, height, 38.0)
    return Geometry(
        frames=torch.rand(1, height, width, 3, generator=random).expand(frames, -1, -1, -1),
        depth=depth.expand(frames, -1, -1),
        valid=depth.isfinite().expand(frames, -1, -1),
        cameras=replace(camera, c2w=camera.c2w.repeat(frames, 1, 1), K=camera.K.repeat(frames, 1, 1)),
    )


def rows(
    device: torch.device, frames: int = 121, height: int = 704, width: int = 1280, repeats: int = 3
) -> Iterator[str]:
    """Seconds and memory by what is drawn, along the last of the six paths."""
    geometry = benchmark_geometry(frames, height, width).to(device)
    picture, clip = Cache3D.of(geometry[:1]), Cache3D.of(geometry)
    two = Cache3D(buffers=picture.buffers * 2)
    path = camera_paths(geometry.cameras[:1], PathSettings("clockwise", frames))[0].to(device)
    depth, mask = geometry.depth[0].clamp(max=100), geometry.valid[0]
    yield f"{frames} frames of {width}x{height}, {len(picture.meshes()[0][0].faces)} triangles over depth edges"
    yield ""
    yield "| what | s | GB above the cache |"
    yield "|---|---|---|"
    for name, call in (
        ("a picture", lambda: picture.render(path, foreground_masking=False)),
        ("a picture, foreground masking", lambda: picture.render(path)),
        ("two pictures, foreground masking", lambda: two.render(path)),
        ("a clip, foreground masking", lambda: clip.render(path)),
        ("alignment of a picture", lambda: align(depth, 1.1 * depth, mask, path.K[0], path.c2w[0])),
    ):
        seconds, peak = measure(call, device, repeats)
        yield f"| {name} | {seconds:.3g} | {peak:.2f} |"

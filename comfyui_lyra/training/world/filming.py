"""Procedural scenes filmed along their six paths, and what their 3D cache shows there: the data of the mini models."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....kernels_glue.devices import by_device
from ...cameras.moves import still
from ...cameras.path import CameraTrajectory
from ...gen3c.cache.cache3d import BATCH_BYTES, BYTES_A_PIXEL, Cache3D
from ...gen3c.cache.warp import PAIR, Warped, forward_warp
from ...geometry.geometry import Geometry
from ...shapes import check_shapes
from .draw_scenes import LENGTHS, base_camera, draw_scenes, scene_paths
from .raytrace import seen_from, trace
from .scenes import Scenes

CLIPS = {"cpu": 6, "cuda": 96}  # warped at once; 90 MB each at mini size
LARGE = 1 << 22  # pixels of a clip; larger ones go alone and some frames at a time: mini has 0.26 million, Lyra 109
AT_ONCE = 16  # scenes filmed at once
MOVING = (2, 5, 8)  # of ten parts


@dataclass(frozen=True, eq=False, kw_only=True)
class Filmed:
    """S scenes along P paths each, and the pictures that the teacher starts from: F' = 1, or F of a moving scene."""

    scenes: Scenes
    rgb: Tensor  # [S, P, F, H, W, 3] bytes
    depth: Tensor  # [S, P, F, H, W] infinite for the sky
    source: Tensor  # [S, F', H, W, 3] bytes
    source_depth: Tensor  # [S, F', H, W]
    paths: tuple[tuple[CameraTrajectory, ...], ...]  # of each scene
    base: CameraTrajectory  # the source's camera, F' times

    def __post_init__(self) -> None:
        check_shapes(self, rgb="S P F H W 3", depth="S P F H W", source="S M H W 3", source_depth="S M H W")

    @property
    def times(self) -> Tensor:
        """When the frames of a path are taken, 0..1; a scene at rest is the same at all times."""
        return torch.linspace(0, 1, self.rgb.shape[2], device=self.rgb.device)

    def geometry(self) -> Geometry:
        """The sources of all scenes one after another, as the teacher's 3D cache takes them."""
        count = self.source.shape[0] * self.source.shape[1]
        return Geometry(
            frames=self.source.flatten(0, 1).float() / 255,
            depth=self.source_depth.flatten(0, 1),
            valid=self.source_depth.flatten(0, 1).isfinite(),
            cameras=still(self.base, count).to(self.source.device),
        )

    def visible(self) -> Tensor:
        """Pixels [S, P, F, H, W] that the source shows at the same time (bool); the others are holes."""
        views = self.rgb.shape[1]
        rows = [row for row in range(len(self.scenes)) for _ in range(views)]
        paths = [path for paths in self.paths for path in paths]
        found = seen_from(self.scenes[rows], self.depth.flatten(0, 1), paths, self.base, self.times)
        return found.unflatten(0, (-1, views))


def film(
    seeds: Sequence[int],
    *,
    size: tuple[int, int],
    frames: int,
    moving: bool = False,
    lengths: str = "paper",
    device: torch.device | str = "cpu",
) -> Filmed:
    """Scenes of some seeds along their six paths, ``lengths`` apart, pictures of (height, width) ``size``."""
    scenes, base = draw_scenes(seeds, moving).to(device), base_camera(*size)
    paths = tuple(scene_paths(seed, frames, *size, lengths) for seed in seeds)
    rows = [row for row in range(len(seeds)) for _ in paths[0]]
    times = torch.linspace(0, 1, frames, device=device)
    traced = trace(scenes[rows], [path for of_scene in paths for path in of_scene], times)
    sources = still(base, frames if moving else 1)
    source = trace(scenes, [sources] * len(seeds), times[: len(sources)])
    return Filmed(
        scenes=scenes,
        rgb=to_bytes(traced.rgb).unflatten(0, (len(seeds), -1)),
        depth=traced.depth.unflatten(0, (len(seeds), -1)),
        source=to_bytes(source.rgb),
        source_depth=source.depth,
        paths=paths,
        base=base,
    )


def film_mix(
    seeds: Sequence[int], *, size: tuple[int, int], frames: int, device: torch.device | str = "cpu"
) -> Iterator[Filmed]:
    """Some scenes at a time, both ranges of path lengths in turn and 3 of 10 parts moving, wherever it is cut off."""
    for number, start in enumerate(range(0, len(seeds), AT_ONCE)):
        yield film(
            seeds[start : start + AT_ONCE],
            size=size,
            frames=frames,
            moving=number % 10 in MOVING,
            lengths=list(LENGTHS)[number % len(LENGTHS)],
            device=device,
        )


@torch.no_grad()
def draw_caches(
    geometry: Geometry,
    paths: Sequence[Sequence[CameraTrajectory]],
    foreground_masking: bool = True,
) -> Warped:
    """What the 3D caches of S sources show along P paths each, as ``Cache3D.render`` draws one: S P F pictures.

    ``geometry`` holds the sources one after another, all one picture or all a clip; ``paths`` [S][P] have one length.
    Of large ones some frames are drawn at a time.
    """
    cache, moments = Cache3D.of(geometry), len(geometry.frames) // len(paths)
    (buffer,), device = cache.buffers, geometry.depth.device
    meshes = cache.meshes()[0] if foreground_masking else None
    clips = [(row, path) for row, of_source in enumerate(paths) for path in of_source]
    frames = len(clips[0][1])
    padded = [*range(frames), *[frames - 1] * (-frames % PAIR)]  # pairs of frames never join two clips
    rows = [row * moments + (frame if moments > 1 else 0) for row, _ in clips for frame in padded]
    w2c = torch.cat([path.viewmats[padded] for _, path in clips]).to(device)  # inverses on the CPU
    K = torch.cat([path.K[padded] for _, path in clips]).to(device)
    at_once, found = pictures_at_once(len(padded), *geometry.depth.shape[1:], device), []
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        surfaces = meshes and [meshes[row] for row in rows[some]]
        image, points, mask = (getattr(buffer, name)[rows[some]] for name in ("image", "points", "mask"))
        drawn = forward_warp(image, points, mask, w2c[some], K[some], surfaces)
        found.append((drawn.image, drawn.mask, drawn.depth))
    image, mask, depth = (torch.cat(parts) for parts in zip(*found, strict=True))
    image, mask, depth = (t.unflatten(0, (-1, len(padded)))[:, :frames].flatten(0, 1) for t in (image, mask, depth))
    return Warped(image=image, mask=mask, depth=depth)


def pictures_at_once(frames: int, height: int, width: int, device: torch.device) -> int:
    """How many pictures are warped together, of clips of ``frames``; an even number, as pairs share a weight."""
    if is_large(frames, height, width):
        return max(BATCH_BYTES // (BYTES_A_PIXEL * height * width) // PAIR, 1) * PAIR
    return by_device(CLIPS, device) * frames


def is_large(frames: int, height: int, width: int) -> bool:
    """Whether clips of that size are worked on one by one."""
    return math.prod((frames, height, width)) > LARGE


def warped(filmed: Filmed) -> tuple[Tensor, Tensor]:
    """What the 3D cache shows along each path: bytes [S P, F, H, W, 3], drawn [S P, F, H, W].

    ``drawn`` is bool; where it is not, pixels are black.
    """
    found, frames = draw_caches(filmed.geometry(), filmed.paths), filmed.rgb.shape[2]
    pixels = to_bytes((found.image + 1) / 2).permute(0, 2, 3, 1)
    return pixels.unflatten(0, (-1, frames)), (found.mask[:, 0] > 0).unflatten(0, (-1, frames))


def to_bytes(pictures: Tensor) -> Tensor:
    """0..255 of values in [0, 1]."""
    return (pictures * 255).round_().clamp_(0, 255).byte()

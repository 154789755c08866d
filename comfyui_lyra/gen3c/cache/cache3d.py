"""The 3D cache: what has been seen, as coloured points, drawn into new cameras by ``warp`` (teacher.md 3)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...callbacks import OnStep, no_progress, part
from ...cameras.path import CameraTrajectory
from ...configs import BUFFERS
from ...geometry.geometry import Geometry, unproject
from ...shapes import check_shapes
from .align import align
from .occlusion import BoundaryMesh, boundary_mesh
from .warp import PAIR, Warped, forward_warp

FARTHEST = 100.0  # depth is cut here; the background lies at it
FARTHEST_NEW = 1e4  # the same for pictures that join later, before and after their alignment
RELIABLE = 0.05  # greatest relative depth range of a 5 x 5 window that is no depth edge, as the reference has it
REFERENCE_WIDTH = 1280  # columns of the pictures it has it for
LARGEST_RANGE = 0.5  # what is an edge however coarse the picture is
BATCH_BYTES = 2 << 30  # working memory of one batch of warps
BYTES_A_PIXEL = 400  # what a warp needs, foreground masking and sorting on a GPU included


@dataclass(frozen=True, eq=False, kw_only=True)
class PointBuffer:
    """One remembered picture (F = 1), or a clip with points of its own at each time."""

    image: Tensor  # [F, 3, H, W] in [-1, 1]
    points: Tensor  # [F, H, W, 3] world
    mask: Tensor  # [F, 1, H, W] 1 where points are reliable, else 0
    boundary: Tensor  # [F, H, W] bool, depth edges whatever is drawn: what the foreground mesh spans

    def __post_init__(self) -> None:
        check_shapes(self, image="F 3 H W", points="F H W 3", mask="F 1 H W", boundary="F H W")

    def __getitem__(self, frames: slice) -> "PointBuffer":
        return replace(self, **{name: getattr(self, name)[frames] for name in ("image", "points", "mask", "boundary")})


@dataclass(frozen=True, eq=False, kw_only=True)
class Rendered:
    """What the transformer is shown of N buffers, newest first."""

    pixels: Tensor  # [F, N, 3, H, W] in [-1, 1], -1 where nothing landed
    masks: Tensor  # [F, N, 1, H, W]

    def __post_init__(self) -> None:
        check_shapes(self, pixels="F N 3 H W", masks="F N 1 H W")


def edge_range(width: int) -> float:
    """RELIABLE for pictures of ``width`` columns: five pixels of a coarse one span more of the same slope.

    With the reference's number the ground before the camera is all edges at 160 columns, and missing from the cache.
    """
    return min(RELIABLE * max(1.0, REFERENCE_WIDTH / width), LARGEST_RANGE)


def reliability(depth: Tensor, threshold: float = RELIABLE) -> Tensor:
    """Where depth [F, H, W] is positive and varies by less than ``threshold`` of its mean in a 5 x 5 window (bool).

    Beyond the picture the mean counts zeros, so its edge is a little less reliable.
    """
    window = depth[:, None]
    spread = F.max_pool2d(window, 5, 1, 2) + F.max_pool2d(-window, 5, 1, 2)
    return ((spread / (F.avg_pool2d(window, 5, 1, 2) + 1e-6) < threshold) & (window > 0))[:, 0]


def remember(
    image: Tensor,
    depth: Tensor,
    K: Tensor,
    c2w: Tensor,
    mask: Tensor | None = None,
    threshold: float = RELIABLE,
    edges: float = RELIABLE,
) -> PointBuffer:
    """Points of pictures [F, 3, H, W] with depth [F, H, W], reliable ones only unless ``threshold`` is 1 or more.

    ``mask`` [F, H, W] (bool) drops some more. ``edges`` is the threshold for the surfaces of foreground masking.
    """
    kept = reliability(depth, threshold) if threshold < 1 else torch.ones_like(depth, dtype=torch.bool)
    return PointBuffer(
        image=image,
        points=unproject(depth, K, c2w),
        mask=(kept if mask is None else kept & mask)[:, None].to(image.dtype),
        boundary=~reliability(depth, edges),
    )


def chunks(frames: int, length: int = 121) -> list[slice]:
    """The parts of ``length`` frames in which a video is made, each beginning with the last frame of the one before."""
    count, rest = divmod(frames - 1, length - 1)
    if rest or count < 1:
        fitting = [(length - 1) * n + 1 for n in (max(count, 1), max(count, 1) + 1)]
        raise ValueError(
            f"{frames} frames cannot be made in chunks of {length} that share a frame; use {length} (one chunk) or "
            f"{' or '.join(str(number) for number in fitting if number > length)}"
        )
    return [slice(start, start + length) for start in range(0, frames - 1, length - 1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Cache3D:
    """Remembered pictures, newest first, drawn into every camera; or one clip, frame i drawn into camera i (4D)."""

    buffers: tuple[PointBuffer, ...]

    @classmethod
    @part("draw the 3D cache")
    def of(cls, geometry: Geometry, threshold: float | None = None) -> "Cache3D":
        """The cache of a picture or clip. The background (infinite depth) is drawn, what else is not valid is not.

        ``threshold`` is the ``edge_range`` of the pictures' width if None.
        """
        drawn = geometry.valid | geometry.depth.isinf()
        depth = geometry.depth.nan_to_num(FARTHEST).clamp(0, FARTHEST)
        cameras, video = geometry.cameras, geometry.frames.permute(0, 3, 1, 2) * 2 - 1
        edges = edge_range(depth.shape[-1])
        kept = edges if threshold is None else threshold
        return cls(buffers=(remember(video, depth, cameras.K, cameras.c2w, drawn, kept, edges),))

    @property
    def is_dynamic(self) -> bool:
        """Whether each time has points of its own."""
        return len(self.buffers[0].image) > 1

    def __getitem__(self, frames: slice) -> "Cache3D":
        """The frames of a chunk; a picture is the same in all of them."""
        return Cache3D(buffers=tuple(buffer[frames] for buffer in self.buffers)) if self.is_dynamic else self

    @torch.inference_mode()
    def updated(self, image: Tensor, depth: Tensor, camera: CameraTrajectory) -> "Cache3D":
        """Remember one more picture [1, 3, H, W] with depth [1, H, W], aligned to what its camera sees of the newest.

        Once BUFFERS pictures are held the newest gives way and the first of all stays, as in the reference. The
        foreground mesh is each buffer's own (the reference keeps the first picture's for all).
        """
        if self.is_dynamic:
            raise ValueError("3D cache: a clip's cache holds every time already and takes no further picture")
        camera, depth = camera.to(depth.device), depth.nan_to_num(FARTHEST_NEW).clamp(0, FARTHEST_NEW)
        seen = self.warp(camera.viewmats, camera.K)
        aligned = align(depth[0], seen.depth[0], seen.mask[0, 0] > 0, camera.K[0], camera.c2w[0])
        aligned = aligned[None].clamp(max=FARTHEST_NEW)
        edges = edge_range(camera.width)
        newest = remember(image, aligned, camera.K, camera.c2w, threshold=edges, edges=edges)
        return Cache3D(buffers=(newest, *(self.buffers if len(self.buffers) < BUFFERS else self.buffers[1:])))

    def warp(self, w2c: Tensor, K: Tensor, meshes: Sequence[Sequence[BoundaryMesh]] | None = None) -> Warped:
        """Draw N buffers into F cameras [F, 4, 4] and [F, 3, 3] as F * N pictures, buffers fastest.

        That order makes the pairs. ``meshes``, those of each buffer, remove what they hide.
        """
        count, frames = len(self.buffers), len(w2c)
        image, points, mask = (
            torch.stack([getattr(b, name).expand(frames, -1, -1, -1) for b in self.buffers], 1).flatten(0, 1)
            if count > 1
            else getattr(self.buffers[0], name).expand(frames, -1, -1, -1)
            for name in ("image", "points", "mask")
        )
        drawn = [of_buffer[i % len(of_buffer)] for i in range(frames) for of_buffer in meshes] if meshes else None
        w2c, K = (matrices.repeat_interleave(count, 0) for matrices in (w2c, K))
        return forward_warp(image, points, mask, w2c, K, drawn)

    def meshes(self) -> list[list[BoundaryMesh]]:
        """The surfaces over each buffer's depth edges, one a frame."""
        return [[boundary_mesh(*pair) for pair in zip(b.points, b.boundary, strict=True)] for b in self.buffers]

    @part("draw the 3D cache")
    @torch.inference_mode()
    def render(
        self,
        cameras: CameraTrajectory,
        foreground_masking: bool = True,
        on_step: OnStep = no_progress,
    ) -> Rendered:
        """Draw each buffer into each camera; ``foreground_masking`` removes background seen through the foreground."""
        frames, height, width = self.buffers[0].points.shape[:3]
        if (cameras.height, cameras.width) != (height, width):
            raise ValueError(
                f"3D cache: cameras of {cameras.width}x{cameras.height} for pictures of {width}x{height}; "
                "make the camera path from the same geometry"
            )
        if frames not in (1, len(cameras)):
            raise ValueError(f"3D cache: {len(cameras)} cameras for a clip of {frames} frames; expected one a frame")
        cameras, count = cameras.to(self.buffers[0].points.device), len(self.buffers)
        w2c, K, meshes = cameras.viewmats, cameras.K, self.meshes() if foreground_masking else None
        step = max(BATCH_BYTES // (BYTES_A_PIXEL * height * width * count) // PAIR, 1) * PAIR
        pixels = w2c.new_empty(len(cameras), count, 3, height, width)
        masks = w2c.new_empty(len(cameras), count, 1, height, width)
        for start in range(0, len(cameras), step):
            part = slice(start, start + step)
            part_meshes = meshes and [m if len(m) == 1 else m[part] for m in meshes]
            warped = self[part].warp(w2c[part], K[part], part_meshes)
            pixels[part] = warped.image.unflatten(0, (-1, count))
            masks[part] = warped.mask.unflatten(0, (-1, count))
            on_step(min(start + step, len(cameras)), len(cameras))
        return Rendered(pixels=pixels, masks=masks)

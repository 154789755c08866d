"""What splats are refined to: the teacher's frames as bytes, and the picture that they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cameras.path import CameraTrajectory
from ..gen3c.cache.cache3d import Cache3D
from ..geometry.fit import fit
from ..geometry.geometry import Geometry
from ..latents import MultiViewLatents
from ..recon.inputs import in_splat_world
from ..shapes import check_shapes

REACH = 1 / 16  # of a clip: how far from a bullet time a frame counts 1 / e as much as the nearest
OWN = 0.5  # share of the draws that the frames of the bullet time itself get
SAME = 1e-3  # of the cameras' spread, and in the entries of a rotation: cameras so near are one
WARPED = 8  # frames at once, a multiple of the warp's pairs
FARTHEST_KNOWN = 20.0  # scene units; the sky has no depth
TOLERANCE = 1e-3  # between entries of equal camera matrices, one of which has been through a file


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """A picture that splats must show exactly."""

    pixels: Tensor  # [H, W, 3] in [0, 1]
    camera: CameraTrajectory  # one, in the world of the splats
    is_source: bool = True  # false: a frame of the teacher's stands in


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """What the splats of one bullet time should show."""

    frames: Tensor  # [M, H, W, 3] bytes, in the host's memory
    cameras: CameraTrajectory  # M, in the world of the splats
    weights: Tensor  # [M] how often each frame is drawn
    picture: Picture | None = None
    views: int = 1  # the M frames are so many paths of equal length, one after another
    known: Tensor | None = None  # [M, H, W] bool: what the source shows of each frame; the teacher invented the rest
    depth: Tensor | None = None  # [M, H, W] camera z of what it shows, half precision, 0 where that is not known

    def __post_init__(self) -> None:
        check_shapes(self, frames="M H W 3", weights="M", **{} if self.known is None else {"known": "M H W"})
        if self.frames.dtype != torch.uint8:
            raise ValueError(f"Target.frames: expected bytes (uint8), got {self.frames.dtype}")
        if len(self.cameras) != len(self.frames) or not self.weights.sum() > 0:
            raise ValueError(f"Target: {len(self.frames)} frames, {len(self.cameras)} cameras, {self.weights} weights")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices [n] of ``count`` different frames, fewer where there are not as many."""
        count = min(count, int((self.weights > 0).sum()))
        return torch.multinomial(self.weights, count, generator=generator)

    def judged(self, most: int) -> Tensor:
        """Indices [n] of at most so many frames, evenly over those that count most: what the result is measured on."""
        best = (self.weights == self.weights.max()).nonzero().squeeze(1)
        return best[torch.linspace(0, len(best) - 1, min(most, len(best))).round().long()]


def chunk_of(latents: MultiViewLatents, cameras: Sequence[CameraTrajectory]) -> MultiViewLatents:
    """The latents whose paths ``cameras`` are in the world of the splats: all, or one chunk of a long clip."""
    parts = [latents.chunk(i) for i in range(latents.chunks)] if latents.chunks > 1 else [latents]
    for part in parts:
        if [len(p) for p in part.cameras] == [len(p) for p in cameras] and all(
            torch.allclose(a.c2w.cpu(), b.c2w.cpu(), atol=TOLERANCE)
            for a, b in zip(in_splat_world(part.cameras), in_splat_world(cameras), strict=True)
        ):
            return part
    here, there = ([len(path) for path in paths] for paths in (cameras, latents.cameras))
    raise ValueError(
        f"camera paths of {here} frames and latents of {there} do not belong together; use the cameras that were "
        "written or given out with the splats of these latents"
    )


def targets(
    films: Tensor,
    cameras: Sequence[CameraTrajectory],
    latents: MultiViewLatents,
    geometry: Geometry | None = None,
    times: Sequence[int] = (0,),
    source: torch.device | str | None = None,
) -> list[Target]:
    """What the splats of each bullet time should show: ``films`` [V, F, H, W, 3], bytes, along ``cameras``.

    A geometry brings the picture, or of a moving scene the clip's own frame of that time; frames from its very camera,
    which the teacher only repeats, count no more. Without one the first frame of the first path stands in for it.
    ``source`` adds what the geometry shows of each frame, found on that device.
    """
    path = CameraTrajectory(
        c2w=torch.cat([p.c2w for p in cameras]).cpu().float(), K=torch.cat([p.K for p in cameras]).cpu().float(),
        height=cameras[0].height, width=cameras[0].width,
    )  # fmt: skip
    placed = None if geometry is None else in_world_of(geometry, cameras, latents)
    known, depth = (None, None) if source is None or placed is None else seen_of(placed, cameras, source)
    found = []
    for time in times:
        weights = closeness(len(films[0]), time if latents.dynamic else None).repeat(len(films))
        picture = picture_at(time, films, path, placed, latents.dynamic)
        if picture is not None and picture.is_source:
            others = weights * ~same_place(path, picture.camera)
            weights = others if others.sum() > 0 else weights
        found.append(Target(
            frames=films.flatten(0, 1), cameras=path, weights=weights, picture=picture, views=len(films),
            known=known, depth=depth,
        ))  # fmt: skip
    return found


def closeness(frames: int, time: int | None) -> Tensor:
    """How often each frame [F] of a path is drawn: all alike, or of a moving scene the nearer to ``time`` the more."""
    if time is None:
        return torch.ones(frames)
    if not 0 <= time < frames:
        raise ValueError(f"bullet time {time} lies outside of the clips' {frames} frames, counted from 0")
    away = (torch.arange(frames) - time).abs() / (REACH * max(1, frames - 1))
    weights = (-away).exp() * (away > 0)
    weights = weights / weights.sum().clamp_min(1e-9) * (1 - OWN)
    weights[time] = OWN
    return weights


def in_world_of(geometry: Geometry, cameras: Sequence[CameraTrajectory], latents: MultiViewLatents) -> Geometry:
    """The geometry's pictures at the frames' size, their cameras in the world of the splats."""
    made = latents.cameras[0]
    geometry = fit(fit(geometry, made.height, made.width), cameras[0].height, cameras[0].width)
    moved = cameras[0].c2w[0].cpu().double() @ torch.linalg.inv(latents.cameras[0].c2w[0].cpu().double())
    own = geometry.cameras
    return replace(geometry, cameras=replace(own, c2w=(moved @ own.c2w.cpu().double()).float(), K=own.K.cpu().float()))


@torch.no_grad()
def seen_of(placed: Geometry, cameras: Sequence[CameraTrajectory], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """What a geometry shows of each frame of V paths, by the 3D cache: known [V F, H, W] (bool), its depth (half).

    Found on a device, kept in the host's memory.
    """
    if len(placed.frames) not in (1, len(cameras[0])):
        raise ValueError(
            f"refine: a clip of {len(placed.frames)} frames for paths of {len(cameras[0])}; to weigh what the source "
            "shows, use the frames that the latents were generated from"
        )
    cache = Cache3D.of(placed.to(device))
    (meshes,), known, depth = cache.meshes(), [], []
    for path in cameras:
        viewmats, K = (t.float().to(device) for t in (path.viewmats, path.K))
        for start in range(0, len(path), WARPED):
            some = slice(start, start + WARPED)
            warped = cache[some].warp(viewmats[some], K[some], [meshes if len(meshes) == 1 else meshes[some]])
            known.append((warped.mask[:, 0] > 0).cpu())
            depth.append(torch.where(warped.depth < FARTHEST_KNOWN, warped.depth, 0).half().cpu())
    return torch.cat(known), torch.cat(depth)


def picture_at(
    time: int, films: Tensor, path: CameraTrajectory, geometry: Geometry | None, moving: bool
) -> Picture | None:
    """The source's frame of a bullet time, or what stands in for the first; None where there is neither."""
    if geometry is not None and (not moving or time < len(geometry.frames)):
        row = slice(time, time + 1) if moving else slice(0, 1)
        return Picture(pixels=geometry.frames[row][0], camera=geometry.cameras[row])
    if moving and time > 0:
        return None
    return Picture(pixels=films[0, 0].float() / 255, camera=path[:1], is_source=False)


def same_place(path: CameraTrajectory, camera: CameraTrajectory) -> Tensor:
    """Which cameras [M] of a path stand and look as ``camera`` does."""
    away = (path.c2w[:, :3, 3] - camera.c2w[:, :3, 3]).norm(dim=-1)
    turned = (path.c2w[:, :3, :3] - camera.c2w[:, :3, :3]).abs().amax((1, 2))
    return (away <= SAME * away.max()) & (turned <= SAME)

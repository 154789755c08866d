"""One training sample: what the network is shown of a scene, and what its renders are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ...cameras.path import CameraTrajectory, relative_to
from ...configs import COMPRESSION
from ...geometry.pictures import crop_resize
from ...shapes import check_shapes
from ..losses import sanitise_depth
from ..stages import Stage
from .sampling import Draw, normalised_times


class SceneSource(Protocol):
    """A generated scene, on disk or in memory. Views count from 0, the time-flipped twins from ``paths`` on."""

    name: str
    paths: int  # forward views
    frames: int  # of every view

    def cameras(self, view: int) -> CameraTrajectory:
        """The view's camera at each frame."""

    def pictures(self, view: int, frames: Sequence[int]) -> Tensor:
        """Some frames [n, H, W, 3] in [0, 1]."""

    def depth(self, view: int, frames: Sequence[int]) -> Tensor:
        """Depth of some frames [n, H, W], 0 where it is unknown."""

    def latents(self, view: int) -> Tensor | None:
        """Latents [C, T, h, w] of the whole clip, in diffusion space, if there are any."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip:
    """One generated view, in memory."""

    frames: Tensor  # [F, H, W, 3], uint8 or float in [0, 1]
    cameras: CameraTrajectory
    depth: Tensor | None = None  # [F, H, W], 0 or not finite where unknown
    latents: Tensor | None = None  # [C, T, h, w] diffusion space

    def __post_init__(self) -> None:
        check_shapes(self, frames="F H W 3", depth="F H W", latents="C T h w")

    def backwards(self) -> "Clip":
        """Pictures, depth and cameras from the last to the first; latents are causal and cannot be turned round."""
        depth = None if self.depth is None else self.depth.flip(0)
        return Clip(frames=self.frames.flip(0), cameras=self.cameras.backwards(), depth=depth)


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipScene:
    """A scene in memory: the forward views, then, for dynamic stages, their time-flipped twins."""

    name: str
    paths: int
    clips: tuple[Clip, ...]

    @property
    def frames(self) -> int:
        """Of every view."""
        return len(self.clips[0].frames)

    def cameras(self, view: int) -> CameraTrajectory:
        """The view's camera at each frame."""
        return self.clips[view].cameras

    def pictures(self, view: int, frames: Sequence[int]) -> Tensor:
        """Some frames [n, H, W, 3] in [0, 1]."""
        found = self.clips[view].frames[list(frames)]
        return found / 255 if found.dtype == torch.uint8 else found

    def depth(self, view: int, frames: Sequence[int]) -> Tensor:
        """Depth of some frames [n, H, W], 0 where it is unknown."""
        clip = self.clips[view]
        if clip.depth is None:
            return clip.frames.new_zeros((len(frames), *clip.frames.shape[1:3]), dtype=torch.float32)
        return sanitise_depth(clip.depth[list(frames)].float())

    def latents(self, view: int) -> Tensor | None:
        """Latents [C, T, h, w] of the whole clip, in diffusion space, if there are any."""
        return self.clips[view].latents


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """V input views of one scene and N supervising pictures; the first input camera is the world's frame."""

    scene: str
    cameras: tuple[CameraTrajectory, ...]  # of the inputs, F frames each, in the order the network reads them
    latents: Tensor | None  # [V, C, T, h, w] diffusion space, or None:
    pictures: Tensor | None  # [V, F, H, W, 3] then has to be encoded first
    targets: Tensor  # [N, H, W, 3] in [0, 1]
    depth: Tensor  # [N, H, W], 0 where it is unknown
    target_cameras: CameraTrajectory  # N
    times: Tensor  # [F] of the input frames, 0..1 over the sample
    time: Tensor | None  # [1] bullet time on the same clock; None where nothing moves

    def __post_init__(self) -> None:
        check_shapes(
            self, latents="V C T h w", pictures="V F H W 3", targets="N H W 3", depth="N H W", times="F", time="1"
        )


def make_sample(stage: Stage, source: SceneSource, draw: Draw) -> Sample:
    """The drawn views and frames of a scene at the stage's size.

    A stage that encodes frames gets pictures. Others get latents, which are those of whole clips: ValueError where
    other frames are drawn, or there are no latents that fit.
    """
    origin = source.cameras(draw.views[0]).c2w[draw.inputs[0][0]]

    def placed(path: CameraTrajectory) -> CameraTrajectory:
        return relative_to([path.resized(*stage.size)], origin)[0]

    cameras = tuple(
        placed(source.cameras(view)[torch.tensor(frames)]) for view, frames in zip(draw.views, draw.inputs, strict=True)
    )
    latents = None if stage.encodes_frames else whole_latents(stage, source, draw)
    pictures = None
    if latents is None:
        shown = zip(draw.views, draw.inputs, strict=True)
        pictures = torch.stack([fit(source.pictures(view, frames), stage.size) for view, frames in shown])
    targets, depth, path = read_targets(stage, source, draw)
    times = normalised_times((*draw.inputs[0], *(() if draw.time is None else (draw.time,))))
    return Sample(
        scene=source.name, cameras=cameras, latents=latents, pictures=pictures, targets=targets, depth=depth,
        target_cameras=placed(path), times=times[: stage.input_frames],
        time=None if draw.time is None else times[stage.input_frames :],
    )  # fmt: skip


def whole_latents(stage: Stage, source: SceneSource, draw: Draw) -> Tensor:
    """Latents [V, C, T, h, w] of the input views."""
    found, wanted = [], (1 + (source.frames - 1) // COMPRESSION, *(size // COMPRESSION for size in stage.size))
    if all(frames == tuple(range(source.frames)) for frames in draw.inputs):
        found = [source.latents(view) for view in draw.views]
        problem = f"has no latents [T h w] {wanted} of all views {draw.views}"
    else:
        problem = f"has clips of {source.frames} frames and latents of these only; {stage.input_frames} are wanted"
    if found and all(latents is not None and tuple(latents.shape[1:]) == wanted for latents in found):
        return torch.stack(found)
    raise ValueError(f"scene {source.name} {problem}")


def read_targets(stage: Stage, source: SceneSource, draw: Draw) -> tuple[Tensor, Tensor, CameraTrajectory]:
    """Pictures [N, H, W, 3], depth [N, H, W] and cameras of the targets; each view is opened once."""
    frames_of: dict[int, list[int]] = {}
    for view, frame in draw.targets:
        frames_of.setdefault(view, []).append(frame)
    pictures, depth, cameras = {}, {}, {}
    for view, frames in frames_of.items():
        pictures[view] = iter(fit(source.pictures(view, frames), stage.size))
        maps = crop_resize(source.depth(view, frames)[:, None], *stage.size, mode="nearest")
        depth[view] = iter(maps[:, 0])
        cameras[view] = source.cameras(view)
    c2w, K = (torch.stack([getattr(cameras[v], name)[f] for v, f in draw.targets]) for name in ("c2w", "K"))
    views = [view for view, _ in draw.targets]
    return (
        torch.stack([next(pictures[view]) for view in views]),
        torch.stack([next(depth[view]) for view in views]),
        replace(cameras[views[0]], c2w=c2w, K=K, name="targets"),
    )


def fit(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames [n, H, W, 3], cropped about the centre and resized."""
    return crop_resize(frames.permute(0, 3, 1, 2), *size).permute(0, 2, 3, 1)

"""The optimisation: a few frames a step, drawn, compared with what they should be, and the splats moved."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..callbacks import OnPicture, OnStep, no_picture, no_progress, part
from ..cameras.path import CameraTrajectory
from ..splats.gaussians import Gaussians
from ..splats.render import Frames, draw_colors, draw_view
from .corrections import PICTURE, Corrections
from .footage import Target
from .leaves import Leaves, pixel_size
from .losses import depth_losses, frame_losses, needles
from .schedule import Clock, RefineSettings, falling

EPSILON = 1e-15  # of Adam: gradients of small splats are small
PICTURES_EVERY = 1.0  # seconds from one preview to the next

Enough = Callable[[], bool]


def not_enough() -> bool:
    """Go on to the end."""
    return False


@dataclass(frozen=True, eq=False, kw_only=True)
class Shots:
    """A few views that a step looks at."""

    rows: Tensor  # [B] which of the target's frames; PICTURE
    c2w: Tensor  # [B, 4, 4]
    K: Tensor  # [B, 3, 3]
    wanted: Tensor  # [B, H, W, 3] in [0, 1]
    weights: Tensor  # [B]
    pixels: Tensor | None = None  # [B, H, W] weights
    depth: Tensor | None = None  # [B, H, W] 0 where it is not known

    def __getitem__(self, some: slice) -> "Shots":
        return replace(self, **{name: t[some] for name, t in vars(self).items() if t is not None})


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """How an optimisation went."""

    steps: int
    seconds: float
    at_once: int  # frames that were drawn together at the end: fewer than asked for where memory ran out
    cameras: CameraTrajectory | None = None  # of the frames as they should have been, if they were corrected


@part("optimise")
def optimise(
    splats: Gaussians,
    target: Target,
    settings: RefineSettings,
    *,
    on_step: OnStep = no_progress,
    on_picture: OnPicture = no_picture,
    enough: Enough = not_enough,
) -> tuple[Gaussians, Run]:
    """Splats, as many as before and where they lie, that show the target better.

    Ends early once ``enough`` says so, with what there is. Where memory runs out fewer frames are drawn at a time,
    with the same result but for rounding. The same seed gives the same result on a CPU, without a limit of seconds.
    ``on_picture`` gets a frame beside what it should be, about every second.
    """
    clock, done, at_once, device = Clock(settings), 0, settings.batch + 1, splats.means.device
    with torch.inference_mode(False), torch.enable_grad():
        leaves, order = Leaves.of(splats), torch.Generator().manual_seed(settings.seed)
        pixel = pixel_size(splats, target.cameras[:1])
        optimizer = torch.optim.Adam(leaves.groups(settings.rates, pixel), eps=EPSILON, fused=splats.means.is_cuda)
        task = Task(
            leaves=leaves, target=target, settings=settings, watch=Preview(on_picture),
            corrections=Corrections(target, settings, pixel, device),
        )  # fmt: skip
        while (share := clock.share(done)) < 1 and not enough():
            for group in optimizer.param_groups:
                group["lr"] = group["first"] * falling(share)
            at_once = task.gradients(choose(target, settings, done, order, device), at_once)
            optimizer.step()
            optimizer.zero_grad()
            task.corrections.step(falling(share))
            done += 1
            on_step(min(settings.steps, round(settings.steps * clock.share(done))), settings.steps)
    cameras = task.corrections.cameras(target.cameras) if settings.poses else None
    return leaves.finished(), Run(steps=done, seconds=clock.seconds, at_once=at_once, cameras=cameras)


def choose(target: Target, settings: RefineSettings, step: int, order: torch.Generator, device: torch.device) -> Shots:
    """The views of a step: frames, and the picture with them or alone."""
    picture, every = target.picture, settings.picture_every
    alone = picture is not None and every > 1 and step % every == 0
    rows = target.draw(settings.batch, order)[: 0 if alone else None]
    weighed, measured = target.known is not None and settings.invented != 1, target.depth is not None and settings.depth
    wanted = [frame.float() / 255 for frame in brought(target.frames, rows, device)]
    pixels = [torch.where(k, 1.0, settings.invented) for k in brought(target.known, rows, device)] if weighed else []
    depth = [known.float() for known in brought(target.depth, rows, device)] if measured else []
    c2w, K, weights = target.cameras.c2w[rows], target.cameras.K[rows], torch.ones(len(rows))
    if picture is not None and (alone or every == 1):
        c2w, K = torch.cat((c2w, picture.camera.c2w)), torch.cat((K, picture.camera.K))
        wanted.append(picture.pixels.to(device).float())
        pixels.append(torch.ones_like(wanted[-1][..., 0]))
        depth.append(torch.zeros_like(pixels[-1]))
        weights = torch.cat((weights, torch.tensor([settings.picture_weight * max(1, len(weights))])))
        rows = torch.cat((rows, torch.tensor([PICTURE])))
    return Shots(
        rows=rows, c2w=c2w.clone().to(device), K=K.clone().to(device), wanted=torch.stack(wanted),
        weights=weights.to(device) / len(weights), pixels=torch.stack(pixels) if weighed else None,
        depth=torch.stack(depth) if measured else None,
    )  # fmt: skip


def brought(stack: Tensor | None, rows: Tensor, device: torch.device) -> list[Tensor]:
    """Some frames of a stack [M, ...] in the host's memory; one by one: an index would copy them out of it first."""
    return [] if stack is None else [stack[row].to(device, non_blocking=True) for row in rows.tolist()]


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """What is moved, towards what."""

    leaves: Leaves
    target: Target
    settings: RefineSettings
    corrections: Corrections
    watch: "Preview"

    def gradients(self, shots: Shots, at_once: int) -> int:
        """Leave the gradients of a step in the leaves; how many views could be drawn at once."""
        while True:
            try:
                for start in range(0, len(shots.weights), at_once):
                    self.loss(shots[start : start + at_once]).backward()
                if self.settings.needles:
                    (self.settings.needles * needles(self.leaves.scales)).backward()
                return at_once
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    raise
            at_once = max(1, min(at_once, len(shots.weights)) // 2)  # here the error has let go of its tensors
            self.corrections.forget()
            for leaf in vars(self.leaves).values():
                if leaf is not None:
                    leaf.grad = None
            torch.cuda.empty_cache()

    def loss(self, shots: Shots) -> Tensor:
        """The weighted sum over some views."""
        drawn, seen = self.draw(shots)
        if self.corrections.changes_colors:
            drawn = self.corrections.shown(drawn, shots.rows)
        losses = frame_losses(drawn, shots.wanted, self.settings.similarity, shots.pixels)
        if seen is not None and shots.depth is not None:
            losses = losses + self.settings.depth * depth_losses(seen.depth, seen.alpha, shots.depth)
        self.watch(drawn, shots.wanted)
        return (losses * shots.weights).sum()

    def draw(self, shots: Shots) -> tuple[Tensor, Frames | None]:
        """Colours [B, H, W, 3]; all that was drawn where depth counts."""
        splats, cameras = self.leaves.splats(), self.target.cameras.at(shots.c2w, shots.K)
        views = [(splats, cameras)]
        if self.corrections.moves_cameras:  # each camera sees the splats a little moved instead
            places = enumerate(shots.rows.tolist())
            views = [(self.corrections.seen(splats, shots.c2w[i], row), cameras[i : i + 1]) for i, row in places]
        if shots.depth is None:
            return torch.cat([draw_colors(*view) for view in views]), None
        frames = [draw_view(*view) for view in views]
        rgb, alpha, depth = (torch.cat([getattr(f, name) for f in frames]) for name in ("rgb", "alpha", "depth"))
        return rgb, Frames(rgb=rgb, alpha=alpha, depth=depth)


class Preview:
    """Shows a frame beside what it should be, now and then."""

    def __init__(self, on_picture: OnPicture):
        self._show, self._last = on_picture, -PICTURES_EVERY

    def __call__(self, drawn: Tensor, wanted: Tensor) -> None:
        """The newest frames [B, H, W, 3]; the last of them is shown if it is time."""
        now = time.perf_counter()
        if self._show is not no_picture and now - self._last >= PICTURES_EVERY:
            self._last = now
            self._show(torch.cat((drawn[-1].detach(), wanted[-1]), dim=1).clamp(0, 1).cpu())

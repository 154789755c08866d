"""The optimisation: a few frames a step, drawn, compared with what they should be, and the splats moved."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..callbacks import OnPicture, OnStep, no_picture, no_progress
from ..splats.gaussians import Gaussians
from ..splats.render import draw_colors
from .footage import Target
from .leaves import Leaves, pixel_size
from .losses import frame_losses
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

    c2w: Tensor  # [B, 4, 4]
    K: Tensor  # [B, 3, 3]
    wanted: Tensor  # [B, H, W, 3] in [0, 1]
    weights: Tensor  # [B]


@dataclass(frozen=True, kw_only=True)
class Run:
    """How an optimisation went."""

    steps: int
    seconds: float
    at_once: int  # frames that were drawn together at the end: fewer than asked for where memory ran out


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
    clock, done, at_once = Clock(settings), 0, settings.batch + 1
    with torch.inference_mode(False), torch.enable_grad():
        leaves, order = Leaves.of(splats), torch.Generator().manual_seed(settings.seed)
        groups = leaves.groups(settings.rates, pixel_size(splats, target.cameras[:1]))
        optimizer = torch.optim.Adam(groups, eps=EPSILON, fused=splats.means.is_cuda)
        watch = Preview(on_picture)
        while (share := clock.share(done)) < 1 and not enough():
            for group in optimizer.param_groups:
                group["lr"] = group["first"] * falling(share)
            shots = choose(target, settings, done, order, splats.means.device)
            at_once = gradients(leaves, target, shots, settings.similarity, at_once, watch)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            on_step(min(settings.steps, round(settings.steps * clock.share(done))), settings.steps)
    return leaves.finished(), Run(steps=done, seconds=clock.seconds, at_once=at_once)


def choose(target: Target, settings: RefineSettings, step: int, order: torch.Generator, device: torch.device) -> Shots:
    """The views of a step: frames, and the picture with them or alone."""
    picture, every = target.picture, settings.picture_every
    alone = picture is not None and every > 1 and step % every == 0
    rows = target.draw(settings.batch, order)[: 0 if alone else None]
    # one by one: an index over several would copy them out of the pinned memory first
    wanted = [target.frames[row].to(device, non_blocking=True).float() / 255 for row in rows.tolist()]
    c2w, K, weights = target.cameras.c2w[rows], target.cameras.K[rows], torch.ones(len(rows))
    if picture is not None and (alone or every == 1):
        c2w, K = torch.cat((c2w, picture.camera.c2w)), torch.cat((K, picture.camera.K))
        wanted.append(picture.pixels.to(device).float())
        weights = torch.cat((weights, torch.tensor([settings.picture_weight])))
    return Shots(
        c2w=c2w.clone().to(device), K=K.clone().to(device), wanted=torch.stack(wanted),
        weights=weights.to(device) / len(weights),
    )  # fmt: skip


def gradients(leaves: Leaves, target: Target, shots: Shots, similarity: float, at_once: int, watch: "Preview") -> int:
    """Leave the gradients of a step in the leaves; how many views could be drawn at once."""
    while True:
        try:
            for start in range(0, len(shots.weights), at_once):
                some = slice(start, start + at_once)
                drawn = draw_colors(leaves.splats(), target.cameras.at(shots.c2w[some], shots.K[some]))
                losses = frame_losses(drawn, shots.wanted[some], similarity)
                (losses * shots.weights[some]).sum().backward()
                watch(drawn, shots.wanted[some])
            return at_once
        except torch.cuda.OutOfMemoryError:
            if at_once == 1:
                raise
        at_once = max(1, min(at_once, len(shots.weights)) // 2)  # here the error has let go of its tensors
        for leaf in vars(leaves).values():
            if leaf is not None:
                leaf.grad = None
        torch.cuda.empty_cache()


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

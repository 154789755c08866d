"""How near splats are to what they should show, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels_glue.devices import by_device
from ..callbacks import part
from ..quality.scores import BEST, psnr
from ..splats.gaussians import Gaussians
from ..splats.render import draw_colors
from .footage import Target
from .optimise import Run

JUDGED = {"cuda": 48, "cpu": 8}  # most of the teacher's frames that are drawn to measure, twice a set of splats


@dataclass(frozen=True, kw_only=True)
class Scores:
    """PSNR in dB; an exact copy counts as 100."""

    frames: float  # mean over some of the teacher's frames
    picture: float | None  # of the source's own; None where a frame of the teacher's stands in, or none is there

    @property
    def mean(self) -> float:
        """Of both, where there are both."""
        return self.frames if self.picture is None else (self.frames + self.picture) / 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Refined:
    """Splats of each bullet time, and how they were before and are now."""

    splats: tuple[Gaussians, ...]
    before: tuple[Scores, ...]
    after: tuple[Scores, ...]
    runs: tuple[Run, ...]

    def report(self) -> str:
        """One line: steps, time, and PSNR before -> after, means over the bullet times."""
        steps, seconds = sum(run.steps for run in self.runs), sum(run.seconds for run in self.runs)
        times = f" for {len(self.runs)} bullet times" if len(self.runs) > 1 else ""
        pictures = [scores.picture for scores in (*self.before, *self.after)]
        picture = "-" if None in pictures else change(self.before, self.after, "picture")
        return (
            f"{steps} steps{times} in {seconds:.1f} s; PSNR before -> after: first picture {picture}, "
            f"teacher's frames {change(self.before, self.after, 'frames')}"
        )


def change(before: Sequence[Scores], after: Sequence[Scores], name: str) -> str:
    """A mean PSNR before and after."""
    first, last = (sum(getattr(score, name) for score in scores) / len(scores) for scores in (before, after))
    return f"{first:.2f} -> {last:.2f} dB"


@part("score")
@torch.inference_mode()
def measure(splats: Gaussians, target: Target) -> Scores:
    """PSNR against the picture and against some of the frames."""
    device = splats.means.device
    rows = target.judged(by_device(JUDGED, device))

    def score(c2w: Tensor, K: Tensor, wanted: Tensor) -> float:
        drawn = draw_colors(splats, target.cameras.at(c2w.to(device), K.to(device)))
        return float(psnr(drawn, wanted.to(device)[None]).clamp_max(BEST))

    each = [
        score(target.cameras.c2w[row, None], target.cameras.K[row, None], target.frames[row].float() / 255)
        for row in rows.tolist()
    ]
    picture = target.picture
    if picture is not None and picture.is_source:
        shown = score(picture.camera.c2w, picture.camera.K, picture.pixels.float())
    else:
        shown = None
    return Scores(frames=sum(each) / len(each), picture=shown)

"""How long splats are refined, with what step sizes, and of how many frames a step."""

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ...kernels_glue.rasterizer.rasterize import rasterize
from ..configs import told

LAST = 0.05  # share of the rates that is left at the end
SMALL = 512 * 288  # pixels: smaller pictures leave a GPU idle when drawn one at a time


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Adam's step sizes at the beginning."""

    means: float = 0.13  # pixels of the frames, at the middle depth of the scene: 1e-3 units at mini size
    scales: float = 1e-2  # of their logarithms
    quats: float = 2e-3  # of unit length
    opacities: float = 3e-2  # of their logits
    colors: float = 5e-3

    def __mul__(self, factor: float) -> "Rates":
        """All rates times a factor."""
        return replace(self, **{name: value * factor for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """What is done to splats. The run ends after ``steps``, or after ``seconds`` if they are not 0."""

    steps: int = 300
    seconds: float = told(0.0, "stop after so many; 0: only the steps count")  # of optimisation
    seed: int = told(0, "of the frames' order")
    batch: int = 6  # frames a step
    picture_every: int = 1  # 1: the picture joins each step's frames; n: every n-th step is of the picture alone
    picture_weight: float = 4.0  # of the picture beside all frames of a step, or beside one where it is alone
    similarity: float = 0.2  # share of 1 - SSIM in the loss; the rest is L1
    shrink: int = 1  # frames are compared at 1 / n of their size
    rates: Rates = field(default_factory=Rates)
    invented: float = told(1.0, "weight of pixels that the picture does not show, which the teacher invented")
    depth: float = told(0.0, "weight of the relative error of depth where the picture's is known")
    needles: float = told(0.0, "weight against splats more than three times as long as wide")
    affine: float = told(0.0, "step size of a change of colours of each path, thrown away; 0: colours are right")
    poses: float = told(0.0, "step size in pixels of corrections of the frames' cameras, as 0.1; 0: they are right")

    def __post_init__(self) -> None:
        if not min(getattr(self, name) for name in EXTRAS) >= 0:
            raise ValueError(f"refine: weights and step sizes are 0 or more, got {self}")
        if self.steps < 1 or self.batch < 1 or self.picture_every < 1 or not self.seconds >= 0:
            raise ValueError(
                f"refine: {self.steps} steps of {self.batch} frames, {self.seconds} seconds, a picture every "
                f"{self.picture_every}; seconds are 0 or more, the others at least 1"
            )


ON_A_CPU: dict[str, Any] = {"batch": 1, "picture_every": 3, "picture_weight": 3.0, "rates": Rates() * 2}


def settings_for(
    device: torch.device | str, pixels: int, *, steps: int = 0, seconds: float = 0.0, seed: int = 0
) -> RefineSettings:
    """What suits a device and frames of so many ``pixels``; 0 ``steps`` are its own number.

    Plain torch, on a CPU and where gsplat is missing, takes a second a small frame. There each step is of one frame,
    at twice the rates, every third of the picture, and large frames are compared at half size.
    """
    small = pixels <= SMALL
    if torch.device(device).type == "cuda" and not rasterize.absent("gsplat"):
        chosen = RefineSettings(batch=6 if small else 2)
    else:
        chosen = RefineSettings(steps=100, shrink=1 if small else 2, **ON_A_CPU)
    return replace(chosen, steps=steps or chosen.steps, seconds=seconds, seed=seed)


EXTRAS = ("invented", "depth", "needles", "affine", "poses")  # settings that are off unless they are asked for


def needs_source(settings: RefineSettings) -> bool:
    """Whether it matters what of each frame the source shows."""
    return settings.invented != 1 or settings.depth > 0


class Clock:
    """How much of a run is over: its steps or its time, whichever is nearer to its end."""

    def __init__(self, settings: RefineSettings):
        self._settings, self._start = settings, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._start

    def share(self, done: int) -> float:
        """0 at the beginning, 1 or more at the end. With a limit of seconds it differs from run to run."""
        limit = self._settings.seconds
        return max(done / self._settings.steps, self.seconds / limit if limit else 0.0)


def falling(share: float) -> float:
    """The factor on the rates: 1 at the beginning, LAST at the end, by an equal factor a step."""
    return math.exp(math.log(LAST) * min(share, 1.0))

"""A run through stages, each with its steps or its share of the time, and how the learning rate follows them."""

import time
from collections.abc import Sequence
from dataclasses import replace

from ..run.checkpoint import Snapshot
from ..run.loop import Run
from ..run.optimizer import OptimConfig
from ..stages import Stage


class StagedRun(Run):
    """A run through stages: each has its steps, or if ``timed`` its share of the time.

    The learning rate of a run of steps follows those of all stages, whatever its own time: the run that goes on after
    this one finds the rate where it would have been.
    """

    def __init__(self, *arguments, timed: bool, steps: int, max_seconds: float | None = None, **more):
        if timed and max_seconds is None:
            raise ValueError("stages that share the time need a time to share; give max_seconds, or a pace in steps")
        super().__init__(*arguments, steps=None if timed else steps, max_seconds=max_seconds, **more)
        self.timed, self.until, self.ends_at = timed, 1.0, {}
        self.sheet = "recon"  # of all stages

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a checkpoint; a timed run's rate counts from where that run began."""
        if self.timed and self.resume:
            self.begin_at(snapshot.config.get("begin", 0))
        super().restore(snapshot)

    def begin_anew(self) -> None:
        """Let the rate of a timed run rise and fall from here, after the steps of an earlier run."""
        if self.timed:
            self.begin_at(self.step)

    def begin_at(self, step: int) -> None:
        """Let the rate rise and fall from a step on, and have the checkpoints say so."""
        optim = self.optimizer.config
        self.optimizer.config = replace(optim, begin=step, steps=max(optim.steps or 0, step + optim.warmup + 1))
        self.config = self.config | {"begin": step}

    def left_of(self, plan: Sequence[Stage]) -> Sequence[Stage]:
        """The stages to go through; of a timed run that is resumed, from the one that its checkpoint was in."""
        names = [stage.name for stage in plan]
        return plan[names.index(self.stage) :] if self.timed and self.stage in names else plan

    def divide(self, plan: Sequence[Stage]) -> None:
        """Share out the time that is left among the stages."""
        begun = self.time_share(time.monotonic())
        shares = [stage.share for stage in plan]
        for number, stage in enumerate(plan, start=1):
            self.ends_at[stage.name] = begun + (1 - begun) * sum(shares[:number]) / sum(shares)

    def enter(self, stage: Stage) -> bool:
        """Go on with a stage, unless it is over."""
        self.steps, self.until = (None, self.ends_at[stage.name]) if self.timed else (stage.stop, 1.0)
        if self.over():
            return False
        self.stage = stage.name
        return True

    def reached(self, stage: Stage) -> bool:
        """Whether the end of the stage that was gone on with is reached, and not only that of the run."""
        return self.time_share(time.monotonic()) >= self.until if self.timed else self.step >= stage.stop

    def ends(self) -> str | None:
        """Why the stage should end."""
        if self.timed and self.time_share(time.monotonic()) >= self.until:
            return "its share of the time is over"
        return super().ends()

    def plan(self, rate: float, now: float) -> None:
        """Let the rate fall with the time of all stages, if that is what there is."""
        if self.timed:
            super().plan(rate, now)


def at_pace(optim: OptimConfig, pace: float | None, stop: int, is_own: bool = False) -> OptimConfig:
    """The settings for stages that end at step ``stop``.

    The rate falls until then if the stop ``is_own``, no preset's, and else until the presets' end at ``pace`` at least.
    """
    if optim.steps is None or pace is None:
        return optim
    return replace(optim, steps=max(optim.warmup + 1, stop, 0 if is_own else int(optim.steps * pace)))

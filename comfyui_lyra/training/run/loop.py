"""What the trainers of all mini models share: steps in half precision, averages, time box, log and checkpoints."""

import copy
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ...callbacks import OnPicture, OnStep, no_picture, no_progress
from ...files.atomic import replacing
from ...files.media.contact_sheet import contact_sheet
from ...versions import pack_version
from ..data.streams import Streams
from .checkpoint import Json, Snapshot, fill, latest, save_snapshot
from .graphs import Replay, recordable
from .log import RunLog
from .optimizer import OptimConfig, Optimizer, moving_average
from .processes import Processes
from .resuming import check_goes_on, check_same
from .time_box import TimeBox

log = logging.getLogger("lyra")

AVERAGED_EVERY = 4  # steps
LOG_SECONDS, SPOKEN_PARTS = 5.0, 20
LEAST_SECONDS = 1e-3  # of a run whose reserve is all the time it is given
SAVE_SECONDS = 60.0  # between two checkpoints: what a kill may cost
LARGEST_CHECKPOINT = 1 << 30  # bytes: one is written every SAVE_SECONDS, and that must not take long
OWN_SEED = 1_000_003  # between the seeds of two processes
SPEED_STEPS = 10  # at the start of a run that do not count for its speed

Part = TypeVar("Part")
Losses = Callable[..., dict[str, Tensor]]  # network in compute precision, what was drawn -> terms, "loss" their sum
Draw = Callable[[], Sequence[Tensor]]  # what a step learns from, of equal shapes every step
Rows = list[tuple[str, Tensor]]  # of a contact sheet: names and clips [F, H, W, 3]
Validate = Callable[[nn.Module], tuple[dict[str, float], Rows]]  # the averaged network -> numbers, what they come from


class Run:
    """One training run of one network in one folder, by one process or several. Use in a with-block.

    Of several processes the first writes what there is to write; the others keep their logs in folders of their own.
    """

    def __init__(
        self,
        model: nn.Module,
        optim: OptimConfig,
        out: Path | str,
        *,
        stage: str,
        config: Json,
        seed: int,
        device: torch.device | str,
        steps: int | None,
        max_seconds: float | None = None,
        reserve: float = 0.0,
        resume: bool = False,
    ):
        if steps is None and max_seconds is None:
            raise ValueError(f"{stage}: give a number of steps, a time, or both; this run would never end")
        self.out, self.stage, self.config = Path(out), stage, config
        self.sheet = stage  # how the names of its pictures begin
        self.processes = Processes(device)
        self.is_first, self.seed = self.processes.is_first, seed + OWN_SEED * self.processes.rank
        self.device = self.processes.device
        self.model = model.to(self.device)
        self.is_half = self.device.type == "cuda"
        self.network = copy.deepcopy(self.model).bfloat16() if self.is_half else self.model
        self.streams = Streams(self.seed, self.device)
        self.optimizer, self.ema = Optimizer(self.model, optim), moving_average(self.model)
        self.steps, self.metrics = steps, {}
        seconds = None if max_seconds is None else max(max_seconds - reserve, LEAST_SECONDS)
        self.box = TimeBox(seconds, watches=False)  # while data is made there is nothing to save
        self.resume = resume

    def __enter__(self) -> "Run":
        self.box.__enter__()
        self.log = RunLog(self.out if self.is_first else self.out / f"process-{self.processes.rank}")
        if self.resume:
            snapshot = latest(self.out, required=True)
            check_same(snapshot.config, self.config, self.out)
            check_goes_on(snapshot.step, self.steps, self.out)
            self.restore(snapshot)
            self.metrics = snapshot.metrics
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Close what is open; a run that was interrupted has ended in good order, and the interruption goes on."""
        self.box.__exit__()
        self.log.close()
        if error is None and self.box.caught:
            raise KeyboardInterrupt

    @property
    def step(self) -> int:
        """Steps taken since the first run."""
        return self.optimizer.step_count

    def generator(self) -> torch.Generator:
        """Random numbers where the network is."""
        return self.streams.own or self.streams.torch

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a checkpoint; without the optimiser's memory that starts afresh."""
        fill(self.model, snapshot.weights, f"step {snapshot.step} of {self.out.name}")
        fill(self.ema.module, snapshot.ema, f"the moving average of {self.out.name}")
        self.ema.n_averaged.fill_(snapshot.ema_updates)
        self.optimizer.restore(snapshot.optimizer, snapshot.step)
        if self.is_first:
            self.streams.restore(snapshot.rng)
        else:
            self.streams = Streams(self.seed + snapshot.step, self.device)
        self._refresh()
        self.stage, optim = snapshot.stage, self.optimizer.config
        if self.steps is None and optim.final_lr is not None:  # until its speed is known, at the last rate
            self.optimizer.config = replace(optim, steps=max(self.step, optim.begin + optim.warmup + 1))
        self.log.event(self.step, "resumed")
        log.info("%s: resumed at step %d", self.stage, self.step)

    def save(self, folder: Path | None = None) -> None:
        """Write a checkpoint, by default into the run's folder.

        Adam's memory is in bfloat16 on a GPU, and left out where the checkpoint would grow beyond
        LARGEST_CHECKPOINT: Adam then starts afresh when the run is resumed.
        """
        if not self.is_first:
            return
        weights, averages = self.model.state_dict(), self.ema.module.state_dict()
        memory = self.optimizer.state(torch.bfloat16 if self.is_half else torch.float32)
        if sum(t.nbytes for t in (*weights.values(), *averages.values(), *memory.values())) > LARGEST_CHECKPOINT:
            memory = {}
            log.info("%s: the checkpoint is without the optimiser's memory, which would make it too large", self.stage)
        snapshot = Snapshot(
            step=self.step, stage=self.stage, weights=weights, ema=averages,
            ema_updates=int(self.ema.n_averaged), rng=self.streams.state(), config=self.config, metrics=self.metrics,
            optimizer=memory,
        )  # fmt: skip
        save_snapshot(folder or self.out, snapshot)

    def averaged(self) -> nn.Module:
        """A copy of the network in float32 with the averaged weights, those that are shipped."""
        return copy.deepcopy(self.ema.module).eval().requires_grad_(False)

    def train(
        self,
        losses: Losses,
        validate: Validate,
        draw: Draw | None = None,
        validations: int = 6,
        on_step: OnStep = no_progress,
        on_picture: OnPicture = no_picture,
    ) -> None:
        """Steps until their number or the time is reached.

        ``validate`` is called ``validations`` times, evenly over these steps or the run's whole time, and at the end;
        ``on_picture`` is called with what it shows.

        The learning rate falls over as many steps as the time seems to allow. ``losses`` is given what ``draw`` draws;
        on a GPU such a step is recorded and replayed. ``on_step`` is called after each step with the steps taken and
        wanted, 0 where only the time ends them; when it raises, a checkpoint is saved first, and one is every minute.
        """
        self.box.watch()
        started, first, spoken = time.monotonic(), self.step, 0.0
        saved = started
        shown = int(self.share(started, first) * validations)
        replay = Replay(losses, self.network, draw()) if draw and recordable(self.device) else None
        while not self.over():
            if replay:
                terms = replay(draw())
            else:
                terms = losses(self.network, *(draw() if draw else ()))
                terms["loss"].backward()
            numbers = self.follow()
            now = time.monotonic()
            since = self.step - first
            if since == SPEED_STEPS:
                started = now  # what is slow once is over
            if not self.is_first:
                continue
            if now - spoken > LOG_SECONDS or since & (since - 1) == 0:  # at first after 1, 2, 4, ... steps
                spoken = now
                rate = max(since - SPEED_STEPS, 1) / max(now - started, 1e-9)
                if since > SPEED_STEPS:
                    self.plan(rate, now)
                numbers |= {name: value.item() for name, value in terms.items()} | {"steps_per_second": rate}
                self.say(numbers)
            if validations > self.share(now, first) * validations >= shown + 1:
                shown += 1
                self.check(validate, on_picture)
            if now - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
            self.tell(on_step)
        if self.is_first:
            log.info("%s: %s, at step %d", self.stage, self.ends() or "ended", self.step)
            self.check(validate, on_picture)

    def over(self) -> bool:
        """Whether no further step is taken. The first process decides, on this and on how long the rate falls."""
        ends, steps = self.processes.of_first((self.ends() is not None, self.optimizer.config.steps or 0))
        if not self.is_first:
            self.optimizer.config = replace(self.optimizer.config, steps=int(steps) or None)
        return bool(ends)

    def tell(self, on_step: OnStep) -> None:
        """Report a step; whoever stops the run by raising can resume it where it was."""
        try:
            on_step(self.step, self.steps or 0)
        except BaseException:  # ComfyUI's interruption is no Exception
            self.save()
            raise

    def ends(self) -> str | None:
        """Why no further step should be taken."""
        if self.steps is not None and self.step >= self.steps:
            return f"{self.steps} steps are done"
        return self.box.ends()

    def plan(self, rate: float, now: float) -> None:
        """Let the learning rate reach its end when the time does, at so many steps a second, or with the last step."""
        if self.box.max_seconds is not None:
            left, optim = self.box.start + self.box.max_seconds - now, self.optimizer.config
            least = optim.begin + optim.warmup + 1
            allowed = max(self.step + int(rate * left), least)
            steps = allowed if self.steps is None else min(allowed, max(self.steps, least))
            self.optimizer.config = replace(optim, steps=steps)

    def share(self, now: float, first: int) -> float:
        """How much of the steps from ``first`` on, or of the time, is over."""
        done = 0.0 if self.steps is None else (self.step - first) / max(1, self.steps - first)
        return max(done, self.time_share(now))

    def time_share(self, now: float) -> float:
        """How much of the time is over; nothing where there is no end to it."""
        return 0.0 if self.box.max_seconds is None else (now - self.box.start) / self.box.max_seconds

    def gather(self, parts: Iterable[Part], most: float) -> Iterator[Part]:
        """The parts of the data, or those that can be made in a share ``most`` of the time, which is logged."""
        for count, part in enumerate(parts, start=1):
            yield part
            if count % SPOKEN_PARTS == 0:
                log.info("%s: %d parts of the data after %.0f s", self.stage, count, time.monotonic() - self.box.start)
            if self.time_share(time.monotonic()) > most:
                log.warning("%s: only %d parts of the data are made, the time for more is over", self.stage, count)
                self.log.event(self.step, "data cut short", parts=count)
                return

    def follow(self) -> dict[str, float]:
        """Follow the gradients left by a backward pass."""
        if self.is_half:
            halves = list(self.network.parameters())
            for master, half in zip(self.model.parameters(), halves, strict=True):
                master.grad = None if half.grad is None else half.grad.float()
                half.grad = None
        self.processes.average([p.grad for p in self.model.parameters() if p.grad is not None])
        numbers = self.optimizer.step()
        self._refresh()
        if self.step % AVERAGED_EVERY == 0:
            self.ema.update_parameters(self.model)
        return numbers

    def check(self, validate: Validate, on_picture: OnPicture = no_picture, network: nn.Module | None = None) -> None:
        """Validate the averaged weights, or ``network``, and show what they make."""
        with torch.no_grad():
            self.metrics, rows = validate(self.averaged() if network is None else network)
        if rows:
            sheet = contact_sheet(rows)
            self.log.picture(self.step, self.sheet, sheet)
            on_picture(sheet)
        self.say(self.metrics)

    def say(self, numbers: Mapping[str, float]) -> None:
        """Numbers to the log and to whoever watches."""
        self.log.numbers(self.step, numbers)
        words = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        log.info("%s %d: %s", self.stage, self.step, words)

    def report(self, **more: Json) -> Path:
        """metrics.json: what was measured last, and with what."""
        path = self.out / f"{self.stage}_metrics.json"
        found = {"step": self.step, "config": self.config, "metrics": self.metrics}
        about = {"pack": pack_version(), "stage": self.stage, **found, **more}
        with replacing(path) as temporary:
            Path(temporary).write_text(json.dumps(about, indent=1))
        return path

    @torch.no_grad()
    def _refresh(self) -> None:
        """Bring the compute copy to the weights."""
        if self.is_half:
            torch._foreach_copy_(list(self.network.parameters()), list(self.model.parameters()))

"""AdamW with warm-up, clipping and refusal of bad steps, and the moving average of the weights (training.md 7)."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

log = logging.getLogger("lyra")

MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # AdamW's own names for what it remembers of a weight


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Settings of the optimiser; the defaults are the full-size stages'. Biases and norms decay like the rest."""

    lr: float = 1e-4
    final_lr: float | None = None  # cosine from lr to this over ``steps``; None keeps lr
    steps: int | None = None  # step at which final_lr is reached
    warmup: int = 100  # steps of a linear rise at the start of the first stage
    begin: int = 0  # step from which warm-up and cosine count
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    clip: float = 1.0  # longest gradient that is followed as it is; longer ones are shortened to it
    norm_cap: float = 5000.0  # gradients longer than this are not followed at all
    patience: int = 20  # bad steps in a row after which the run stops

    def __post_init__(self) -> None:
        if self.final_lr is not None and (self.steps is None or self.steps <= self.begin + self.warmup):
            raise ValueError(
                f"OptimConfig: a cosine to final_lr {self.final_lr} needs steps beyond the warm-up, which ends at "
                f"{self.begin + self.warmup}, got {self.steps}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..."""
        top = self.begin + self.warmup
        if step < top:
            return self.lr * (step - self.begin + 1) / self.warmup
        if self.final_lr is None:
            return self.lr
        share = min(1.0, (step - top) / (self.steps - top))
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * share)) / 2


MINI_OPTIM = OptimConfig(lr=8e-4, final_lr=4e-5, steps=10_200)  # over the mini stages m1..m5


class Optimizer:
    """Follows a model's gradients, one step a call, and counts every step, the refused ones too."""

    def __init__(self, model: nn.Module, config: OptimConfig):
        self.config, self.step_count, self.bad_in_a_row = config, 0, 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.adam = torch.optim.AdamW(
            self.parameters.values(), lr=config.lr, betas=config.betas, eps=config.eps,
            weight_decay=config.weight_decay,
        )  # fmt: skip

    def step(self) -> dict[str, float]:
        """Follow the gradients that a backward pass has left, and clear them; lr, gradient length, ``skipped`` 0 or 1.

        A length that is not finite or above ``norm_cap`` leaves weights and moments untouched. RuntimeError after
        ``patience`` such steps in a row.
        """
        lr = self.config.rate(self.step_count)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip).item()
        is_bad = not norm <= self.config.norm_cap  # NaN compares false
        if is_bad:
            self.bad_in_a_row += 1
            log.warning("step %d skipped: the gradient's length is %g", self.step_count, norm)
        else:
            self.bad_in_a_row = 0
            for group in self.adam.param_groups:
                group["lr"] = lr
            self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.step_count += 1
        if self.bad_in_a_row >= self.config.patience:
            raise RuntimeError(
                f"{self.bad_in_a_row} steps in a row had a gradient that is not finite or longer than "
                f"{self.config.norm_cap:g}; resume from an earlier checkpoint with a lower learning rate"
            )
        return {"lr": lr, "grad_norm": norm, "skipped": float(is_bad)}

    def state(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Adam's memory as flat tensors, ``exp_avg.<weight>`` and so on; bfloat16 halves it, and resumes inexactly."""
        found = {}
        for name, parameter in self.parameters.items():
            memory = self.adam.state.get(parameter, {})  # empty for a weight that no step has used yet
            for moment in MOMENTS:
                if moment in memory:
                    kind = torch.float32 if moment == "step" else dtype
                    found[f"{moment}.{name}"] = memory[moment].detach().to("cpu", kind)
        return found

    def restore(self, state: Mapping[str, Tensor], step: int) -> None:
        """Continue from ``state`` at ``step``; an empty state starts Adam's memory afresh."""
        names = {f"{moment}.{name}" for name in self.parameters for moment in MOMENTS}
        if foreign := sorted(state.keys() - names):
            raise ValueError(f"the optimiser state belongs to another model: {foreign[0]} is no weight of this one")
        self.adam.state.clear()
        for name, parameter in self.parameters.items():
            if f"step.{name}" in state:
                moments = {m: state[f"{m}.{name}"].float() for m in MOMENTS}
                if moments["exp_avg"].shape != parameter.shape:
                    raise ValueError(
                        f"the optimiser state belongs to another model: {name} is "
                        f"{tuple(moments['exp_avg'].shape)}, expected {tuple(parameter.shape)}"
                    )
                self.adam.state[parameter] = {
                    m: t.clone() if m == "step" else t.to(parameter.device, copy=True) for m, t in moments.items()
                }
        self.step_count = step


def moving_average(model: nn.Module, power: float = 17.0) -> AveragedModel:
    """A moving average of a model's weights whose span grows with the run (Karras et al. 2024, EDM2, eq. 2).

    With p = ``power`` + 1 the weights after update i of t count i^p - (i - 1)^p parts of t^p, so they are t / (p + 1)
    updates old on average: a short run is not held back by its beginning, and a long one is averaged over more.
    """

    def take_in(averages: list[Tensor], weights: list[Tensor], updates: Tensor) -> None:
        get_ema_multi_avg_fn((1 - 1 / (int(updates) + 1)) ** (power + 1))(averages, weights, updates)

    return AveragedModel(model, multi_avg_fn=take_in)

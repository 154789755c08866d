"""Ways to film, from the reference's own to the fastest: named sets of settings.

What they change is a regression guard here and no promise of quality: with the released weights nobody has compared
them yet (``lyra bench modes --teacher FILE`` does).
"""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from ...kernels_glue.attention import BLOCK, attention
from ...kernels_glue.quantised import linear
from ..configs import TeacherConfig
from .eight_bit import example

if TYPE_CHECKING:  # which needs diffusers, and a node's list of modes does not
    from .generate import GenerateSettings

log = logging.getLogger("lyra")

Mode = Literal["as set", "exact", "balanced", "fast"]
MODES = get_args(Mode)

ALL_NOISE = (0.0, float("inf"))
GUIDED = (0.5, 20.0)  # noise levels: above, nothing is seen yet, below, only texture is left (Kynkaanniemi et al. 2024)
SPARSE_BELOW = 20.0  # noise level from which tokens have neighbours worth choosing: the first quarter of 16 steps

_EXACT: dict[str, Any] = {
    "steps": 35, "solver": "euler", "guidance": 1.0, "guidance_range": ALL_NOISE, "step_cache": 0.0,
    "attention": "auto", "late_attention": "", "late_below": 0.0, "linears": "exact",
}  # fmt: skip
_SECOND_ORDER = _EXACT | {"solver": "dpmpp_2m", "late_below": SPARSE_BELOW}
SETTINGS: dict[Mode, dict[str, Any]] = {
    "as set": {},
    "exact": _EXACT,
    # half of the steps at second order, guidance where it decides, a step whose first block changes by 5 % reuses
    "balanced": _SECOND_ORDER
    | {"steps": 16, "guidance_range": GUIDED, "step_cache": 0.05, "late_attention": "sol-1.0"},
    "fast": _SECOND_ORDER
    | {"steps": 10, "guidance": 0.0, "step_cache": 0.1, "late_attention": "sol-1.5", "linears": "fp8"},
}


def in_mode(settings: "GenerateSettings", mode: Mode) -> "GenerateSettings":
    """Settings with everything that a mode decides; ValueError for an unknown one."""
    if mode not in MODES:
        raise ValueError(f"mode '{mode}': use one of {', '.join(MODES)}")
    return replace(settings, **SETTINGS[mode])


def as_possible(
    settings: "GenerateSettings", config: TeacherConfig, dtype: torch.dtype, device: torch.device
) -> "GenerateSettings":
    """The same with exact attention or products where a mode's faster ones cannot run; a warning says so."""
    width = config.heads * config.head_dim
    if settings.linears != "exact" and (reason := linear.why_not(settings.linears, *example(width, dtype, device))):
        log.warning("products in %s cannot run here (%s): exact ones instead, slower", settings.linears, reason)
        settings = replace(settings, linears="exact")
    if not settings.late_attention:
        return settings
    shape = (1, 2048, config.heads, config.head_dim)
    tokens = torch.empty(shape, dtype=dtype, device=device).transpose(1, 2)
    reason = attention.why_not(settings.late_attention, tokens, tokens, tokens, sinks=BLOCK)
    if reason is None:
        return settings
    log.warning("attention %s cannot run here (%s): exact attention instead, slower", settings.late_attention, reason)
    return replace(settings, late_attention="", late_below=0.0)


def told(settings: "GenerateSettings") -> str:
    """One line on what is done: for a node, a log."""
    low, high = settings.guidance_range
    where = "" if settings.guidance_range == ALL_NOISE else f" at noise {low:g} to {high:g}"
    parts = [
        f"{settings.steps} steps of {settings.solver}",
        f"guidance {settings.guidance:g}{where}" if settings.guidance else "no guidance",
        f"step cache {settings.step_cache:g}" if settings.step_cache else "no step cache",
        f"attention {settings.attention}"
        + (f", {settings.late_attention} below noise {settings.late_below:g}" if settings.late_attention else ""),
    ]
    if settings.linears != "exact":
        parts.append(f"products in {settings.linears}")
    return "; ".join(parts)

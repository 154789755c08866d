"""The nine stages Lyra's splat decoder is trained in, and the short ones of the mini decoder (training.md 2, 13.5).

Steps count on across stages: a stage starts from the checkpoint of its predecessor and ends at ``stop``. The
dynamic ones start before the pruning: "dynamic" from "multi_view", m6 from m4.

STAGES are what the reference did at full size, for reading and for tests: the trainers take MINI_STAGES.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

TargetDraw = Literal["uniform", "linear", "squared", "exponential"]

PRUNED = 1 - 0.8  # share of splats kept; as a float it is a little less than 0.2


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: what is drawn, what is lost, when it ends."""

    name: str
    size: tuple[int, int]  # height, width of the pictures
    input_frames: int  # of each input view
    target_frames: int  # supervising frames of each input view; of a dynamic stage one time, seen from target_views
    batch: int  # samples a process; the full-size stages run eight processes
    stop: int  # step at which it ends, counted from the first stage
    share: float = 1.0  # of the time of a run that is given a time instead of steps, beside the run's other stages
    max_views: int = 1  # input views are drawn from 1..max_views
    encodes_frames: bool = False  # the latents come from the tokenizer, of the drawn frames; else the teacher's
    target_draw: TargetDraw = "uniform"
    dynamic: bool = False
    target_views: int = 12  # of a dynamic stage
    flipped: bool = True  # of a dynamic stage: time-flipped twins are among the target views
    perceptual_chunk: int = 1  # views whose perceptual term is computed at once
    opacity_weight: float = 0.0
    keep: float = 1.0  # share of splats kept, by opacity


_SMALL = Stage(
    name="176x320_17", size=(176, 320), input_frames=17, target_frames=17, batch=4, stop=10_000,
    encodes_frames=True, perceptual_chunk=32,
)  # fmt: skip
_LONG = Stage(
    name="704x1280_121", size=(704, 1280), input_frames=121, target_frames=9, batch=1, stop=75_000,
)  # fmt: skip
_MULTI = replace(_LONG, name="multi_view", max_views=6, target_draw="exponential", stop=82_000)
_DYNAMIC = replace(_LONG, name="dynamic", max_views=6, target_frames=1, dynamic=True, stop=90_000)
_MINI = Stage(
    name="m1", size=(48, 80), input_frames=9, target_frames=4, batch=8, stop=2_500, share=2.0,
    encodes_frames=True, perceptual_chunk=64,
)  # fmt: skip
_MINI_LONG = replace(
    _MINI, name="m3", size=(96, 160), input_frames=17, target_frames=6, batch=4, encodes_frames=False, stop=5_200,
    share=1.5,
)  # fmt: skip
_MINI_MULTI = replace(
    _MINI_LONG, name="m4", max_views=6, target_frames=4, batch=2, target_draw="exponential", stop=9_200, share=6.0
)
_MINI_DYNAMIC = replace(
    _MINI_LONG, name="m6", max_views=6, target_frames=1, batch=2, dynamic=True, stop=12_200, share=3.0
)

_STAGES = (
    _SMALL,
    replace(_SMALL, name="176x320_49", input_frames=49, target_frames=49, stop=12_500),
    replace(_SMALL, name="352x640_49", size=(352, 640), input_frames=49, target_frames=49, batch=2, stop=15_000,
            perceptual_chunk=8),
    replace(_SMALL, name="704x1280_49", size=(704, 1280), input_frames=49, target_frames=49, batch=1, stop=17_500,
            perceptual_chunk=1),
    _LONG,
    _MULTI,
    replace(_MULTI, name="multi_view_pruned", opacity_weight=0.1, keep=PRUNED, stop=83_000),
    _DYNAMIC,
    replace(_DYNAMIC, name="dynamic_pruned", opacity_weight=0.1, keep=PRUNED, stop=91_000),
)  # fmt: skip
_MINI_STAGES = (
    _MINI,
    replace(_MINI, name="m2", size=(96, 160), batch=4, stop=3_700, share=1.5),
    _MINI_LONG,
    _MINI_MULTI,
    replace(_MINI_MULTI, name="m5", opacity_weight=0.1, keep=PRUNED, stop=10_200, share=3.0),
    _MINI_DYNAMIC,
    replace(_MINI_DYNAMIC, name="m7", opacity_weight=0.1, keep=PRUNED, stop=13_000, share=1.0),
)

STAGES = MappingProxyType({stage.name: stage for stage in _STAGES})
MINI_STAGES = MappingProxyType({stage.name: stage for stage in _MINI_STAGES})

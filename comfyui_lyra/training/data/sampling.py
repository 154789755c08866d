"""Which views and frames a training sample shows, drawn as the reference draws them (training.md 4).

Numbers come from NumPy's legacy generator in a fixed order; only the start of a mirrored clip is Python's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...shapes import plural
from ..stages import Stage, TargetDraw
from .streams import Streams

GAPS = (45, 121)  # frames that a clip cut out of a longer one spans, least and most
STEEPNESS = 3.0  # exponential draws: the last candidate is exp(3) times as likely as the first


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One sample's views and frames; paths count from 0, time-flipped twins from the number of paths on."""

    views: tuple[int, ...]  # input paths, in the order the network reads them
    inputs: tuple[tuple[int, ...], ...]  # frames of each input view
    targets: tuple[tuple[int, int], ...]  # path and camera frame of each supervising picture
    time: int | None = None  # bullet time of a moving scene, in frames


def draw(stage: Stage, streams: Streams, frames: int, paths: int, views: int | None = None) -> Draw:
    """A training sample of a stage, out of clips of ``frames`` frames along ``paths`` paths.

    It has so many input ``views`` or, as in training, 1 to the stage's most.
    """
    if frames < 2:
        raise ValueError(f"clips of {plural(frames, 'frame')} cannot be sampled; at least 2 are needed")
    views = views or min(int(streams.numpy.randint(1, stage.max_views + 1)), paths)
    make = draw_dynamic if stage.dynamic else draw_static
    return make(stage, streams, frames, paths, views)


def draw_static(stage: Stage, streams: Streams, frames: int, paths: int, views: int) -> Draw:
    """The same frames of each of the drawn views supervise; late ones are the harder ones."""
    wanted = stage.input_frames
    if frames >= wanted:
        start, end = draw_span(streams, frames, wanted) if frames > wanted else (0, wanted - 1)
        inputs = tuple(draw_between(streams, start, end, wanted) for _ in range(views))
        candidates = range(start, end + 1)
    else:
        inputs = tuple(mirrored(streams, wanted, frames) for _ in range(views))
        candidates = inputs[0]
    chosen = draw_weighted(streams, candidates, stage.target_frames, stage.target_draw)
    order = draw_views(streams, paths, views)
    return Draw(views=order, inputs=inputs, targets=tuple((view, frame) for view in order for frame in chosen))


def draw_dynamic(stage: Stage, streams: Streams, frames: int, paths: int, views: int) -> Draw:
    """One time, seen from the forward and the time-flipped paths, or without flips from the input paths over again."""
    wanted = stage.input_frames
    if frames > wanted:
        inputs = draw_between(streams, *draw_span(streams, frames, wanted), wanted)
    else:
        inputs = mirrored(streams, wanted, frames, start=0)
    streams.numpy.permutation(wanted)  # candidates between the frames, an option of the reference that is off
    time = int(streams.numpy.choice(inputs, 1, replace=False)[0])
    order = draw_views(streams, paths, views)
    if stage.flipped:
        seen = streams.numpy.permutation(2 * paths)[: stage.target_views]
    else:
        seen = streams.numpy.permutation([order[i % views] for i in range(stage.target_views)])
    targets = tuple((int(view), time) for view in seen)
    return Draw(views=order, inputs=(inputs,) * views, targets=targets, time=time)


def draw_span(streams: Streams, frames: int, least: int) -> tuple[int, int]:
    """First and last frame of a part of a clip, at least ``least`` frames apart."""
    shortest, longest = GAPS
    gap = max(min(frames - 1, int(streams.numpy.randint(shortest, longest + 1))), least)
    start = int(streams.numpy.randint(0, frames - gap))
    return start, start + gap


def draw_between(streams: Streams, start: int, end: int, count: int) -> tuple[int, ...]:
    """``count`` ascending frames from ``start`` to ``end``, both included."""
    between = np.arange(start + 1, end)
    return (start, *np.sort(streams.numpy.choice(between, count - 2, replace=False)).tolist(), end)


def draw_weighted(streams: Streams, candidates: Sequence[int], count: int, kind: TargetDraw) -> tuple[int, ...]:
    """``count`` of the candidates without replacement, by the weight of their position."""
    return tuple(streams.numpy.choice(candidates, count, replace=False, p=shares(len(candidates), kind)).tolist())


def shares(count: int, kind: TargetDraw) -> np.ndarray | None:
    """Probability of each of ``count`` positions [count], or None where all are alike."""
    position = np.arange(count)
    weights = {
        "uniform": None,
        "linear": position,
        "squared": position**2,
        "exponential": np.exp(STEEPNESS * position / max(count - 1, 1)),
    }
    if kind not in weights:
        raise ValueError(f"unknown draw of target frames '{kind}'; use one of {', '.join(weights)}")
    return None if weights[kind] is None else weights[kind] / weights[kind].sum()


def draw_views(streams: Streams, paths: int, count: int) -> tuple[int, ...]:
    """``count`` different paths. The reference's buckets of paths hold one each, which makes them no other draw."""
    return tuple(streams.numpy.permutation(paths)[:count].tolist())


def mirrored(streams: Streams, count: int, frames: int, stride: int = 1, start: int | None = None) -> tuple[int, ...]:
    """``count`` frames of a clip played to and fro, every ``stride``-th, from a random start or from ``start``."""
    if frames < 2:
        raise ValueError(f"a clip of {plural(frames, 'frame')} cannot be mirrored; at least 2 are needed")
    walk = list(range(frames))
    for turn in range(max((count * stride - frames) // (frames - 1), 0) + 1):
        walk += range(1, frames) if turn % 2 else range(frames - 2, -1, -1)
    if start is None:
        start = streams.python.randint(0, len(walk) - count * stride)
    return tuple(walk[start : start + count * stride : stride])


def normalised_times(frames: Sequence[int]) -> Tensor:
    """Frame numbers of inputs and targets together as times [N], 0 at the first frame and 1 at the last."""
    times = torch.tensor(frames, dtype=torch.float32)
    return (times - times.min()) / (times.max() - times.min()).clamp_min(1)

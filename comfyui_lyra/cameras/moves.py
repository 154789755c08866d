"""Camera moves: eight named ones in three rotation modes, the six-path set, and paths through keyframes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, get_args

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from ...kernels_glue.devices import doubled
from ..configs import told
from .path import CameraTrajectory, facing

Move = Literal["left", "right", "up", "down", "zoom_out", "zoom_in", "clockwise", "counterclockwise"]
Preset = Literal["six_paths", Move]
Turn = Literal["center_facing", "no_rotation", "trajectory_aligned"]  # how a move's cameras are rotated
Draw = Literal["seeded", "reference"]
Easing = Literal["linear", "smooth"]

MOVES, PRESETS, ROTATIONS = get_args(Move), get_args(Preset), get_args(Turn)
DRAWS, EASINGS = get_args(Draw), get_args(Easing)

# the paths one scene is generated along, in path order 0..5, with the range of their distances (teacher.md 4.1)
SIX_PATHS: dict[Move, tuple[float, float]] = {
    "left": (0.2, 0.3),
    "right": (0.2, 0.3),
    "up": (0.1, 0.2),
    "zoom_out": (0.3, 0.4),
    "zoom_in": (0.3, 0.4),
    "clockwise": (0.4, 0.6),
}
SIX_CIRCLES = {"circles": 2, "radius_x": 0.15, "radius_y": 0.10}
SEEDS = 2**32  # how many there are


@dataclass(frozen=True)
class PathSettings:
    """Where camera paths go from a base camera: what a widget or a flag says, as ``camera_paths`` takes it.

    Distances count in depths of what the camera looks at. ValueError says which field is wrong, and what it may be.
    """

    preset: Preset = "six_paths"  # all six that a scene is generated along, or one move
    frames: int = 121  # of each path, 1 or more
    movement: float = told(1.0, "factor on the path lengths (1 = Lyra's)")  # 0 or more; 0 stands still
    rotation: Turn = "center_facing"
    seed: int = told(1, "of the path lengths")  # 0 to 2**32 - 1; a single move has none to draw
    center_depth: float = 1.0  # scene units, above 0: how far ahead lies what the camera looks at
    draw: Draw = "seeded"  # how the six distances are drawn, see ``draw_distances``

    def __post_init__(self) -> None:
        choices = {"camera preset": PRESETS, "rotation": ROTATIONS, "draw": DRAWS}
        given = (self.preset, self.rotation, self.draw)
        for (what, valid), name in zip(choices.items(), given, strict=True):
            if name not in valid:
                raise ValueError(_unknown(what, name, valid))
        if self.frames < 1:
            raise ValueError(f"a camera path needs at least one frame, got {self.frames}")
        if not 0 <= self.movement < math.inf:
            raise ValueError(f"movement {self.movement} must be zero or positive; it multiplies every distance")
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed {self.seed} of the paths must lie in 0..{SEEDS - 1}")
        if not 0 < self.center_depth < math.inf:
            raise ValueError(f"center_depth {self.center_depth} must be positive; it is the depth of what is looked at")


def still(base: CameraTrajectory, frames: int) -> CameraTrajectory:
    """The first camera of ``base`` held for a number of frames."""
    if frames < 1:
        raise ValueError(f"a camera path needs at least one frame, got {frames}")
    return replace(base, c2w=base.c2w[:1].repeat(frames, 1, 1), K=base.K[:1].repeat(frames, 1, 1), name="still")


def displacements(
    name: Move, distance: float, frames: int, circles: float = 1.0, radius_x: float = 1.0, radius_y: float = 1.0
) -> Tensor:
    """Where a move of centre depth 1 stands at each frame, [F, 3] in the axes of the base camera (teacher.md 4).

    Straight moves advance by distance/F a frame, so the last frame reaches (F-1)/F of the distance.
    """
    p = torch.zeros(frames, 3, dtype=torch.float64)
    advance = torch.arange(frames, dtype=torch.float64) * distance / frames
    angle = 2 * math.pi * circles * torch.arange(frames, dtype=torch.float64) / max(frames - 1, 1)
    if name in ("left", "right"):
        p[:, 0] = advance if name == "right" else -advance
    elif name in ("up", "down"):
        p[:, 1] = advance if name == "down" else -advance
    elif name in ("zoom_out", "zoom_in"):
        p[:, 2] = advance if name == "zoom_in" else -advance
    elif name in ("clockwise", "counterclockwise"):
        side = 1 if name == "clockwise" else -1
        p[:, 0] = side * distance * radius_x * (angle.cos() - 1)
        p[:, 1] = distance * radius_y * angle.sin()
    else:
        raise ValueError(_unknown("camera move", name, MOVES))
    return p


def move(
    base: CameraTrajectory,
    name: Move,
    distance: float,
    rotation: Turn = "center_facing",
    center_depth: float = 1.0,
    circles: float = 1.0,
    radius_x: float = 1.0,
    radius_y: float = 1.0,
) -> CameraTrajectory:
    """One named move on top of each base camera: ``w2c_i = M_i @ base_w2c_i``, K unchanged (teacher.md 4).

    The distance counts in center depths; that of a normalised geometry is 1 (``Geometry.normalized``). ``base`` holds a
    camera a frame; for a picture that is ``still(camera, F)``.
    M_i turns to face its target and has translation -p, where an exact look-at has -R p: the true position is R^T p
    (a reference quirk the weights were trained with).
    """
    if rotation not in ROTATIONS:
        raise ValueError(_unknown("rotation", rotation, ROTATIONS))
    for what, value in (("distance", distance), ("circles", circles), ("radius_x", radius_x), ("radius_y", radius_y)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: {what} {value} must be zero or positive; the opposite move turns it round")
    if not 0 < center_depth < math.inf:
        raise ValueError(f"{name}: center_depth {center_depth} must be positive; it is the depth of what is looked at")

    p = displacements(name, distance, len(base), circles, radius_x, radius_y) * center_depth  # [F, 3]
    lead = {"center_facing": -1, "no_rotation": 0, "trajectory_aligned": 1}[rotation]
    forward = torch.tensor([0, 0, center_depth], dtype=p.dtype) + lead * p  # the target, seen from p
    if not (forward[:, 2] > 0).all():
        frame = int((forward[:, 2] <= 0).nonzero()[0])
        raise ValueError(
            f"{name} by {distance:g} center depths reaches the point it faces at frame {frame}; "
            "use a distance below 1, or the rotation 'no_rotation'"
        )
    matrix = torch.eye(4, dtype=p.dtype).repeat(len(base), 1, 1)
    matrix[:, :3, :3] = facing(forward)
    matrix[:, :3, 3] = -p
    start = doubled(base.c2w)
    w2c = matrix.to(start.device) @ torch.linalg.inv(start)
    return replace(base, c2w=torch.linalg.inv(w2c).to(base.c2w), name=name)


def draw_distances(settings: PathSettings) -> tuple[float, ...]:
    """Distances of the six paths, uniform in their ranges times the movement (teacher.md 4.1).

    ``seeded`` draws one number a path from one seed. ``reference`` seeds anew for each path, as the reference does
    between its runs, so that all six lie at the same share of their range.
    """
    random = Random(settings.seed)
    return tuple(
        (random if settings.draw == "seeded" else Random(settings.seed)).uniform(*limits) * settings.movement
        for limits in SIX_PATHS.values()
    )


def six_paths(
    base: CameraTrajectory, settings: PathSettings, distances: Sequence[float] | None = None
) -> tuple[CameraTrajectory, ...]:
    """The six paths a scene is generated along, in path order, each named after its move.

    ``base`` is one camera, or a camera for each of the frames. ``distances`` (six) stand in for drawn ones.
    """
    base = _a_frame_each(base, settings.frames)
    if distances is None:
        distances = draw_distances(settings)
    if len(distances) != len(SIX_PATHS):
        raise ValueError(f"{len(distances)} distances for the six paths {', '.join(SIX_PATHS)}; give one each")
    return tuple(
        move(base, name, distance, settings.rotation, settings.center_depth, **SIX_CIRCLES)
        for name, distance in zip(SIX_PATHS, distances, strict=True)
    )


def camera_paths(base: CameraTrajectory, settings: PathSettings) -> tuple[CameraTrajectory, ...]:
    """A path set by the name of its preset: ``six_paths``, or one move as a set of one.

    A single move goes as far as the middle of its range in the six paths, times the movement; down goes as far as up.
    """
    name = settings.preset
    if name == "six_paths":
        return six_paths(base, settings)
    twins: dict[Move, Move] = {"down": "up", "counterclockwise": "clockwise"}
    twin = twins.get(name, name)
    distance = sum(SIX_PATHS[twin]) / 2 * settings.movement
    circles = SIX_CIRCLES if twin == "clockwise" else {}
    base = _a_frame_each(base, settings.frames)
    return (move(base, name, distance, settings.rotation, settings.center_depth, **circles),)


def _a_frame_each(base: CameraTrajectory, frames: int) -> CameraTrajectory:
    """A camera for each of the frames: one is held still, as many are taken as they are."""
    if len(base) not in (1, frames):
        raise ValueError(f"the base path has {len(base)} cameras for {frames} frames; give one, or one a frame")
    return still(base, frames) if len(base) == 1 else base


def through_keyframes(keyframes: CameraTrajectory, frames: int, easing: Easing = "smooth") -> CameraTrajectory:
    """A path from the first keyframe to the last that passes the others at equal intervals.

    ``linear``: straight lines and even turns between keyframes. ``smooth``: cubic splines of position and rotation
    that start and end at rest; K eases from keyframe to keyframe. A single keyframe is held still.
    """
    if easing not in EASINGS:
        raise ValueError(_unknown("easing", easing, EASINGS))
    count = len(keyframes)
    if count == 1:
        return replace(still(keyframes, frames), name=keyframes.name)
    if frames < count:
        raise ValueError(f"{count} keyframes need at least {count} frames, got {frames}")
    times, at = np.arange(count), np.linspace(0, count - 1, frames)
    c2w, K = (tensor.double().cpu().numpy() for tensor in (keyframes.c2w, keyframes.K))
    positions, turns = c2w[:, :3, 3], Rotation.from_matrix(c2w[:, :3, :3])
    path = np.tile(np.eye(4), (frames, 1, 1))
    if easing == "smooth":
        quats = turns.as_quat()
        flips = np.where((quats[1:] * quats[:-1]).sum(1) < 0, -1, 1).cumprod()
        quats[1:] *= flips[:, None]  # the shorter way round from keyframe to keyframe
        splines = CubicSpline(times, np.concatenate((positions, quats), 1), bc_type="clamped")(at)
        path[:, :3, 3], path[:, :3, :3] = splines[:, :3], Rotation.from_quat(splines[:, 3:]).as_matrix()
        whole, share = np.divmod(at, 1)
        at = whole + share * share * (3 - 2 * share)  # for K, which must not overshoot as a spline may
    else:
        path[:, :3, 3], path[:, :3, :3] = _piecewise(times, positions, at), Slerp(times, turns)(at).as_matrix()
    return replace(
        keyframes,
        c2w=torch.from_numpy(path).to(keyframes.c2w),
        K=torch.from_numpy(_piecewise(times, K.reshape(count, 9), at).reshape(frames, 3, 3)).to(keyframes.K),
    )


def _piecewise(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation of each column of values [k, n] at [F] times -> [F, n]."""
    return np.stack([np.interp(at, times, column) for column in values.T], axis=1)


def _unknown(what: str, name: str, valid: Sequence[str]) -> str:
    return f"unknown {what} '{name}'; use one of {', '.join(valid)}"

"""What a person did in the page, as its JSON says: where they stand, at which moment, and the keyframes they set.

    {"camera": {"c2w": [16 numbers by rows], "zoom": 1.0}, "moment": 0, "keyframes": [{"c2w": [...], "zoom": 1.0}, ...]}

``zoom`` multiplies the focal length of the scene's first camera. Nothing at all stands for that camera.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..cameras.moves import Easing, through_keyframes
from ..cameras.path import CameraTrajectory
from ..files.reading import parse_json


@dataclass(frozen=True, eq=False, kw_only=True)
class View:
    """Where one stands in a scene."""

    camera: CameraTrajectory  # one frame
    moment: int  # counted from 0
    keyframes: CameraTrajectory | None = None  # a frame for each

    def path(
        self, frames: int, easing: Easing = "smooth", fps: float = 24.0, start: CameraTrajectory | None = None
    ) -> CameraTrajectory:
        """A path through the keyframes, or one that stands still here where none are set.

        ``start`` (one frame) is passed first, as what films a picture anew begins where that was taken.
        """
        keys = replace(self.keyframes or self.camera, fps=fps, name="keyframes")
        if start is not None:
            rest = keys[int(torch.allclose(keys.c2w[0], start.c2w[0], atol=1e-4)) :]
            keys = keys.at(torch.cat((start.c2w, rest.c2w)), torch.cat((start.K, rest.K)))
        return through_keyframes(keys, frames, easing)


def view_of(text: str, start: CameraTrajectory, moments: int) -> View:
    """The view that a state tells, in pictures of ``start`` (one frame); the last moment where it names a later one.

    Raises ValueError where it is no state of the page.
    """
    if not text.strip():
        return View(camera=start, moment=0)
    try:
        state = parse_json(text)
    except ValueError as error:
        raise ValueError(f"state of the view: not JSON ({error}); empty it to stand at the first camera") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"state of the view: expected an object, got {type(state).__name__}")
    moment, keys = state.get("moment", 0), state.get("keyframes", [])
    if not isinstance(moment, int) or moment < 0 or not isinstance(keys, list):
        raise ValueError("state of the view: 'moment' is counted from 0, 'keyframes' is a list of cameras")
    return View(
        camera=_cameras([state["camera"]], start, "camera") if state.get("camera") else start,
        moment=min(moment, moments - 1),
        keyframes=_cameras(keys, start, "keyframes") if keys else None,
    )


def _cameras(entries: Sequence[Any], start: CameraTrajectory, what: str) -> CameraTrajectory:
    """A frame for each entry, named ``what``."""
    poses, lenses = zip(*(_camera(entry, start.K[0], what) for entry in entries), strict=True)
    return CameraTrajectory(
        c2w=torch.stack(poses), K=torch.stack(lenses), width=start.width, height=start.height, fps=start.fps, name=what
    )


def _camera(entry: Any, K: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """c2w [4, 4] and K [3, 3] of one entry."""
    try:
        c2w = torch.tensor([float(value) for value in entry["c2w"]], dtype=torch.float64).reshape(4, 4)
        zoom = float(entry.get("zoom", 1.0))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"state of the view, {what}: expected 'c2w' with 16 numbers and 'zoom', got {error}"
        ) from error
    turn = c2w[:3, :3]
    rigid = torch.allclose(turn @ turn.T, torch.eye(3, dtype=turn.dtype), atol=1e-3) and torch.linalg.det(turn) > 0
    if not (rigid and torch.isfinite(c2w).all() and 0 < zoom < math.inf):
        raise ValueError(f"state of the view, {what}: its c2w is no rotation and place, or zoom {zoom} is not above 0")
    lens = K.clone()
    lens[[0, 1], [0, 1]] *= zoom
    return c2w.to(K.dtype), lens

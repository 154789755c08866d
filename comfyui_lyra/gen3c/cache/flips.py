"""Time-flipped paths, for training the dynamic splat decoder (training.md 5).

All paths start where the source camera stands and move away from it, so early times are only ever seen from near. A
clip played backwards along the same paths and turned round again shows early times from far.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...cameras.path import CameraTrajectory
from ...geometry.geometry import Geometry


def flip(geometry: Geometry, cameras: Sequence[CameraTrajectory]) -> tuple[Geometry, tuple[CameraTrajectory, ...]]:
    """A clip played backwards, and the same moves around its cameras: what ``generate`` makes flipped paths from.

    A move is M_i = w2c_i @ base_c2w_i of each path; over the reversed base it gives w2c_i = M_i @ base_w2c_(F-1-i). A
    ``PathStore`` that is ``flipped`` saves video, poses and K turned round again.
    """
    if len(geometry.frames) < 2:
        raise ValueError("a single picture cannot be played backwards; flipped paths need a clip")
    if other := [path for path in cameras if len(path) != len(geometry.frames)]:
        raise ValueError(
            f"camera path '{other[0].name}' has {len(other[0])} frames, the clip {len(geometry.frames)}; flipped paths "
            "need one a frame"
        )
    base, reverse = geometry.cameras, geometry.cameras.backwards()
    turned = {name: getattr(geometry, name).flip(0) for name in ("frames", "depth", "valid")}
    return replace(geometry, cameras=reverse, **turned), tuple(
        replace(path, c2w=reverse.c2w @ base.viewmats @ path.c2w, K=path.K.flip(0)) for path in cameras
    )

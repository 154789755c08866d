"""What the teacher is asked to do fits the teacher, and its parts fit each other."""

import logging
import math
from collections.abc import Sequence

from ..cameras.path import CameraTrajectory
from ..configs import CHANNELS, COMPRESSION, TeacherConfig
from ..geometry.geometry import Geometry
from ..tokenizer.protocol import Tokenizer
from .cache.cache3d import chunks
from .text import TextEmbeddings

log = logging.getLogger("lyra")

ELSEWHERE = 0.02  # of the scene's depth, of a turn in radians and of the focal length, up to which a start is the same


def check_inputs(
    config: TeacherConfig,
    tokenizer: Tokenizer,
    geometry: Geometry,
    cameras: Sequence[CameraTrajectory],
    text: TextEmbeddings,
    estimates_depth: bool,
) -> list[slice]:
    """The chunks that the paths are made in; ValueError unless everything fits the teacher and each other."""
    if tokenizer.family != config.family:
        raise ValueError(
            f"tokenizer of family '{tokenizer.family}' and teacher of family '{config.family}' do not belong together; "
            "load both from one family"
        )
    if not cameras:
        raise ValueError("there is no camera path to generate along; make some with Camera Paths")
    height, width = config.trained_size
    for name, found in (("the geometry", geometry.cameras), *((f"camera path '{c.name}'", c) for c in cameras)):
        if (found.height, found.width) != (height, width):
            raise ValueError(
                f"{name} is of {found.width}x{found.height} pictures, the teacher makes {width}x{height}; fit the "
                f"geometry to {width}x{height} and make the camera paths from it"
            )
    frames = len(cameras[0])
    if other := [path for path in cameras if len(path) != frames]:
        raise ValueError(
            f"camera path '{cameras[0].name}' has {frames} frames, '{other[0].name}' has {len(other[0])}; paths of one "
            "scene are of one length"
        )
    parts = chunks(frames, config.trained_frames)
    if len(geometry.frames) not in (1, frames):
        raise ValueError(
            f"a clip of {len(geometry.frames)} frames for camera paths of {frames}; load as many of it, or make paths "
            "of its length"
        )
    if len(parts) > 1 and len(geometry.frames) == 1 and not estimates_depth:
        raise ValueError(
            f"{frames} frames from one picture need a depth estimator for the frames made after the first "
            f"{config.trained_frames}; connect a MoGe model to moge_model (estimate_depth in Python), or use "
            f"{config.trained_frames} frames"
        )
    warn_of_other_starts(geometry, cameras)
    latents = (config.trained_frames - 1) // COMPRESSION + 1
    if tokenizer.latent_channels != CHANNELS or tokenizer.mean.shape[1] < latents:
        raise ValueError(
            f"the tokenizer makes {tokenizer.latent_channels} channels and has statistics of {tokenizer.mean.shape[1]} "
            f"latent frames; the teacher needs {CHANNELS} and {latents}"
        )
    if text.prompt.shape[1:] != (config.text_rows, config.text_dim):
        raise ValueError(
            f"text embeddings {tuple(text.prompt.shape)}, expected [1 {config.text_rows} {config.text_dim}]; encode "
            "the prompt for this teacher"
        )
    return parts


def warn_of_other_starts(geometry: Geometry, cameras: Sequence[CameraTrajectory]) -> None:
    """Say so if a path does not begin with the camera of the picture that every path is made to begin with."""
    first, depth = geometry.cameras[:1], geometry.center_depth  # raises where no depth of the first frame is valid
    for path in cameras:
        shift = float((path.c2w[0, :3, 3] - first.c2w[0, :3, 3].to(path.c2w)).norm()) / depth
        chord = float((path.c2w[0, :3, :3] - first.c2w[0, :3, :3].to(path.c2w)).norm())  # 8^(1/2) sin(turn / 2)
        turn = 2 * math.asin(min(1.0, chord / 8**0.5))
        zoom = float((path.K[0, 0, 0] / first.K[0, 0, 0].to(path.K)).log().abs())
        if max(shift, turn, zoom) > ELSEWHERE:
            log.warning(
                "camera path '%s' does not begin at the picture's camera (%.0f %% of the scene's depth away, %.0f "
                "degrees turned, focal length %.2f times), but its video will; make the path from this geometry",
                path.name,
                100 * shift,
                math.degrees(turn),
                float(path.K[0, 0, 0]) / float(first.K[0, 0, 0]),
            )

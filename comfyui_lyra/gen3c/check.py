"""What the teacher is asked to do fits the teacher, and its parts fit each other."""

from collections.abc import Sequence

from ..cameras import CameraTrajectory
from ..configs import CHANNELS, COMPRESSION, TeacherConfig
from ..geometry import Geometry
from ..tokenizer.protocol import Tokenizer
from .cache3d import chunks
from .text import TextEmbeddings


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
            f"{config.trained_frames}; use {config.trained_frames} frames, or give one"
        )
    _ = geometry.center_depth  # raises where no depth of the first frame is valid
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

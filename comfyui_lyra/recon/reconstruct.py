"""One call from the latents of several paths to Gaussians at any number of bullet times."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..callbacks import OnStep, no_progress
from ..cameras.path import CameraTrajectory
from ..configs import COMPRESSION, PATCH, ReconConfig
from ..latents import MultiViewLatents
from ..shapes import plural
from ..splats.gaussians import GaussianSequence
from ..tokenizer.protocol import Tokenizer
from .inputs import EncodeCache, in_splat_world, relative_times, static_inputs, time_latents
from .model import Recon
from .schedule import DEFAULT, Schedule

log = logging.getLogger("lyra")


@torch.inference_mode()
def reconstruct(
    model: Recon,
    tokenizer: Tokenizer,
    scene: MultiViewLatents,
    times: Sequence[int] = (0,),
    *,
    keep: float | None = None,
    schedule: Schedule = DEFAULT,
    cache: EncodeCache | None = None,
    store: torch.device | None = None,
    on_step: OnStep = no_progress,
) -> tuple[GaussianSequence, tuple[CameraTrajectory, ...]]:
    """Gaussians at each bullet time (a frame index), and the scene's cameras in the Gaussians' world.

    A static decoder does not look at the times and makes one set, of time 0. All that does not depend on the bullet
    time is done once, except the patch embeddings, which are cheaper to redo (0.02 % of a pass) than to hold.
    ``cache`` keeps encoded Pluecker and time pictures for later calls. The Gaussians are float32, on the model's
    device or in ``store``; ``keep`` is their share, by default the config's. ``on_step`` counts encoded views and
    blocks.
    """
    config, clip = model.config, scene.cameras[0]
    times = tuple(times) if config.dynamic else (0,)
    check_scene(config, tokenizer, scene, times)
    cache = cache or EncodeCache(max_bytes=0)
    weight = model.enc_norm.weight
    total, done = len(scene.cameras) + config.blocks * len(times), 0

    def step(*_: int) -> None:
        nonlocal done
        done += 1
        on_step(done, total)

    statistics = (t[:, : scene.latents.values.shape[2]] for t in (tokenizer.mean, tokenizer.std))
    values = scene.latents.to("cpu").to_tokenizer(*(t.cpu() for t in statistics)).values.to(weight)
    cameras = in_splat_world(scene.cameras)
    inputs = static_inputs(config, tokenizer, values, cameras, cache, on_view=step)
    frames = []
    for time in times:
        if config.dynamic:
            clock = relative_times(len(clip))
            source, target = (
                time_latents(some, clip.height, clip.width, tokenizer, values, cache)
                for some in (clock, clock[time : time + 1])
            )
            inputs = replace(inputs, time_source=source, time_target=target)
        (gaussians,) = model(inputs, keep=keep, schedule=schedule, on_step=step)
        frames.append(gaussians.to(store or weight.device, torch.float32))
    return GaussianSequence(frames=tuple(frames), times=times), cameras


def check_scene(config: ReconConfig, tokenizer: Tokenizer, scene: MultiViewLatents, times: Sequence[int]) -> None:
    """Raise ValueError unless decoder, tokenizer, latents, cameras and times belong together.

    Warns, once a call, of a size or length that the decoder was not trained at.
    """
    if not config.family == tokenizer.family == scene.family:
        raise ValueError(
            f"latents of family '{scene.family}', tokenizer '{tokenizer.family}' and splat decoder '{config.family}' "
            "do not belong together; load all three from one family"
        )
    clip = scene.cameras[0]
    for path in scene.cameras:
        if (len(path), path.height, path.width) != (len(clip), clip.height, clip.width):
            raise ValueError(
                f"camera path '{path.name}' has {len(path)} frames of {path.width}x{path.height}, '{clip.name}' has "
                f"{len(clip)} of {clip.width}x{clip.height}; paths of one scene are of one length and size"
            )
    cell = PATCH * COMPRESSION
    if clip.height % cell or clip.width % cell or (len(clip) - 1) % COMPRESSION:
        raise ValueError(
            f"{len(clip)} frames of {clip.width}x{clip.height}: the splat decoder needs 1 + 8 n frames of sizes that "
            f"are multiples of {cell}; released: 121 frames of 1280x704"
        )
    frames = (len(clip) - 1) // COMPRESSION + 1
    wanted = (config.latent_channels, frames, clip.height // COMPRESSION, clip.width // COMPRESSION)
    found = tuple(scene.latents.values.shape[1:])
    if found != wanted:
        raise ValueError(
            f"latents [C T h w] {found} do not fit their cameras: {len(clip)} frames of {clip.width}x{clip.height} "
            f"are {wanted}"
        )
    if frames > (covered := tokenizer.mean.shape[1]):
        raise ValueError(
            f"the tokenizer's statistics cover {plural(covered, 'latent frame')}, the clip has {frames}; "
            f"use at most {plural(COMPRESSION * (covered - 1) + 1, 'frame')}"
        )
    if not times or not all(0 <= time < len(clip) for time in times):
        raise ValueError(f"bullet times {list(times)}: give one or more frame indices in 0..{len(clip) - 1}")
    if (clip.height, clip.width) != config.trained_size or len(clip) != config.trained_frames:
        log.warning(
            "the splat decoder was trained on %d frames of %dx%d; %d frames of %dx%d may leave holes",
            config.trained_frames, config.trained_size[1], config.trained_size[0], len(clip), clip.width, clip.height,
        )  # fmt: skip
    if scene.dynamic and not config.dynamic:
        log.warning("the latents show a moving scene, and the splat decoder is a static one: expect ghosts")

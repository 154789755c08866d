"""The whole story in one page: a picture or a clip -> geometry -> camera paths -> latents -> Gaussians.

What the shell verbs and the nodes call. Each step takes what the one before gives, and may be replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .callbacks import OnPicture, OnStep, no_picture, no_progress, part
from .cameras.moves import PathSettings, camera_paths
from .cameras.path import CameraTrajectory
from .configs import TeacherConfig
from .files.media.depth import holds_lengths, load_depth
from .files.media.depth_values import Meaning, Unit
from .files.media.images import load_image
from .files.media.video import VIDEOS, load_video
from .files.scenes.sdg_writer import PathStore
from .gen3c.generate import GenerateSettings, generate
from .gen3c.load import Teacher
from .gen3c.text import TextEmbeddings, encode_text
from .geometry.fit import aimed, fitted
from .geometry.geometry import Geometry, Scale
from .latents import MultiViewLatents
from .recon.model import Recon
from .recon.reconstruct import reconstruct
from .refine.footage import chunk_of, targets
from .refine.optimise import Enough, not_enough, optimise
from .refine.report import Refined, measure
from .refine.schedule import RefineSettings, needs_source
from .sources.geometry import depth_of_size, from_depth
from .splats.gaussians import Gaussians, GaussianSequence
from .tokenizer.clips import decode_view, to_frames
from .tokenizer.protocol import Tokenizer
from .tokenizer.streaming import CHUNK

BYTES_AT_ONCE = 16  # frames
MOST_PIXELS = 1 << 23  # of a picture, a little over 3840x2160; models take less than 1 << 20

Estimate = Callable[[Tensor], Tensor]
"""Guesses depth: frames [F, H, W, 3] in [0, 1] to levels [F, H, W], 1 nearest and 0 farthest, linear in 1/z."""

CheckPrompt = Callable[[str], str]
"""A hook that sees a prompt before it is encoded and returns the one to use, or raises ValueError.

This is the place of a prompt upsampler and of a text guardrail, as ``gen3c.generate.CheckFrames`` is that of a video
guardrail, which may change or refuse frames. None is set by default, as in the reference's programs that make training
data. Mind the licence of the released weights: NVIDIA's ends the right to use a model whose guardrail is bypassed
without a substantially similar one.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """All that came of one picture or clip."""

    geometry: Geometry
    latents: MultiViewLatents
    splats: GaussianSequence
    cameras: tuple[CameraTrajectory, ...]  # the latents' paths, in the world of the splats


def picture_geometry(
    picture: Path | str,
    depth: Path | str | Estimate,
    meaning: Meaning = "depth",
    *,
    near: float | None = None,
    far: float | None = None,
    fov: float = 38.0,
    scale: Scale = "auto",
    start: int = 0,
    count: int | None = None,
    unit: Unit | None = None,
) -> Geometry:
    """Geometry of a picture file and a depth file (see ``geometry_sources.from_depth``); ``fov`` in degrees, vertical.

    Of a larger picture with a smaller depth of the same shape, the depth is resized to the picture, and the other way
    round; a picture of more than MOST_PIXELS is made smaller. ``unit`` is that of the depth file's numbers. Of a video
    at most ``count`` frames from ``start`` on are read; it needs the depth of each, and a camera that stood still.
    What guesses depth gives levels: their meaning is near-far.
    """
    is_video = Path(picture).suffix.lower() in VIDEOS
    frames, fps = load_video(picture, start, count) if is_video else (load_image(picture, MOST_PIXELS)[None], 24.0)
    if callable(depth):
        return from_depth(frames, depth(frames), "near-far", near, far, fov, scale=scale, still=True, fps=fps)
    values = depth_of_size(load_depth(depth, start, count, unit), *frames.shape[1:3], source=str(depth))
    if len(values) != len(frames):
        raise ValueError(
            f"{depth}: {len(values)} depth pictures for {len(frames)} frames of {picture}; expected one each"
        )
    return from_depth(frames, values, meaning, near, far, fov, scale=scale, still=True, fps=fps, unit=unit)


def likely_meaning(depth: Path, unit: Unit | None = None) -> Meaning:
    """What the values of a depth file mean if nobody says it: lengths where it holds such, else near-far."""
    return "depth" if unit in ("m", "mm") or holds_lengths(depth) else "near-far"


def encode_prompt(
    folder: Path,
    config: TeacherConfig,
    prompt: str,
    negative: str | None = None,
    *,
    check_prompt: CheckPrompt | None = None,
    device: torch.device | str = "cpu",
) -> TextEmbeddings:
    """Embeddings of a prompt by the T5 encoder in ``folder``; None is the released negative prompt."""
    if check_prompt:
        prompt = check_prompt(prompt)
    return encode_text(folder, config, prompt, negative, device=device)


def paths_for(
    geometry: Geometry,
    config: TeacherConfig,
    settings: PathSettings = PathSettings(),  # noqa: B008  (frozen)
) -> tuple[CameraTrajectory, ...]:
    """Camera paths around a picture's camera, of the teacher's trained length, or on top of a clip's, of its own."""
    moving = geometry.is_clip
    frames = len(geometry.frames) if moving else config.trained_frames
    base = aimed(geometry)
    base = base if moving else replace(base, fps=config.fps)
    return camera_paths(base, replace(settings, frames=frames))


def build_scene(
    teacher: Teacher,
    tokenizer: Tokenizer,
    recon: Recon,
    geometry: Geometry,
    *,
    moves: PathSettings = PathSettings(),  # noqa: B008  (frozen)
    settings: GenerateSettings = GenerateSettings(),  # noqa: B008  (frozen)
    text: TextEmbeddings | None = None,
    times: Sequence[int] = (0,),
    store: PathStore | None = None,
    progress: Callable[[str], OnStep] = lambda label: no_progress,
) -> Scene:
    """Everything from the geometry of a picture (see ``picture_geometry``) or clip (``geometry_sources.from_vipe``)."""
    paths = paths_for(geometry, teacher.config, moves)
    geometry, paths = fitted(geometry, paths, *teacher.config.trained_size)
    latents = generate(
        teacher, tokenizer, geometry, paths, settings=settings, text=text, store=store, on_step=progress("generate")
    )
    splats, cameras = reconstruct(recon, tokenizer, latents, times, on_step=progress("reconstruct"))
    return Scene(geometry=geometry, latents=latents, splats=splats, cameras=cameras)


def films(
    tokenizer: Tokenizer,
    latents: MultiViewLatents,
    shrink: int = 1,
    device: torch.device | str = "cpu",
    at_once: int = CHUNK,
) -> Tensor:
    """What the latents of all views stand for as bytes [V, F, H, W, 3] in the host's memory, pinned for a GPU.

    ``device`` turns decoded numbers into bytes, a few frames at a time. Height and width are divided by ``shrink``.
    """
    path, device = latents.cameras[0], torch.device(device)
    size = (len(latents.cameras), len(path), path.height // shrink, path.width // shrink, 3)
    with part("room for the frames"):
        found = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for view, film in enumerate(found):
        video = decode_view(tokenizer, latents, view, at_once)
        with part("frames to bytes"):
            for some, wanted in zip(video.split(BYTES_AT_ONCE, dim=1), film.split(BYTES_AT_ONCE), strict=True):
                frames = to_frames(some.to(device))
                if shrink > 1:
                    frames = avg_pool2d(frames.movedim(-1, 1), shrink).movedim(1, -1)
                wanted.copy_((frames * 255).round().byte())
    return found


def refine(
    splats: Sequence[Gaussians],
    cameras: Sequence[CameraTrajectory],
    latents: MultiViewLatents,
    tokenizer: Tokenizer,
    geometry: Geometry | None = None,
    *,
    settings: RefineSettings,
    times: Sequence[int] = (0,),
    at_once: int = CHUNK,
    on_step: OnStep = no_progress,
    on_picture: OnPicture = no_picture,
    enough: Enough = not_enough,
) -> Refined:
    """Splats of each bullet time, where they lie, moved a little until they show what they were made from.

    ``cameras`` are the latents' paths in the world of the splats, as ``reconstruct`` gives them. The geometry brings
    the picture or clip itself, which is sharper than the teacher's frames. Seconds are shared by the times. Splats that
    would be no nearer than before stay as they were. ``at_once`` latent frames are decoded together.
    """
    if len(splats) != len(times):
        raise ValueError(f"{len(splats)} sets of splats for the bullet times {list(times)}; name one for each")
    if geometry is None and needs_source(settings):
        raise ValueError("refine: what the picture shows cannot weigh more without it; give its geometry too")
    latents = chunk_of(latents, cameras)
    shown = films(tokenizer, latents, settings.shrink, splats[0].means.device, at_once)
    cameras = [path.resized(*shown.shape[2:4]) for path in cameras]
    settings, found = replace(settings, seconds=settings.seconds / len(times)), []
    source = splats[0].means.device if needs_source(settings) else None
    for number, (before, target) in enumerate(
        zip(splats, targets(shown, cameras, latents, geometry, times, source), strict=True)
    ):
        scores = measure(before, target)
        after, run = optimise(
            before, target, settings, on_picture=on_picture, enough=enough,
            on_step=partial(onward, on_step, number, len(times)),
        )  # fmt: skip
        reached = measure(after, target if run.cameras is None else replace(target, cameras=run.cameras))
        found.append((after, scores, reached, run) if reached.mean > scores.mean else (before, scores, scores, run))
    return Refined(**dict(zip(("splats", "before", "after", "runs"), zip(*found, strict=True), strict=True)))


def onward(on_step: OnStep, number: int, count: int, done: int, total: int) -> None:
    """Report a step of one of several runs of equal length."""
    on_step(number * total + done, count * total)

"""Self-distillation data in memory: the teacher's clips of many scenes, made many at a time (training.md 13.3, 13.6).

A scene gives the teacher its first picture and depth, or a clip of it from a camera at rest, and nothing else. What
the teacher makes along the six paths is what the splat decoder learns from. A seed's clips do not depend on the other
seeds they are made with, and are those of ``gen3c.generate``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from ....kernels_glue.devices import by_device
from ...cameras.moves import still
from ...cameras.path import CameraTrajectory
from ...configs import TeacherConfig
from ...gen3c.cache.flips import flip
from ...gen3c.cache.warp import Warped
from ...gen3c.generate import GenerateSettings, sample_clips
from ...gen3c.load import Teacher
from ...gen3c.sampler import Conditions, compose_warp_latents, condition_noise, initial_noise
from ...gen3c.text import said, zero_text
from ...geometry.fit import condition_frame
from ...geometry.geometry import Geometry
from ...tokenizer.model import CosmosTokenizer
from ..world.draw_scenes import LENGTHS, base_camera, draw_scenes, scene_paths
from ..world.filming import Filmed, draw_caches, film, is_large, to_bytes
from ..world.raytrace import trace
from .clips import to_frames, to_latents, to_video
from .samples import Clip, ClipScene

SDG_SETTINGS = GenerateSettings(steps=12, solver="dpmpp_2m", guidance=0)  # guidance gains 0.1 dB; seeds are scenes'
FARTHEST_KNOWN = 20.0  # world units; what the cache shows beyond, such as the sky, has no depth to learn
AT_ONCE = {"cpu": 2, "cuda": 64}  # scenes, of six clips each
FILMED_AT_ONCE = 16  # scenes


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """What the teacher is given of a scene."""

    name: str
    seed: int  # of the noise that all its paths start from
    geometry: Geometry  # one picture, or one for each of the paths' frames
    paths: tuple[CameraTrajectory, ...]

    def flipped(self) -> "Source":
        """The clip played backwards, and the same moves: what time-flipped twins are made from."""
        geometry, paths = flip(self.geometry, self.paths)
        return replace(self, geometry=geometry, paths=paths)


@dataclass(frozen=True, eq=False, kw_only=True)
class Generated:
    """What the teacher made of a source, a clip a path, in the order in which it was made."""

    source: Source
    clips: tuple[Clip, ...]


def draw_sources(
    seeds: Sequence[int],
    *,
    size: tuple[int, int],
    frames: int,
    moving: bool = False,
    lengths: str | None = None,
    device: torch.device | str = "cpu",
) -> list[Source]:
    """First pictures, or clips of moving scenes, of some seeds. Path ``lengths`` take turns with the seeds if None."""
    count, base = frames if moving else 1, base_camera(*size)
    cameras = still(base, count)
    times = torch.linspace(0, 1, frames, device=device)[:count]
    traced = trace(draw_scenes(seeds, moving).to(device), [cameras] * len(seeds), times)
    sources = []
    for seed, rgb, depth in zip(seeds, to_bytes(traced.rgb), traced.depth, strict=True):
        geometry = Geometry(frames=rgb.float() / 255, depth=depth, valid=depth.isfinite(), cameras=cameras)
        paths = scene_paths(seed, frames, *size, lengths or path_lengths(seed))
        sources.append(Source(name=f"{seed}", seed=seed, geometry=geometry, paths=paths))
    return sources


def source_caches(sources: Sequence[Source], settings: GenerateSettings) -> Warped:
    """What the 3D caches of S sources show along their P paths: S P F pictures."""
    names = ("frames", "depth", "valid")
    joined = {name: torch.cat([getattr(source.geometry, name) for source in sources]) for name in names}
    cameras = join([source.geometry.cameras for source in sources]).to(joined["depth"].device)
    geometry = Geometry(**joined, cameras=cameras)
    return draw_caches(geometry, [source.paths for source in sources], settings.foreground_masking)


@torch.no_grad()
def generate_many(
    teacher: Teacher, tokenizer: CosmosTokenizer, sources: Sequence[Source], settings: GenerateSettings = SDG_SETTINGS
) -> list[Generated]:
    """The teacher's clips of some sources, in one batch. Depth is the cache's, 0 where the teacher had to invent.

    One by one where they have to be (``go_alone``).
    """
    teacher.network.use_linears(settings.linears)
    config, paths = teacher.config, len(sources[0].paths)
    if go_alone(config, settings) and len(sources) * paths > 1:
        alone = (film_paths(teacher, tokenizer, source, settings) for source in sources)
        return [Generated(source=source, clips=tuple(clips)) for source, clips in zip(sources, alone, strict=True)]
    drawn = source_caches(sources, settings)
    device, frames = drawn.image.device, len(sources[0].paths[0])
    images, masks = (t.unflatten(0, (-1, frames))[:, :, None] for t in (drawn.image, drawn.mask))  # [B F 1 C H W]
    warps = compose_warp_latents(partial(to_latents, tokenizer), images, masks)
    first = to_latents(tokenizer, torch.cat([condition_frame(source.geometry) for source in sources]))
    text = zero_text(config)
    shape = (1, *config.latent_shape)
    noises = (
        torch.cat([make(shape, source.seed) for source in sources]).to(device).repeat_interleave(paths, 0)
        for make in (initial_noise, condition_noise)
    )
    conditions = Conditions(
        first=first.repeat_interleave(paths, 0),
        warps=warps,
        text=said(text.prompt).to(device).expand(len(warps), -1, -1),
        negative=said(text.negative).to(device).expand(len(warps), -1, -1),
    )
    latents = sample_clips(teacher, conditions, *noises, settings)
    # truncated as the reference's videos are
    pictures = torch.cat([(to_frames(tokenizer, some) * 255).byte() for some in latents.split(4 * AT_ONCE["cuda"])])
    depth = torch.where(drawn.depth < FARTHEST_KNOWN, drawn.depth, 0).half().unflatten(0, (-1, frames))
    made = [
        Clip(frames=pictures[i], cameras=path, depth=depth[i], latents=latents[i].half())
        for i, path in enumerate(path for source in sources for path in source.paths)
    ]
    return [
        Generated(source=source, clips=tuple(made[row * paths : (row + 1) * paths]))
        for row, source in enumerate(sources)
    ]


def film_paths(
    teacher: Teacher, tokenizer: CosmosTokenizer, source: Source, settings: GenerateSettings
) -> Iterator[Clip]:
    """The teacher's clips of a source; those that go alone when they are asked for, as they are in company."""
    alone = go_alone(teacher.config, settings)
    for some in [(path,) for path in source.paths] if alone else [source.paths]:
        yield from generate_many(teacher, tokenizer, [replace(source, paths=some)], settings)[0].clips


def go_alone(config: TeacherConfig, settings: GenerateSettings) -> bool:
    """Whether clips are made one by one: large ones, and those with a step cache, which decides for a whole batch."""
    return settings.step_cache > 0 or is_large(config.trained_frames, *config.trained_size)


def make_scenes(
    teacher: Teacher,
    tokenizer: CosmosTokenizer,
    seeds: Sequence[int],
    *,
    moving: bool = False,
    lengths: str | None = None,
    settings: GenerateSettings = SDG_SETTINGS,
) -> Iterator[list[ClipScene]]:
    """Scenes that the teacher made, some at a time, where its weights lie; moving ones with their flipped twins."""
    config = teacher.config
    large = is_large(config.trained_frames, *config.trained_size)
    at_once = 1 if large else by_device(AT_ONCE, teacher.device) // (2 if moving else 1)
    for start in range(0, len(seeds), at_once):
        sources = draw_sources(
            seeds[start : start + at_once], size=config.trained_size, frames=config.trained_frames, moving=moving,
            lengths=lengths, device=teacher.device,
        )  # fmt: skip
        forward = generate_many(teacher, tokenizer, sources, settings)
        if moving:
            twins = generate_many(teacher, tokenizer, [source.flipped() for source in sources], settings)
            yield [as_scene(*pair) for pair in zip(forward, twins, strict=True)]
        else:
            yield [as_scene(generated) for generated in forward]


def as_scene(forward: Generated, twins: Generated | None = None) -> ClipScene:
    """A scene to learn from: the forward views, then the flipped ones, turned round to the clip's own time."""
    flipped = () if twins is None else tuple(clip.backwards() for clip in twins.clips)
    return ClipScene(name=forward.source.name, paths=len(forward.clips), clips=forward.clips + flipped)


def film_scenes(
    tokenizer: CosmosTokenizer,
    seeds: Sequence[int],
    *,
    size: tuple[int, int],
    frames: int,
    lengths: str | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[list[ClipScene]]:
    """The same scenes as they are, instead of as the teacher makes them: true pictures, depth and their latents."""
    for kind in LENGTHS if lengths is None else (lengths,):
        some = [seed for seed in seeds if lengths or path_lengths(seed) == kind]
        for start in range(0, len(some), FILMED_AT_ONCE):
            filmed = film(some[start : start + FILMED_AT_ONCE], size=size, frames=frames, lengths=kind, device=device)
            yield [film_scene(tokenizer, filmed, row) for row in range(len(filmed.scenes))]


def film_scene(tokenizer: CosmosTokenizer, filmed: Filmed, row: int) -> ClipScene:
    """One filmed scene to learn from."""
    rgb, depth = filmed.rgb[row], filmed.depth[row]
    latents = to_latents(tokenizer, to_video(rgb))
    known = torch.where(depth < FARTHEST_KNOWN, depth, 0).half()
    clips = tuple(
        Clip(frames=rgb[i], cameras=path, depth=known[i], latents=latents[i].half())
        for i, path in enumerate(filmed.paths[row])
    )
    return ClipScene(name=f"{filmed.scenes.seeds[row]}", paths=len(rgb), clips=clips)


def path_lengths(seed: int) -> str:
    """Which of the ranges of path lengths a seed's scene has, unless one is asked for: they take turns."""
    return list(LENGTHS)[seed % len(LENGTHS)]


def join(paths: Sequence[CameraTrajectory]) -> CameraTrajectory:
    """Paths of one picture size as one, behind each other."""
    return replace(paths[0], c2w=torch.cat([path.c2w for path in paths]), K=torch.cat([path.K for path in paths]))

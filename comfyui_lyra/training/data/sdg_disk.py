"""Generated scenes written in the layout that training reads (training.md 9.1): path stores and depth archives."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ...files.scenes.depth_zip import save_depth_zip
from ...files.scenes.sdg_writer import PathStore
from ...gen3c.generate import GenerateSettings, describe
from ...gen3c.load import Teacher
from ...gen3c.sampler import initial_noise
from ...gen3c.text import zero_text
from ...latents import MultiViewLatents, VideoLatents
from ...tokenizer.model import CosmosTokenizer
from .sdg_memory import SDG_SETTINGS, Generated, draw_sources, generate_many

log = logging.getLogger("lyra")


def write_sdg(
    root: Path | str,
    teacher: Teacher,
    tokenizer: CosmosTokenizer,
    seeds: Sequence[int],
    *,
    moving: bool = False,
    lengths: str | None = None,
    settings: GenerateSettings = SDG_SETTINGS,
) -> None:
    """Generate the scenes of some seeds, one after another, into folder ``root``; moving ones with flipped twins.

    Scenes that are there already, made from the same things, are kept.
    """
    config = teacher.config
    shape = {"size": config.trained_size, "frames": config.trained_frames, "device": teacher.device}
    for number, seed in enumerate(seeds, start=1):
        (source,) = draw_sources([seed], moving=moving, lengths=lengths, **shape)
        noise = initial_noise((1, *config.latent_shape), source.seed)
        parts = []
        for flipped in (False, True)[: 1 + moving]:  # both are claimed before either is made
            shown = source.flipped() if flipped else source
            recipe = describe(teacher, tokenizer, shown.geometry.to("cpu"), zero_text(config), noise, settings)
            store = PathStore(root, source.name, flipped=flipped)
            store.begin(recipe, shown.paths, latents=noise.numel())
            parts.append((shown, recipe, store))
        for shown, recipe, store in parts:
            if not is_whole(store, len(shown.paths)):
                (generated,) = generate_many(teacher, tokenizer, [shown], settings)
                write_generated(store, generated, config.family, recipe)
        log.info("scene %s, %d of %d", source.name, number, len(seeds))


def write_generated(store: PathStore, generated: Generated, family: str, recipe: dict[str, str]) -> None:
    """Video, cameras, latents and depth of every path of a scene; those of flipped twins in the clip's own time."""
    source = generated.source
    for index, (path, clip) in enumerate(zip(source.paths, generated.clips, strict=True)):
        scene = MultiViewLatents(
            latents=VideoLatents(values=clip.latents[None].float().cpu()),
            cameras=(path,),
            family=family,
            dynamic=len(source.geometry.frames) > 1,
            provenance=recipe,
        )
        store.save(index, scene, lambda clip=clip: clip.frames.cpu().float() / 255)
        save_depth_zip(store.file(index, "depth"), clip.depth.flip(0) if store.flipped else clip.depth)


def is_whole(store: PathStore, paths: int) -> bool:
    """Whether every file that training reads is there."""
    kinds = ("pose", "intrinsics", "latent", "rgb", "depth")
    return all(store.file(index, kind).is_file() for index in range(paths) for kind in kinds)

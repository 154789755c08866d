"""Generated scenes written in the layout that training reads (training.md 9.1): path stores and depth archives."""

from pathlib import Path

from ..files.depth_zip import save_depth_zip
from ..files.sdg_writer import PathStore
from ..gen3c.generate import GenerateSettings, describe
from ..gen3c.load import Teacher
from ..gen3c.sampler import initial_noise
from ..gen3c.text import zero_text
from ..latents import MultiViewLatents, VideoLatents
from ..tokenizer.model import CosmosTokenizer
from .sdg_memory import SDG_SETTINGS, Generated, draw_sources, generate_many


def write_sdg(
    root: Path | str,
    teacher: Teacher,
    tokenizer: CosmosTokenizer,
    seeds: range | list[int],
    *,
    moving: bool = False,
    lengths: str | None = None,
    settings: GenerateSettings = SDG_SETTINGS,
) -> None:
    """Generate the scenes of some seeds, one after another, into folder ``root``; moving ones with flipped twins."""
    config = teacher.config
    shape = {"size": config.trained_size, "frames": config.trained_frames, "device": teacher.device}
    for seed in seeds:
        (source,) = draw_sources([seed], moving=moving, lengths=lengths, **shape)
        for flipped in (False, True)[: 1 + moving]:
            (generated,) = generate_many(teacher, tokenizer, [source.flipped() if flipped else source], settings)
            write_generated(root, generated, teacher, tokenizer, settings, flipped)


def write_generated(
    root: Path | str,
    generated: Generated,
    teacher: Teacher,
    tokenizer: CosmosTokenizer,
    settings: GenerateSettings,
    flipped: bool,
) -> None:
    """Video, cameras, latents and depth of every path of a scene; those of flipped twins in the clip's own time."""
    source, config = generated.source, teacher.config
    noise = initial_noise((1, *config.latent_shape), source.seed)
    recipe = describe(teacher, tokenizer, source.geometry.to("cpu"), zero_text(config), noise, settings)
    store = PathStore(root, source.name, flipped=flipped)
    store.begin(recipe, source.paths, latents=noise.numel())
    for index, (path, clip) in enumerate(zip(source.paths, generated.clips, strict=True)):
        scene = MultiViewLatents(
            latents=VideoLatents(values=clip.latents[None].float().cpu()),
            cameras=(path,),
            family=config.family,
            dynamic=len(source.geometry.frames) > 1,
            provenance=recipe,
        )
        store.save(index, scene, lambda clip=clip: clip.frames.cpu().float() / 255)
        place = store.file(index, "rgb")
        depth = clip.depth.flip(0) if flipped else clip.depth
        (place.parents[1] / "depth").mkdir(exist_ok=True)
        save_depth_zip(place.parents[1] / "depth" / f"{source.name}.zip", depth)

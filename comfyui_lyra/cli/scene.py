"""Verbs from a picture or clip to splats: geometry, generate, decode, reconstruct, and what they need."""

import argparse

from .. import download, pipeline
from ..configs import RECON_PRESETS, TEACHER_PRESETS
from ..files.geometry import load_geometry, save_geometry
from ..files.latents import load_latents
from ..files.ply import save_ply
from ..files.sdg import load_sdg
from ..files.sdg_writer import PathStore, clip_name
from ..files.video import save_video
from ..gen3c.generate import GenerateSettings, generate
from ..gen3c.load import load_teacher
from ..gen3c.text import load_text, save_text
from ..geometry_sources import from_vipe
from ..latents import MultiViewLatents
from ..recon.checkpoint import load_recon, save_recon
from ..recon.plan import plan
from ..recon.reconstruct import reconstruct
from ..tokenizer.model import load_tokenizer
from .options import progress
from .verbs import DTYPES


def read_latents(options: argparse.Namespace) -> MultiViewLatents:
    """The latents that a verb was given."""
    if options.latents.is_dir():
        return load_sdg(options.latents, options.clip, dynamic=options.dynamic)
    return load_latents(options.latents)


def run_geometry(options: argparse.Namespace) -> None:
    """Write a geometry."""
    if options.depth:
        geometry = pipeline.picture_geometry(
            options.source, options.depth, options.meaning,
            near=options.near, far=options.far, fov=options.fov, scale=options.scale,
        )  # fmt: skip
    else:
        geometry = from_vipe(options.source, options.start, options.frames, scale=options.scale)
    save_geometry(options.out, geometry)
    frames, height, width = geometry.depth.shape
    print(f"{frames} frames of {width}x{height}, depth divided by {geometry.scale:.4g}: {options.out}")


def run_generate(options: argparse.Namespace) -> None:
    """Generate each path that is not there yet."""
    dtype = DTYPES[options.dtype]
    teacher = load_teacher(options.teacher, dtype=dtype)
    teacher.network.to(options.device)
    tokenizer = load_tokenizer(options.tokenizer).to(options.device, dtype)
    geometry = load_geometry(options.geometry)
    paths = pipeline.paths_for(
        geometry, teacher.config, options.preset,
        movement=options.movement, rotation=options.rotation, seed=options.path_seed,
    )  # fmt: skip
    geometry, paths = pipeline.fitted(geometry, paths, teacher.config)
    name = options.name or clip_name(options.geometry.stem)
    settings = GenerateSettings(
        steps=options.steps, guidance=options.guidance, solver=options.solver, seed=options.seed,
        step_cache=options.step_cache,
    )  # fmt: skip
    generate(
        teacher, tokenizer, geometry, paths,
        settings=settings,
        text=load_text(options.text, teacher.config) if options.text else None,
        store=PathStore(options.out, name, rgb=not options.no_rgb, reference_format=options.reference_format),
        on_step=progress("generate"),
    )  # fmt: skip
    print(f"{len(paths)} paths of '{name}': {options.out}")


def run_decode(options: argparse.Namespace) -> None:
    """Write the frames that latents stand for."""
    latents = read_latents(options).to(options.device)
    tokenizer = load_tokenizer(options.tokenizer).to(options.device, DTYPES[options.dtype])
    save_video(options.out, pipeline.decode(tokenizer, latents, options.view).cpu(), latents.cameras[0].fps)
    print(options.out)


def run_reconstruct(options: argparse.Namespace) -> None:
    """Write the splats of each bullet time."""
    try:
        times = [int(time) for time in options.times.split(",")]
    except ValueError as error:
        raise ValueError(f"--times '{options.times}': give frame indices with commas between, like 0,60,120") from error
    latents, dtype = read_latents(options), DTYPES[options.dtype]
    model = load_recon(options.recon).to(options.device, dtype).eval()
    tokenizer = load_tokenizer(options.tokenizer).to(options.device, dtype)
    path = latents.cameras[0]
    planned = plan(
        model.config, len(latents.cameras), len(path), path.height, path.width, int(options.budget * 1e9), dtype
    )
    splats, _ = reconstruct(
        model, tokenizer, latents, times,
        keep=options.keep, schedule=planned.schedule, on_step=progress("reconstruct"),
    )  # fmt: skip
    for time, frame in zip(splats.times, splats.frames, strict=True):
        file = options.out / f"splats_{time:04}.ply"
        save_ply(file, frame.to("cpu"))
        print(f"{len(frame)} splats: {file}")


def run_plan(options: argparse.Namespace) -> None:
    """Say what a pass will take."""
    config = RECON_PRESETS[options.preset]
    frames, (height, width) = config.trained_frames, config.trained_size
    found = plan(config, options.views, frames, height, width, int(options.budget * 1e9))
    print(f"{options.views} paths of {frames} frames of {width}x{height}, {options.preset}, bfloat16, no tokenizer:")
    print(f"{found.bytes / 1e9:.2f} GB at most with segments of {found.schedule.segment} tokens")
    print(f"{found.flops / 1e12:.1f} TFLOP a bullet time; {found.splats} splats, {found.kept} kept")


def run_encode_text(options: argparse.Namespace) -> None:
    """Write the embeddings of a prompt."""
    text = pipeline.encode_prompt(
        options.t5, TEACHER_PRESETS["gen3c"], options.prompt, options.negative, device=options.device
    )
    save_text(options.out, text, note=options.prompt)
    print(options.out)


def run_convert_weights(options: argparse.Namespace) -> None:
    """Write a splat decoder as safetensors."""
    print(f"sha256 {save_recon(load_recon(options.source), options.out)}  {options.out}")


def run_fetch(options: argparse.Namespace) -> None:
    """Download a release."""
    for file in download.fetch(options.name, options.folder, options.accept_licence, progress(options.name)):
        print(file)

"""Verbs from a picture or clip to splats: geometry, generate, decode, reconstruct, and what they need."""

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .. import demo, pipeline
from ..callbacks import no_progress
from ..cameras.moves import PathSettings, camera_paths
from ..cameras.path import CameraTrajectory, pinhole_camera
from ..configs import RECON_PRESETS, TEACHER_PRESETS, TOKENIZER_PRESETS
from ..cost.recon import plan
from ..cost.report import matmul_speed, report, stages
from ..files.cameras.lyra_json import save_cameras_json
from ..files.media.video import save_video
from ..files.scenes.dataset import save_dataset, thinned
from ..files.scenes.geometry import load_geometry, save_geometry
from ..files.scenes.scene import load_scene
from ..files.scenes.sdg_writer import PathStore, clip_name
from ..files.splats.load import load_splats
from ..files.splats.ply import save_ply
from ..gen3c.generate import GenerateSettings, generate
from ..gen3c.modes import MODES, as_possible, in_mode, told
from ..gen3c.team import joined, own_device
from ..gen3c.text import load_text, save_text
from ..geometry.fit import fitted
from ..geometry.geometry import Geometry, point_cloud
from ..latents import MultiViewLatents
from ..recon.inputs import EncodeCache, in_splat_world
from ..recon.load import load_recon
from ..recon.reconstruct import reconstruct
from ..recon.times import parse_times
from ..refine.footage import in_world_of
from ..refine.schedule import settings_for
from ..released import download
from ..released.convert import convert_weights
from ..scale.launch import side_by_side
from ..shapes import plural
from ..sources.geometry import from_vipe
from ..splats.render import render_each
from ..tokenizer.clips import decode
from ..weights.shipped import shipped_model
from .fields import filled
from .models import depth_of, teacher_config, teacher_of, tokenizer_of
from .options import path_settings, progress
from .refine import sharpened
from .verbs import AUTO, DTYPES, FAR, NEAR, PRECISIONS


def run_geometry(options: argparse.Namespace) -> None:
    """Write a geometry."""
    if options.depth:
        near, far = options.near, options.far
        if options.depth == AUTO:
            near, far = near or NEAR, far or FAR
        geometry = pipeline.picture_geometry(
            options.source, depth_of(options), options.meaning,
            near=near, far=far, fov=options.fov, scale=options.scale,
            start=options.start, count=options.frames, unit=options.unit,
        )  # fmt: skip
    else:
        geometry = from_vipe(options.source, options.start, options.frames, scale=options.scale)
    save_geometry(options.out, geometry)
    frames, height, width = geometry.depth.shape
    print(f"{plural(frames, 'frame')} of {width}x{height}, depth divided by {geometry.scale:.4g}: {options.out}")


def run_generate(options: argparse.Namespace) -> int | None:
    """Generate each path that is not there yet."""
    if options.gpus > 1 and "RANK" not in os.environ:
        return side_by_side(run_generate, options)
    options.device = own_device(options.device)
    tokenizer, geometry = tokenizer_of(options), load_geometry(options.geometry)
    settings = in_mode(filled(GenerateSettings(), options), options.mode)
    if options.mode != MODES[0]:  # what was asked for by itself runs, or says why not
        settings = as_possible(settings, teacher_config(options), DTYPES[options.dtype], options.device)
    teacher = teacher_of(options, tokenizer.config, len(geometry.frames), settings)
    paths = pipeline.paths_for(geometry, teacher.config, path_settings(options))
    geometry, paths = fitted(geometry, paths, *teacher.config.trained_size)
    name = options.name or clip_name(options.geometry.stem)
    with joined(len(paths), settings.guidance > 0) as team:
        if options.mode != MODES[0] and team.is_first:
            print(told(settings))
        generate(
            teacher, tokenizer, geometry, paths,
            settings=settings,
            text=load_text(options.text, teacher.config) if options.text else None,
            device=options.device,
            store=PathStore(
                options.out, name, rgb=not options.no_rgb, reference_format=options.reference_format,
                search=options.out, writer=team.rank,
            ),
            team=team,
            on_step=progress("generate") if team.is_first else no_progress,
        )  # fmt: skip
        if team.is_first:
            print(f"{plural(len(paths), 'path')} of '{name}': {options.out}")
    return None


def run_decode(options: argparse.Namespace) -> None:
    """Write the frames that latents stand for."""
    latents = load_scene(options.latents, options.clip, dynamic=options.dynamic).to(options.device)
    tokenizer = tokenizer_of(options)
    save_video(options.out, decode(tokenizer, latents, options.view).cpu(), latents.cameras[0].fps)
    print(options.out)


def run_reconstruct(options: argparse.Namespace) -> None:
    """Write the splats of each bullet time."""
    times = parse_times(options.times)
    latents, dtype = load_scene(options.latents, options.clip, dynamic=options.dynamic), DTYPES[options.dtype]
    recon = options.recon or shipped_model("recon_dynamic" if latents.dynamic else "recon_static")
    model = load_recon(recon).to(options.device, dtype).eval()
    tokenizer = tokenizer_of(options)
    path = latents.cameras[0]
    planned = plan(
        model.config, len(latents.cameras), len(path), path.height, path.width, int(options.budget * 1e9), dtype
    )
    splats, cameras = reconstruct(
        model, tokenizer, latents, times,
        keep=options.keep, schedule=planned.schedule, cache=EncodeCache.lasting(0), on_step=progress("reconstruct"),
    )  # fmt: skip
    if options.refine:
        settings = settings_for(options.device, path.height * path.width, seconds=options.refine)
        refined = sharpened(options, splats.frames, cameras, latents, tokenizer, settings, splats.times)
        splats = replace(splats, frames=refined.splats)
        print(refined.report())
    for time, frame in zip(splats.times, splats.frames, strict=True):
        file = options.out / f"splats_{time:04}.ply"
        save_ply(file, frame.to("cpu"))
        print(f"{len(frame)} splats: {file}")
    save_cameras_json(options.out / "cameras.json", cameras, metres_told(latents.provenance))
    print(f"the paths they came from, for 'lyra render --cameras': {options.out / 'cameras.json'}")


def metres_told(provenance: Mapping[str, str]) -> float | None:
    """Metres a unit of the world of latents, where they know by what their geometry's metres were divided."""
    if provenance.get("metric") == "0":  # relative depth
        return None
    try:
        found = float(provenance.get("scale", "nan"))
    except ValueError:
        return None
    return found if 0 < found < float("inf") else None


def run_dataset(options: argparse.Namespace) -> None:
    """Write the frames of latents, or renders of splats along their paths, with cameras and points."""
    latents = load_scene(options.latents, options.clip, dynamic=options.dynamic)
    cameras, factor = in_splat_world(latents.cameras), scale_of(options, latents)
    paths = [path[:: options.every] for path in cameras]
    films = drawn(options, paths) if options.splats else decoded(options, latents)
    points = points_of(options, cameras, latents)
    if points:
        points = points[0] * factor, points[1]
    save_dataset(
        options.out, [path.scaled(factor) for path in paths], films, points,
        moving=latents.dynamic and not options.splats, on_step=progress("dataset"),
    )  # fmt: skip
    count = f"{len(points[0])} points" if points else "no points: name the geometry for them"
    print(f"{plural(sum(map(len, paths)), 'picture')} of {plural(len(paths), 'path')}, {count}: {options.out}")


def scale_of(options: argparse.Namespace, latents: MultiViewLatents) -> float:
    """What the world is multiplied by: what makes it metres, if that is asked for."""
    if not options.metres:
        return 1.0
    if (known := metres_told(latents.provenance)) is None:
        raise ValueError(
            f"{options.latents} do not say what a unit of theirs is in metres: their depth "
            "was relative, or of unknown make; leave out --metres"
        )
    return known


def decoded(options: argparse.Namespace, latents: MultiViewLatents) -> Iterator[Tensor]:
    """Every nth frame of each path, as the tokenizer decodes them."""
    tokenizer, moved = tokenizer_of(options), latents.to(options.device)
    for view in range(len(latents.cameras)):
        yield decode(tokenizer, moved, view)[:: options.every].cpu()


def drawn(options: argparse.Namespace, paths: list[CameraTrajectory]) -> Iterator[Iterator[Tensor]]:
    """Pictures of splats along the paths."""
    splats = load_splats(options.splats).to(options.device)
    for path in paths:
        yield (frame.rgb[0].cpu() for frame in render_each(splats, path.to(options.device)))


def points_of(
    options: argparse.Namespace, cameras: tuple[CameraTrajectory, ...], latents: MultiViewLatents
) -> tuple[Tensor, Tensor] | None:
    """Points of the geometry, else of the most opaque splats, in the world of the cameras."""
    if options.geometry:
        found = point_cloud(in_world_of(load_geometry(options.geometry), cameras, latents))
    elif options.splats:
        best = load_splats(options.splats).most_opaque(1.0)[: options.points]
        found = best.means, best.colors
    else:
        return None
    return thinned(found, options.points)


def run_plan(options: argparse.Namespace) -> None:
    """Say what a scene will take, at the speed of this machine's matrix products."""
    teacher, dtype, device = TEACHER_PRESETS["gen3c"], DTYPES[options.dtype], torch.device(options.device)
    height, width = teacher.trained_size
    cameras = camera_paths(pinhole_camera(width, height, 38.0), PathSettings(options.preset, teacher.trained_frames))
    found = stages(
        cameras,
        teacher=teacher,
        tokenizer=TOKENIZER_PRESETS["lyra"],
        recon=RECON_PRESETS[options.decoder],
        times=len(parse_times(options.times)),
        steps=options.steps,
        guidance=options.guidance,
        dtype=dtype,
    )
    speed, disk = matmul_speed(device, dtype), shutil.disk_usage(".").free
    print(report(cameras, found, speed=speed, precision=options.dtype, memory=int(options.budget * 1e9), disk=disk))


def run_encode_text(options: argparse.Namespace) -> None:
    """Write the embeddings of a prompt."""
    text = pipeline.encode_prompt(
        options.t5, TEACHER_PRESETS["gen3c"], options.prompt, options.negative, device=options.device
    )
    save_text(options.out, text, note=options.prompt)
    print(options.out)


def run_convert_weights(options: argparse.Namespace) -> None:
    """Write a model as safetensors."""
    dtype = PRECISIONS[options.dtype] if options.dtype else None
    found = convert_weights(options.source, options.out, dtype, quant=options.quant, on_step=progress("convert"))
    print(f"sha256 {found}  {options.out}")


def run_fetch(options: argparse.Namespace) -> None:
    """Download a release."""
    for file in download.fetch(options.name, options.folder, options.accept_licence, progress(options.name)):
        print(file)


def run_demo(options: argparse.Namespace) -> None:
    """Make scenes with the mini models, and say where they are."""
    out, own = options.out, None
    if options.image:
        out, own = out / clip_name(options.image.stem), own_picture(options)
    elif options.depth:
        raise ValueError("--depth is of a picture of your own; name it with --image")
    demo.run(out, options.device, progress, lambda text: print(text, flush=True), own, options.refine)


def own_picture(options: argparse.Namespace) -> Geometry:
    """The geometry of a picture that a person brings."""
    if not options.depth:
        raise ValueError("--image needs its depth too: --depth with an .exr or .npz, or grey pictures, near is white")
    is_guessed = options.depth == AUTO
    meaning = "near-far" if is_guessed else options.meaning or pipeline.likely_meaning(options.depth, options.unit)
    depth, shown = depth_of(options), "the depth that Depth Anything guesses" if is_guessed else options.depth.name
    print(
        f"{options.image.name} with {shown}, read as {meaning}"
        + (f": white is near, black {options.far / options.near:g} times as far" if meaning == "near-far" else "")
        + ".\nThe result will be rough: the mini models have seen nothing but procedural scenes of balls, boxes and "
        "drums.\nPhotos are what the released weights are for.",
        flush=True,
    )
    near_far = {"near": options.near, "far": options.far} if meaning == "near-far" else {}
    count = TEACHER_PRESETS["mini"].trained_frames
    return pipeline.picture_geometry(
        options.image, depth, meaning, fov=options.fov, count=count, unit=options.unit, **near_far
    )

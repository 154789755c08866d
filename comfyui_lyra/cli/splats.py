"""Verbs over cameras and splats: path, render, convert, info, bench."""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from ...kernels_glue import OPS
from .. import bench
from ..bench import record
from ..cameras.drawing import draw_paths
from ..cameras.path import CameraTrajectory
from ..cameras.sets import end_to_end
from ..files.cameras.load import CAMERAS, FORMATS, load_cameras, save_cameras
from ..files.cameras.lyra_json import load_cameras_json
from ..files.cameras.pinhole import check_names
from ..files.media.images import save_image
from ..files.media.video import save_video
from ..files.scenes.sdg import find_clips, find_views
from ..files.splats.formats import BY_SUFFIX, to_write
from ..files.splats.load import load_splats, metres_of
from ..files.splats.save import Placing
from ..files.splats.sequence import MANIFEST, is_sequence, load_sequence, save_sequence
from ..released.sniff import FileFacts, description, said, sniff
from ..shapes import plural
from ..splats.gaussians import GaussianSequence
from ..splats.harmonics import band_of
from ..splats.render import RenderSettings, render_each
from ..viewer.write import write_scene
from ..weights import shipped
from .fields import filled
from .options import paths_of, progress


def run_path(options: argparse.Namespace) -> None:
    """Write camera paths, and their picture."""
    paths = paths_of(options)
    save_cameras(options.out, paths, kind=options.format)
    if options.picture:
        save_image(options.picture, draw_paths(paths))
    print(f"{plural(len(paths), 'path')} of {plural(options.frames, 'camera')}: {options.out}")


def run_render(options: argparse.Namespace) -> None:
    """Draw splats along each path, frame by frame into an mp4."""
    paths = load_cameras(options.cameras) if options.cameras else paths_of(options)
    check_names(paths)
    splats = load_splats(options.splats).to(options.device)
    settings = filled(RenderSettings(), options)
    for path in paths:
        seen = end_to_end((path,), options.every).to(options.device)
        frames = (frame.rgb[0] for frame in render_each(splats, seen, settings, progress(path.name)))
        with torch.inference_mode():
            save_video(options.out / f"{path.name}.mp4", frames, seen.fps)
        print(options.out / f"{path.name}.mp4")


def run_convert(options: argparse.Namespace) -> None:
    """Rewrite splats, several moments of them, or cameras."""
    source, out = options.source, options.out
    is_cameras = out.suffix.lower() == ".json" or options.format in FORMATS
    if not is_cameras and is_sequence(source):
        moments, fps = load_sequence(source, progress("read"))
        placing = placing_of(options, metres_of(source / MANIFEST))
        if out.suffix.lower() in BY_SUFFIX:
            write_scene(out, moments, placing, cameras_beside(source / MANIFEST), fps=fps)
        else:
            paths = cameras_beside(source / MANIFEST)
            write = partial(write_scene, cameras=paths)
            save_sequence(out, moments, paths, fps=fps, placing=placing, kind=options.format or "ply", write=write)
        print(f"{len(moments)} moments: {out}")
    elif {file.suffix.lower() for file in (source, out)} & BY_SUFFIX.keys():
        form, splats = to_write(out), load_splats(source)
        moment = GaussianSequence(frames=(splats,), times=(0,))
        write_scene(out, moment, placing_of(options, metres_of(source)), cameras_beside(source))
        print(f"{len(splats)} splats as {form.title}: {out}")
    else:
        paths = load_cameras(source)
        save_cameras(out, paths, kind=options.format)
        print(f"{plural(len(paths), 'camera path')}: {out}")


def cameras_beside(file: Path) -> tuple[CameraTrajectory, ...]:
    """The paths that a ``cameras.json`` beside splats holds, as 'lyra reconstruct' writes it; none without one."""
    beside = file.with_name(CAMERAS)
    return load_cameras_json(beside) if beside.is_file() else ()


def placing_of(options: argparse.Namespace, known: float | None) -> Placing:
    """How splats are to be written; ``known`` metres a unit of theirs, which ``--metres`` says or asks for."""
    scale, metres = options.scale, None if known is None else known / options.scale
    if options.metres is not None:
        factor = options.metres or known
        if not factor:
            raise ValueError(
                f"what a unit of {options.source} is in metres is said neither in it nor by a cameras.json of "
                "'lyra reconstruct' beside it; say it yourself, such as --metres 2.5"
            )
        scale, metres = scale * factor, 1 / scale
    return Placing(
        scale=scale, min_opacity=options.min_opacity, up=options.up, metres=metres, spz_version=options.spz_version
    )


def run_info(options: argparse.Namespace) -> None:
    """Describe a file, or this machine's kernels."""
    if options.file is None:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
        print(f"torch {torch.__version__}, {gpu}")
        for op in OPS:
            kernels = (f"{name} {op.absent(name) or 'ready'}" for name in op.kernels)
            print(f"{op.name}: {'; '.join(('torch ready', *kernels))}")
        for file in sorted(shipped.MINI.glob("*.safetensors")):
            facts = sniff(file)
            print(f"{file}: {facts.parameters / 1e6:.1f} million weights {' '.join(said(facts.about))}")
    else:
        tell(sniff(options.file))


def tell(facts: FileFacts) -> None:
    """What a file or folder is; of splats and cameras also what they hold."""
    print(description(facts))
    if facts.kind in ("ply", "packed splats"):
        splats = load_splats(facts.path)
        low, high = splats.means.amin(0).tolist(), splats.means.amax(0).tolist()
        bands = band_of(splats.sh_rest)
        print(f"{len(splats)} splats, harmonics to band {bands}, opacity {splats.opacities.mean():.3f} on average")
        print("  ".join(f"{axis} {a:.3f} to {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True)))
    elif facts.kind == "cameras" or shows_one_clip(facts):
        for path in load_cameras(facts.path):
            print(f"{path.name}: {plural(len(path), 'camera')} of {path.width}x{path.height} at {path.fps:g} fps")


def shows_one_clip(facts: FileFacts) -> bool:
    """Whether a folder holds the cameras of one clip beside its video, which tells their size."""
    if facts.kind not in ("clips", "generated"):
        return False
    clips = find_clips(facts.path)
    return len(clips) == 1 and (find_views(facts.path)[0] / "rgb" / f"{clips[0]}.mp4").is_file()


def run_bench(options: argparse.Namespace) -> None:
    """Measure, and print the table."""
    device = options.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    machine, lines = f"{where}, torch {torch.__version__}", []
    if options.append:
        record.check_record(options.append)
    if options.json and options.scenes is not None:
        raise ValueError("--json keeps tables; 'lyra bench refine --scenes' keeps its results in the folder --keep")
    given = bench_options(options)
    command = " ".join([options.what, *(f"--{name} {value}" for name, value in given.items())])
    print(f"{machine}\n", flush=True)
    rows = bench.rows(options.what, device, **given) if options.scenes is None else refined(options)
    before = options.json.read_bytes() if options.json and options.json.is_file() else b""
    for line in rows:
        print(line, flush=True)
        lines.append(line)
        if options.json and len(lines) > 2:  # at every row: a run that is ended leaves what it has measured
            record.append_json(options.json, command, machine, lines, before)
    if options.append:
        record.append(options.append, command, machine, lines)


def bench_options(options: argparse.Namespace) -> dict[str, object]:
    """What was given of the options that not every bench has."""
    names = dict.fromkeys(name for names in bench.OPTIONS.values() for name in names)
    given = {name: getattr(options, name) for name in names if getattr(options, name)}
    for name in given:
        takers = [f"'lyra bench {what}'" for what, taken in bench.OPTIONS.items() if name in taken]
        if f"'lyra bench {options.what}'" not in takers:
            raise ValueError(f"--{name}: of {' and '.join(takers)} alone")
    return given


def refined(options: argparse.Namespace) -> Iterator[str]:
    """The lines of a trial of refining."""
    from ..bench.judging import trial as judging  # deferred: loads every model's code

    if options.what != "refine":
        raise ValueError(f"--scenes is for 'lyra bench refine', not for '{options.what}'")
    names = options.sweep or "default"
    trial = judging.Trial(
        seeds=judging.seeds_of(options.scenes, options.split), folder=options.keep, lengths=options.lengths,
        moving=options.moving, steps=options.steps, stride=options.stride, disturbed=options.disturb,
        minutes=options.minutes, variants=tuple(judging.VARIANTS if names == "all" else names.split(",")),
    )  # fmt: skip
    return judging.run(trial, options.device)

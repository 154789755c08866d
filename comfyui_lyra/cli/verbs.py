"""What the shell command takes: every verb and its options. What they do is in ``splats`` and ``scene``."""

import argparse
import math
from pathlib import Path

import torch

from ...kernels_glue.attention import attention
from .. import bench
from ..bench import record
from ..cameras.moves import PathSettings
from ..configs import RECON_PRESETS
from ..files.cameras.load import FORMATS
from ..files.media.depth_values import MEANINGS, UNITS
from ..files.splats.forge import VERSIONS as SPZ_VERSIONS
from ..files.splats.formats import READ, UPS, WRITTEN
from ..gen3c import modes
from ..gen3c.generate import GenerateSettings
from ..geometry.geometry import SCALES
from ..refine.schedule import EXTRAS, RefineSettings
from ..released.table import RELEASES
from ..splats.render import RenderSettings
from ..training.world.draw_scenes import LENGTHS
from ..weights.checkpoints.quantising import QUANTS
from .fields import add_fields

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
NEAR, FAR = 1.0, 5.0  # depth of white and of black, where nobody says it
AUTO, GUESSED = Path("auto"), "auto: guessed by Depth Anything"  # depth
PRECISIONS = DTYPES | {"float16": torch.float16}  # that weights can be written in


def add_splat_verbs(verbs: argparse._SubParsersAction) -> None:
    """Verbs over cameras and splats."""
    verb = verbs.add_parser("path", help="make camera paths and a picture of them")
    add_path_options(verb)
    add_camera_options(verb)
    verb.add_argument("out", type=Path, help="cameras to write: a .json file, or a folder for COLMAP text or npz")
    add_format(verb)
    verb.add_argument("--picture", type=Path, help="also draw the paths from above and from the side")
    verb.set_defaults(run="splats.run_path")

    verb = verbs.add_parser("render", help="draw splats along camera paths, one mp4 a path")
    verb.add_argument("splats", type=Path, help=f"Gaussian splats: {', '.join(READ)}")
    verb.add_argument("out", type=Path, help="folder for <path>.mp4")
    verb.add_argument("--cameras", type=Path, help="a camera file; without it the path options below make the cameras")
    add_path_options(verb)
    add_camera_options(verb)
    verb.add_argument("--every", type=int, default=1, metavar="N", help="draw every Nth camera")
    add_fields(verb, RenderSettings, "mode", "backend")
    add_device(verb)
    verb.set_defaults(run="splats.run_render")

    verb = verbs.add_parser("view", help="look around in splats, still or moving, in the browser")
    verb.add_argument("scene", type=Path, help="a file of splats, or a folder of numbered ones")
    verb.add_argument("--port", type=int, default=0, help="of this machine; 0 takes a free one")
    verb.add_argument("--no-browser", action="store_true", help="only print the address")
    verb.set_defaults(run="view.run_view")

    verb = verbs.add_parser("convert", help="rewrite splats, one scene or a folder of moments, or cameras")
    verb.add_argument(
        "source", type=Path, help=f"splats ({', '.join(READ)}), a folder of moments, or any camera file or folder"
    )
    verb.add_argument(
        "out", type=Path,
        help=f"splats: {', '.join(form.suffix for form in WRITTEN.values())}, a folder for moments; "
        "cameras: .json or a folder",
    )  # fmt: skip
    verb.add_argument(
        "--format", choices=(*FORMATS, *WRITTEN), help="of cameras, or of the files of a folder of moments (ply)"
    )
    verb.add_argument("--scale", type=float, default=1.0, help="splats: multiply the world by this")
    verb.add_argument("--min-opacity", type=float, default=0.0, help="splats: drop what is more transparent")
    verb.add_argument("--up", choices=UPS, help="splats: the axes to write; by default those usual for the format")
    verb.add_argument(
        "--metres", type=float, nargs="?", const=0.0, metavar="N",
        help="splats: write metres; a unit is N of them, or what the source or its cameras.json say",
    )  # fmt: skip
    verb.add_argument("--spz-version", type=int, choices=SPZ_VERSIONS, default=3, help="of .spz; most programs read 3")
    verb.set_defaults(run="splats.run_convert")

    verb = verbs.add_parser("info", help="say what a file holds; without a file, what is there and can run here")
    verb.add_argument("file", type=Path, nargs="?")
    verb.set_defaults(run="splats.run_info")

    verb = verbs.add_parser("check", help="say whether it will work here; exit status 0 only then")
    verb.add_argument("files", type=Path, nargs="*", metavar="FILE", help="weights to look at; the machine without any")
    for name, what in (
        ("teacher", "GEN3C or another teacher"),
        ("tokenizer", "the tokenizer"),
        ("recon", "a splat decoder"),
    ):
        verb.add_argument(
            f"--{name}", type=Path, nargs="?", const=Path(), metavar="FILE",
            help=f"first light of {what}: run it once and see whether it does what right weights do; mini without FILE",
        )  # fmt: skip
    verb.add_argument("--out", type=Path, help="also write the report to this Markdown file")
    add_precision(verb)
    verb.set_defaults(run="check.run_check")

    verb = verbs.add_parser("bench", help="repeat the figures of the README")
    verb.add_argument("what", choices=bench.NAMES)
    verb.add_argument(
        "--append", type=Path, nargs="?", const=record.RECORD, metavar="FILE",
        help="also append the table to a Markdown file, with date, commit and machine; without FILE dev/benchmarks.md",
    )  # fmt: skip
    verb.add_argument("--json", type=Path, metavar="FILE", help="also append the rows to a file, a line of JSON a run")
    only = verb.add_argument_group("modes and scene; with files modes writes videos, exact on the left")
    only.add_argument("--teacher", type=Path, help="the teacher's weights; random by default")
    only.add_argument("--tokenizer", type=Path, help="the tokenizer's file or folder; random by default")
    only.add_argument("--recon", type=Path, help="scene: the splat decoder's file; random by default")
    only.add_argument("--out", type=Path, help="modes: folder for latents, and with files for videos")
    only.add_argument("--size", choices=bench.SIZES, help="mini takes the pack's models, as it does on a CPU")
    only.add_argument("--mode", choices=modes.MODES, help="scene: how it is filmed; two steps of one pass by default")
    only.add_argument("--stored", choices=DTYPES, help="scene: first write a random teacher, to read from the disk")
    trial = verb.add_argument_group("refine: how good refined splats of the mini models are, instead of what they cost")
    trial.add_argument("--scenes", metavar="LO:HI", help="of the split, as 0:16; made once, and kept")
    trial.add_argument("--split", choices=("validation", "test"), default="validation")
    trial.add_argument("--moving", action="store_true", help="scenes that move, at five bullet times")
    trial.add_argument("--lengths", choices=LENGTHS, default="large", help="of the camera paths")
    trial.add_argument("--sweep", metavar="NAME,...", help="settings to compare; 'all', or a wrong name to see which")
    trial.add_argument("--steps", type=int, default=0, help="0: as many as suit the device")
    trial.add_argument("--stride", type=int, default=2, help="every so many frames are judged")
    trial.add_argument("--disturb", type=float, default=0.0, metavar="PIXELS", help="make the frames' cameras wrong")
    trial.add_argument("--minutes", type=float, default=math.inf, help="no run begins after so many")
    trial.add_argument("--keep", type=Path, default=Path("out/refine"), help="folder of scenes and results, added to")
    add_device(verb)
    verb.set_defaults(run="splats.run_bench")


def add_scene_verbs(verbs: argparse._SubParsersAction) -> None:
    """Verbs from a picture or clip to splats, and what they need."""
    verb = verbs.add_parser("demo", help="the mini models at work: a picture and a clip become scenes")
    verb.add_argument("--out", type=Path, default=Path("out"), help="folder for splats, videos and pictures")
    verb.add_argument("--image", type=Path, help="a picture of your own, or a video from a camera that stood still")
    verb.add_argument("--depth", type=Path, help=f"its depth: .exr, .npz, .pfm, or a grey picture or video; {GUESSED}")
    verb.add_argument(
        "--meaning", choices=MEANINGS, help="of the depth's values; by default near-far of pictures, depth of others"
    )
    add_unit(verb)
    verb.add_argument("--near", type=float, default=NEAR, help="near-far: depth of white")
    verb.add_argument("--far", type=float, default=FAR, help="near-far: depth of black")
    verb.add_argument("--fov", type=float, default=41.0, help="vertical field of view in degrees")
    verb.add_argument(
        "--refine", type=seconds, metavar="SECONDS", help="for each scene's splats; by default 40 on a CPU, 20 on a GPU"
    )
    add_guess(verb)
    add_device(verb)
    verb.set_defaults(run="scene.run_demo")

    verb = verbs.add_parser("geometry", help="picture and depth, or ViPE results, to a geometry file")
    verb.add_argument(
        "source", type=Path, help="a picture, with --depth a video from a camera that stood still, or ViPE's results"
    )
    verb.add_argument("out", type=Path, help="geometry to write, .safetensors")
    verb.add_argument(
        "--depth", type=Path,
        help=f"its depth: .exr, .npz, .npy, .pfm, a picture, a grey video, or a folder of frames; {GUESSED}",
    )  # fmt: skip
    add_guess(verb)
    verb.add_argument("--meaning", choices=MEANINGS, default="depth", help="of its values")
    add_unit(verb)
    verb.add_argument("--near", type=float, help="near-far: depth of white")
    verb.add_argument("--far", type=float, help="near-far: depth of black")
    verb.add_argument("--fov", type=float, default=38.0, help="vertical field of view in degrees")
    verb.add_argument("--start", type=int, default=0, help="of a clip: first frame")
    verb.add_argument("--frames", type=int, default=121, help="of a clip: how many")
    verb.add_argument("--scale", choices=SCALES, default="auto", help="auto: median depth becomes 1")
    add_device(verb)
    verb.set_defaults(run="scene.run_geometry")

    verb = verbs.add_parser("generate", help="latents along camera paths around a geometry; a stopped run goes on")
    verb.add_argument("geometry", type=Path, help="what 'lyra geometry' wrote")
    verb.add_argument("out", type=Path, help="folder in the SDG layout: <view>/{latent,rgb,pose,intrinsics}/<name>.*")
    add_path_options(verb)
    add_models(verb, "teacher", "tokenizer")
    verb.add_argument("--name", help="of the clip; by default the geometry file's")
    verb.add_argument("--text", type=Path, help="embeddings of 'lyra encode-text'; none by default")
    add_fields(verb, GenerateSettings, "steps", "guidance", "solver", "step_cache", "seed", "linears")
    add_fields(verb, GenerateSettings, "attention", choices=attention.backends)
    add_mode(verb)
    verb.add_argument("--compile", action="store_true", help="the blocks; on an H200 that gained 2 percent at most")
    verb.add_argument(
        "--memory", choices=("auto", "stream"), default="auto",
        help="stream: the teacher's weights stay in RAM and are copied block by block; auto: if the GPU is too small",
    )  # fmt: skip
    verb.add_argument("--gpus", type=int, default=1, help="of this machine, side by side; each takes paths of its own")
    verb.add_argument("--no-rgb", action="store_true", help="do not decode and write mp4s")
    verb.add_argument("--reference-format", action="store_true", help="also write the reference's .pkl latents")
    verb.set_defaults(run="scene.run_generate")

    verb = verbs.add_parser("decode", help="latents of one view to an mp4")
    add_latents(verb)
    verb.add_argument("out", type=Path, help="mp4 to write")
    add_models(verb, "tokenizer")
    verb.add_argument("--view", type=int, default=0, help="counted from 0")
    verb.set_defaults(run="scene.run_decode")

    verb = verbs.add_parser("reconstruct", help="latents to splats, one PLY a bullet time")
    add_latents(verb)
    verb.add_argument("out", type=Path, help="folder for splats_<time>.ply")
    add_models(verb, "recon", "tokenizer")
    verb.add_argument(
        "--times", default="0", help="bullet times as frame indices, '0,60,120' or '0-120/8'; a static decoder has one"
    )
    verb.add_argument("--keep", type=float, help="share of splats kept, by opacity; by default the decoder's")
    verb.add_argument("--budget", type=float, default=8.0, help="GB of memory for the splat decoder")
    verb.add_argument(
        "--refine", type=seconds, default=0.0, metavar="SECONDS", help="then sharpen them, as 'lyra refine' does"
    )
    verb.add_argument("--geometry", type=Path, help="--refine: of 'lyra geometry', the picture or clip itself")
    verb.set_defaults(run="scene.run_reconstruct")

    verb = verbs.add_parser("refine", help="sharpen splats: optimise them towards the frames they were made from")
    verb.add_argument("splats", type=Path, help="the PLY that 'lyra reconstruct' wrote")
    verb.add_argument("out", type=Path, help="PLY to write")
    verb.add_argument("--latents", type=Path, required=True, help="what they were made from: our file, or a folder")
    verb.add_argument("--clip", help="of the folder, if it holds several")
    verb.add_argument("--cameras", type=Path, help="of 'lyra reconstruct'; by default cameras.json beside the PLY")
    verb.add_argument("--geometry", type=Path, help="of 'lyra geometry': the picture itself, sharper than the frames")
    verb.add_argument("--time", type=int, help="of a moving scene: the bullet time of the PLY, a frame index")
    verb.add_argument("--steps", type=int, default=0, help="0: what suits the device, 300 on a GPU and 100 on a CPU")
    add_fields(verb, RefineSettings, "seconds", type=seconds)
    add_fields(verb, RefineSettings, "seed", *EXTRAS)
    add_models(verb, "tokenizer")
    verb.set_defaults(run="refine.run_refine")

    verb = verbs.add_parser("dataset", help="a scene as pictures, cameras and points, to train splats from")
    add_latents(verb)
    verb.add_argument("out", type=Path, help="folder to make")
    verb.add_argument("--geometry", type=Path, help="of 'lyra geometry': its points are where training starts")
    verb.add_argument("--splats", type=Path, help="draw these along the paths, instead of the latents' own frames")
    verb.add_argument("--every", type=int, default=1, metavar="N", help="every Nth picture")
    verb.add_argument("--points", type=int, default=100_000, help="at most so many")
    verb.add_argument("--metres", action="store_true", help="cameras and points in metres, if the latents know them")
    add_models(verb, "tokenizer")
    verb.set_defaults(run="scene.run_dataset")

    verb = verbs.add_parser("plan", help="memory, time and disk of a released-size scene before it is made")
    add_fields(verb, PathSettings, "preset", help="camera paths")
    verb.add_argument("--decoder", choices=RECON_PRESETS, default="lyra_static")
    verb.add_argument("--times", default="0", help="bullet times")
    add_fields(verb, GenerateSettings, "steps")
    add_fields(verb, GenerateSettings, "guidance", help="0 halves the time")
    verb.add_argument("--budget", type=float, default=12.0, help="GB of memory there is")
    add_precision(verb)
    verb.set_defaults(run="scene.run_plan")

    verb = verbs.add_parser("encode-text", help="T5 embeddings of a prompt, once, for many scenes")
    verb.add_argument("t5", type=Path, help="folder of google-t5/t5-11b")
    verb.add_argument("out", type=Path, help="embeddings to write, .safetensors (2 MB)")
    verb.add_argument("--prompt", default="")
    verb.add_argument("--negative", help="by default GEN3C's own; empty for none")
    add_device(verb)
    verb.set_defaults(run="scene.run_encode_text")

    verb = verbs.add_parser("convert-weights", help="a model of any form as one safetensors file, with its sha256")
    verb.add_argument(
        "source", type=Path, help="a teacher, tokenizer or splat decoder: .pt, .jit, shards, a folder, safetensors"
    )
    verb.add_argument("out", type=Path, help=".safetensors to write")
    verb.add_argument(
        "--dtype", choices=PRECISIONS, help="by default bfloat16 for teachers and tokenizers, as stored for decoders"
    )
    verb.add_argument("--quant", choices=QUANTS, help="a teacher's matrices in 8 bits, for ComfyUI: half of the memory")
    verb.set_defaults(run="scene.run_convert_weights")

    verb = verbs.add_parser(
        "fetch", help="download released weights, after their licence; the mini ones need no download"
    )
    verb.add_argument("name", choices=sorted(RELEASES))
    verb.add_argument("folder", type=Path, help="of all weights, such as ComfyUI/models")
    verb.add_argument("--accept-licence", action="store_true", help="without it, size and licence are shown")
    verb.set_defaults(run="scene.run_fetch")


def add_mode(verb: argparse.ArgumentParser) -> None:
    """How the teacher films; what a mode decides counts instead of other options."""
    verb.add_argument(
        "--mode", choices=modes.MODES, default="as set",
        help="overrides steps, guidance, solver, step cache, attention and linears",
    )  # fmt: skip


def add_path_options(verb: argparse.ArgumentParser) -> None:
    """What decides where camera paths go."""
    add_fields(verb, PathSettings, "preset", "movement", "rotation")
    add_fields(verb, PathSettings, "seed", prefix="path-")


def add_camera_options(verb: argparse.ArgumentParser) -> None:
    """The camera that paths start from, where no geometry tells it."""
    add_fields(verb, PathSettings, "frames")
    verb.add_argument("--width", type=int, default=1280, help="pixels")
    verb.add_argument("--height", type=int, default=704, help="pixels")
    verb.add_argument("--fov", type=float, default=38.0, help="vertical field of view in degrees")


def add_unit(verb: argparse.ArgumentParser) -> None:
    """What the numbers in a depth file are."""
    verb.add_argument(
        "--unit", choices=UNITS, help="of the depth file's numbers: m or mm, also of 16-bit pictures; levels: shares"
    )


def add_guess(verb: argparse.ArgumentParser) -> None:
    """What --depth auto needs."""
    verb.add_argument("--weights", type=Path, help="--depth auto: folder of all weights, by default in the cache")
    verb.add_argument("--accept-licence", action="store_true", help="--depth auto: fetch Depth Anything V2 (99 MB)")


def add_format(verb: argparse.ArgumentParser) -> None:
    """How cameras are written."""
    verb.add_argument(
        "--format", choices=FORMATS, help="of cameras; without it by name, transforms.json or another .json"
    )


def add_device(verb: argparse.ArgumentParser) -> None:
    """Where to compute."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    verb.add_argument("--device", type=usable_device, default=default, help="cuda or cpu")


def seconds(text: str) -> float:
    """A number of seconds, 0 or more."""
    if not 0 <= (found := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} seconds; give 0 or more")
    return found


def usable_device(name: str) -> torch.device:
    """The device of a name, if this torch and this machine have it."""
    try:
        torch.empty(0, device=name)
        device = torch.device(name)  # "cuda" stays without a number: each of several processes has its own
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # where new streams and graphs belong
        return device
    except (RuntimeError, AssertionError) as error:  # torch raises either, with a page of advice
        raise argparse.ArgumentTypeError(f"'{name}' cannot be used here; cpu can") from error


def add_models(verb: argparse.ArgumentParser, *names: str) -> None:
    """Files of the models a verb needs, their precision and device."""
    files = {"teacher": "GEN3C or another teacher", "recon": "a splat decoder", "tokenizer": "the video tokenizer"}
    for name in names:
        verb.add_argument(f"--{name}", type=Path, help=f"file of {files[name]}; by default the mini one of the pack")
    add_precision(verb)


def add_precision(verb: argparse.ArgumentParser) -> None:
    """How and where to compute."""
    verb.add_argument("--dtype", choices=DTYPES, default="bfloat16" if torch.cuda.is_available() else "float32")
    add_device(verb)


def add_latents(verb: argparse.ArgumentParser) -> None:
    """Where a verb reads latents."""
    verb.add_argument("latents", type=Path, help="a latents file of ours, or a folder in the SDG layout")
    verb.add_argument("--clip", help="of the folder, if it holds several")
    verb.add_argument("--dynamic", action="store_true", help="the folder is the reference's, and its source moves")

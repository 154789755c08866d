"""The models that a verb's options name."""

import argparse
from pathlib import Path

import torch

from ...kernels_glue.memory import cache_folder
from ..configs import TeacherConfig, TokenizerConfig
from ..cost.report import generate_bytes, teacher_bytes
from ..gen3c.generate import GenerateSettings
from ..gen3c.load import Teacher, config_of, load_teacher
from ..pipeline import Estimate
from ..released.download import fetch
from ..sources.depth_anything import DepthAnything
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..weights.shipped import shipped_model
from .options import progress
from .verbs import AUTO, DTYPES

COMPILING = (
    "the blocks are compiled in the first pass, which took 23 s on an H200 and may take minutes elsewhere; a pass took "
    "3.58 to 3.67 s there instead of 3.64 s, or of 3.44 s with FlashAttention 4, which compiled blocks leave out"
)


def tokenizer_of(options: argparse.Namespace) -> CosmosTokenizer:
    """The tokenizer, where and as it is used."""
    file = options.tokenizer or shipped_model("tokenizer")
    return load_tokenizer(file).to(options.device, DTYPES[options.dtype])


def teacher_config(options: argparse.Namespace) -> TeacherConfig:
    """What the teacher's file says of itself."""
    return config_of(options.teacher or shipped_model("teacher"))


def teacher_of(
    options: argparse.Namespace, tokenizer: TokenizerConfig, pictures: int, settings: GenerateSettings
) -> Teacher:
    """The teacher where it computes, or streaming there from RAM; ``pictures`` of one clip's geometry lie there too.

    Raises ValueError where its blocks are to be compiled, and something stands in their way.
    """
    file, device, dtype = options.teacher or shipped_model("teacher"), options.device, DTYPES[options.dtype]
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    exact, cached = settings.linears == "exact", settings.step_cache > 0
    streamed = is_streamed(options.memory, free, config_of(file), tokenizer, pictures, cached, dtype, exact)
    against = {"weights that stream": streamed, "a step cache": cached, f"products in {settings.linears}": not exact}
    if options.compile and any(against.values()):
        found = " and ".join(name for name, here in against.items() if here)
        raise ValueError(f"--compile does not go with {found}; leave it out, or use --mode exact where all weights fit")
    if exact and not streamed:
        teacher = load_teacher(file, dtype=dtype, device=device).to(device)
        if options.compile:
            print(COMPILING, flush=True)
            teacher.network.compile_blocks()
        return teacher
    teacher = load_teacher(file, dtype=dtype)
    teacher.network.use_linears(settings.linears, device)
    if not streamed:
        return teacher.to(device)
    told = "" if free is None else f"{free / 1e9:.1f} GB are free: "
    print(f"{told}the teacher's weights stay in RAM, and each block's are copied when it runs", flush=True)
    return teacher.streamed(device)


def is_streamed(
    memory: str,
    free: int | None,
    teacher: TeacherConfig,
    tokenizer: TokenizerConfig,
    pictures: int,
    step_cache: bool,
    dtype: torch.dtype,
    exact: bool = True,
) -> bool:
    """Whether the weights, exact or in 8 bits, stay in RAM: if asked for, or if ``free`` bytes are too few for all."""
    if memory == "stream" or free is None:
        return memory == "stream"
    work = generate_bytes(teacher, tokenizer, pictures, step_cache, dtype)
    return free < teacher_bytes(teacher, dtype, exact) + work


def depth_of(options: argparse.Namespace) -> Path | Estimate | None:
    """The depth that is named, or what guesses it."""
    if options.depth != AUTO:
        return options.depth
    return DepthAnything.load(depth_folder(options), options.device)


def depth_folder(options: argparse.Namespace) -> Path:
    """The folder of Depth Anything, which is fetched once its licence is accepted; ValueError shows it until then."""
    weights = options.weights or cache_folder() / "models"
    try:
        files = fetch("depth-anything", weights, options.accept_licence, progress("Depth Anything"))
    except ValueError as error:
        if options.accept_licence:
            raise
        raise ValueError(f"--depth auto needs {error}: --accept-licence") from error
    return files[0].parent

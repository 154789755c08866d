"""Weights of any form rewritten as one safetensors file that describes itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..callbacks import OnStep, no_progress
from ..configs import TEACHER_PRESETS, TOKENIZER_PRESETS, ReconConfig, TeacherConfig, TokenizerConfig
from ..gen3c.dit import build
from ..gen3c.keys import RELEASED
from ..gen3c.keys import RULES as TEACHER_RULES
from ..gen3c.load import FOLDERS
from ..recon.keys import RULES as RECON_RULES
from ..recon.load import read_config
from ..recon.model import Recon
from ..tokenizer.files import files_of, read_weights, statistics_of
from ..tokenizer.keys import rules as tokenizer_rules
from ..tokenizer.model import build_autoencoder
from ..versions import pack_version
from ..weights.checkpoints.quantised import Scaled
from ..weights.checkpoints.quantising import Quant, quantised
from ..weights.checkpoints.state import read_about, read_state
from ..weights.checkpoints.writing import stream_safetensors
from ..weights.load import fitted, rename, stored_config
from .sniff import Loader, sniff

Config = TeacherConfig | TokenizerConfig | ReconConfig
State = Mapping[str, Tensor | Scaled]
BY_DEFAULT = {"teacher": torch.bfloat16, "tokenizer": torch.bfloat16, "recon": None}  # None: as stored


def convert_weights(
    source: Path,
    out: Path,
    dtype: torch.dtype | None = None,
    *,
    quant: Quant | None = None,
    config: Config | None = None,
    on_step: OnStep = no_progress,
) -> str:
    """Write a teacher, tokenizer or splat decoder in any form as safetensors, for the same loader; return the sha256.

    Weights are cast to ``dtype``: by default teachers and tokenizers to bfloat16, while splat decoders, which are
    small, keep what they have; a tokenizer's statistics stay float32. A teacher of 29 GB is never in memory as a whole.
    ``config`` is by default what the file says of itself, or the released size.

    ``quant`` stores the matrices of a teacher's blocks in 8 bits, under released names, as ComfyUI computes with them.
    """
    loader = loader_for(source)
    read = {"teacher": teacher_state, "tokenizer": tokenizer_state, "recon": recon_state}[loader]
    config, state = read(Path(source), config)
    if quant and loader != "teacher":
        raise ValueError(f"{Path(source).name} is a {loader}; --quant is for teachers, the other models are small")
    state = quantised(rename(state, RELEASED), quant, is_matrix_of_block) if quant else state
    kept = frozenset({"mean", "std"}) if loader == "tokenizer" else frozenset()
    target = dtype or BY_DEFAULT[loader]
    told = {"family": config.family, "config": json.dumps(asdict(config)), "licence": licence_of(source)}
    about = told | {"pack": pack_version()}
    return stream_safetensors(out, state, about, lambda name: torch.float32 if name in kept else target, on_step)


def is_matrix_of_block(name: str) -> bool:
    """Whether a released name is that of a matrix that tokens go through; those of the timestep stay as they are."""
    return name.startswith("blocks.") and "adaLN" not in name


def loader_for(source: Path) -> Loader:
    """The loader that takes the source, which must be one of ours."""
    facts = sniff(source)
    if facts.loader not in BY_DEFAULT:
        raise ValueError(f"{facts.text}; give a teacher, a tokenizer or a splat decoder")
    return facts.loader


def licence_of(source: Path) -> str:
    """What the source says of its licence."""
    return read_about(source).get("licence", "")


def teacher_state(file: Path, config: TeacherConfig | None) -> tuple[TeacherConfig, State]:
    """A teacher's configuration and its weights in our names."""
    config = config or stored_config(file, TeacherConfig) or TEACHER_PRESETS["gen3c"]
    return config, fitted(build(config), read_state(file, FOLDERS), TEACHER_RULES, file.name)


def tokenizer_state(file: Path, config: TokenizerConfig | None) -> tuple[TokenizerConfig, State]:
    """A tokenizer's configuration, its weights in diffusers' names and its statistics."""
    chosen = files_of([file])
    config = config or stored_config(chosen[0], TokenizerConfig) or TOKENIZER_PRESETS["lyra"]
    state, pair = read_weights(chosen)
    names = tokenizer_rules(len(config.multipliers))
    weights = fitted(build_autoencoder(config, "meta"), state, names, " + ".join(part.name for part in chosen))
    mean, std = statistics_of(pair, chosen[0], config.latent_channels)
    return config, weights | {"mean": mean, "std": std}


def recon_state(file: Path, config: ReconConfig | None) -> tuple[ReconConfig, State]:
    """A splat decoder's configuration and weights."""
    config = config or read_config(file)
    with torch.device("meta"):
        model = Recon(config)
    return config, fitted(model, read_state(file), RECON_RULES, file.name)

"""Splat decoders on disk: released files as they are, our own with their configuration."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..configs import RECON_PRESETS, ReconConfig
from ..files.atomic import replacing
from ..weights import load_weights, read_state
from .keys import RULES
from .model import Recon


def load_recon(file: Path, config: ReconConfig | None = None) -> Recon:
    """Splat decoder of a safetensors or torch file, on the CPU, in the precision that is stored.

    Without ``config`` the file says what it is: by the metadata that ``save_recon`` writes, or by a preset's name
    ("lyra_static.pt"): the released static and dynamic files hold the same tensors and differ in nothing else.
    """
    file = Path(file)
    state = read_state(file)
    with torch.device("meta"):
        model = Recon(config or read_config(file))
    return load_weights(model, state, RULES, file.name)


def read_config(file: Path) -> ReconConfig:
    """What a splat decoder's file says of itself."""
    file = Path(file)
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as opened:
            stored = (opened.metadata() or {}).get("config")
        if stored:
            values = json.loads(stored)
            return ReconConfig(**values | {"trained_size": tuple(values["trained_size"])})
    if file.stem not in RECON_PRESETS:
        raise ValueError(
            f"{file.name} does not say which splat decoder it holds; name the file after one of "
            f"{', '.join(RECON_PRESETS)}, or give a configuration"
        )
    return RECON_PRESETS[file.stem]


def save_recon(model: Recon, file: Path) -> str:
    """Write one safetensors file with weights, configuration and family; return its sha256."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(file) as temporary:
        save_file(state, temporary, {"family": model.config.family, "config": json.dumps(asdict(model.config))})
        return hashlib.sha256(temporary.read_bytes()).hexdigest()

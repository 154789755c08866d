"""Splat decoders on disk: released files as they are, our own with their configuration."""

import hashlib
from pathlib import Path

import torch

from ..configs import RECON_PRESETS, ReconConfig
from ..weights.checkpoints.state import read_state
from ..weights.load import load_weights, save_weights, stored_config
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
    if stored := stored_config(file, ReconConfig):
        return stored
    if file.stem not in RECON_PRESETS:
        raise ValueError(
            f"{file.name} does not say which splat decoder it holds; name the file after one of "
            f"{', '.join(RECON_PRESETS)}, or give a configuration"
        )
    return RECON_PRESETS[file.stem]


def save_recon(model: Recon, file: Path, licence: str = "") -> str:
    """Write one safetensors file with weights, configuration, family and licence; return its sha256."""
    save_weights(file, model.state_dict(), model.config, licence)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()

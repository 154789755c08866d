"""Teachers on disk: the released checkpoint as it is, our own files with their configuration."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..configs import TEACHER_PRESETS, TeacherConfig
from ..weights import fingerprint, load_weights, read_about, read_state, save_weights, stored_config
from .dit import GEN3C, build
from .keys import RULES


@dataclass(frozen=True, eq=False, kw_only=True)
class Teacher:
    """The denoising network and what its file says of it."""

    network: GEN3C
    config: TeacherConfig
    fingerprint: str  # of the weights as stored
    dtype: torch.dtype  # what the network is shown, and computes in
    licence: str = ""

    @property
    def identity(self) -> str:
        """Names weights and precision, for the keys of stored results."""
        return f"{self.fingerprint}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.network.proj_out.weight.device


def load_teacher(file: Path, config: TeacherConfig | None = None, dtype: torch.dtype | None = None) -> Teacher:
    """Teacher of a safetensors or torch file, on the CPU, in the stored precision or cast to ``dtype``.

    Without ``config`` the file says what it is; one that says nothing is of the released size.
    """
    file = Path(file)
    config = config or stored_config(file, TeacherConfig) or TEACHER_PRESETS["gen3c"]
    state = read_state(file)
    network = load_weights(build(config), state, RULES, file.name)
    name = fingerprint(network.state_dict())
    return Teacher(
        # not diffusers' own ``to``, which warns: the released weights are bfloat16 in every part
        network=torch.nn.Module.to(network, dtype) if dtype else network,
        config=config,
        fingerprint=name,
        dtype=dtype or network.proj_out.weight.dtype,
        licence=read_about(file).get("licence", ""),
    )


def save_teacher(teacher: Teacher, file: Path) -> None:
    """One safetensors file with weights, configuration, family and licence, for ``load_teacher``."""
    save_weights(file, teacher.network.state_dict(), teacher.config, teacher.licence)

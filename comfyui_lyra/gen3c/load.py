"""Teachers on disk: the released checkpoint as it is, our own files with their configuration."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..callbacks import part
from ..configs import TEACHER_PRESETS, TeacherConfig
from ..weights.checkpoints.parts import parts_of
from ..weights.checkpoints.quantised import Scaled
from ..weights.checkpoints.state import read_about, read_state
from ..weights.load import (
    Fingerprint,
    fitted,
    known_fingerprint,
    load_weights,
    remember_fingerprint,
    rename,
    save_weights,
    stored_config,
)
from .keys import PREFIXES, RULES

if TYPE_CHECKING:  # diffusers takes seconds, and who only asks what a teacher is needs none of it
    from .dit import GEN3C

FOLDERS = ("", "transformer")  # of a chosen folder: where a teacher lies


@dataclass(frozen=True, eq=False, kw_only=True)
class Teacher:
    """The denoising network and what its file says of it."""

    network: "GEN3C"
    config: TeacherConfig
    fingerprint: str  # of the weights as stored
    dtype: torch.dtype  # what the network is shown, and computes in
    licence: str = ""
    onto: torch.device | None = None  # where blocks compute whose weights stream there

    @property
    def identity(self) -> str:
        """Names weights and precision, for the keys of stored results."""
        return f"{self.fingerprint}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def device(self) -> torch.device:
        """Where it computes: where the weights lie, or stream to."""
        return self.onto or self.network.proj_out.weight.device

    def to(self, device: torch.device | str) -> "Teacher":
        """The same teacher, its weights moved."""
        nn.Module.to(self.network, device)
        return self

    def streamed(self, device: torch.device) -> "Teacher":
        """The same teacher, for good: weights stay in RAM, each block's go to the device while the one before works.

        For cards that do not hold them all; the results are the same.
        """
        from diffusers.hooks import apply_group_offloading  # deferred, as its import takes seconds

        ahead = device.type == "cuda"  # elsewhere nothing is copied beside the work
        apply_group_offloading(
            self.network, onload_device=device, offload_device=torch.device("cpu"), offload_type="block_level",
            num_blocks_per_group=1, use_stream=ahead, record_stream=ahead,
        )  # fmt: skip
        if ahead:
            tell_order(self.network)
        return replace(self, onto=device)


def tell_order(network: "GEN3C") -> None:
    """Tell diffusers in which order blocks run, so that each one's weights come while the one before works.

    It would learn that in the first pass, and on taking back what watched the blocks undo a step cache around them.
    """
    from diffusers.hooks.group_offloading import _LAZY_PREFETCH_GROUP_OFFLOADING

    registry: Any = network._diffusers_hook
    lazy = registry.get_hook(_LAZY_PREFETCH_GROUP_OFFLOADING)
    lazy.execution_order = [(f"transformer_blocks.{i}", block) for i, block in enumerate(network.transformer_blocks)]
    lazy.post_forward(network, None)


def load_teacher(
    file: Path,
    config: TeacherConfig | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Teacher:
    """Teacher of a file in any form (``checkpoints.state.read_state``), of its shards or of a diffusers folder.

    In the stored precision (8-bit weights in bfloat16) or cast to ``dtype``, one tensor at a time: a float32 file is
    mapped, and only the cast weights take memory, that of ``device``, the CPU's by default. Without ``config`` the file
    says what it is; one that says nothing is of the released size.
    """
    from .dit import build

    file = Path(file)
    about, state = read_about(file, FOLDERS), read_state(file, FOLDERS)
    config = config or config_of(file)
    parts = parts_of(file, FOLDERS)
    known = known_fingerprint(parts)
    name = Fingerprint() if known is None else None
    network = load_weights(build(config), state, RULES, file.name, dtype=dtype, name=name, device=device)
    if name is not None:
        with part("name weights"):
            remember_fingerprint(parts, str(name))
    return Teacher(
        network=network,
        config=config,
        fingerprint=known or str(name),
        dtype=dtype or network.proj_out.weight.dtype,
        licence=about.get("licence", ""),
    )


def config_of(file: Path) -> TeacherConfig:
    """What a file says of itself; one that says nothing is of the released size."""
    return stored_config(file, TeacherConfig) or TEACHER_PRESETS["gen3c"]


@dataclass(frozen=True, kw_only=True)
class About:
    """What a teacher's file says of itself, and the name of its weights."""

    config: TeacherConfig
    fingerprint: str
    licence: str


def read_teacher(file: Path) -> About:
    """The same that ``load_teacher`` finds in a file, without a network; ValueError where it is no teacher."""
    file = Path(file)
    config, parts = config_of(file), parts_of(file, FOLDERS)
    if (found := known_fingerprint(parts)) is None:
        from .dit import build

        name, state = Fingerprint(), fitted(build(config), read_state(file, FOLDERS), RULES, file.name)
        for key in sorted(state):
            name.add(key, state[key])
        remember_fingerprint(parts, found := str(name))
    return About(config=config, fingerprint=found, licence=read_about(file, FOLDERS).get("licence", ""))


def is_quantised(file: Path) -> bool:
    """Whether a file holds 8-bit matrices with scales under released names, which ComfyUI computes with as they are."""
    file = Path(file)
    if file.suffix not in (".safetensors", ".sft") or not file.is_file():
        return False
    state = rename(read_state(file, FOLDERS), PREFIXES)
    return "x_embedder.proj.1.weight" in state and any(isinstance(value, Scaled) for value in state.values())


def save_teacher(teacher: Teacher, file: Path) -> None:
    """One safetensors file with weights, configuration, family and licence, for ``load_teacher``."""
    save_weights(file, teacher.network.state_dict(), teacher.config, teacher.licence)

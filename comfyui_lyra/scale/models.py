"""The models of a job, loaded where they compute, and the settings that a card there allows."""

from pathlib import Path
from typing import cast

import torch
from torch import nn

from ..gen3c.generate import GenerateSettings
from ..gen3c.load import Teacher, load_teacher
from ..gen3c.modes import as_possible
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..training.train_recon import teacher_dtype
from ..weights.shipped import shipped_model


def teacher_on(device: torch.device, file: str | None, settings: GenerateSettings) -> tuple[Teacher, GenerateSettings]:
    """A teacher, None for the mini one, and the settings by which it films there (see ``as_possible``)."""
    teacher = load_teacher(Path(file) if file else shipped_model("teacher"), dtype=teacher_dtype(device))
    settings = as_possible(settings, teacher.config, teacher.dtype, device)
    teacher.network.use_linears(settings.linears, device)  # before all of the weights are there
    cast(nn.Module, teacher.network).to(device).requires_grad_(False)
    return teacher, settings


def tokenizer_on(device: torch.device, file: str | None) -> CosmosTokenizer:
    """A tokenizer in float32, None for the mini one."""
    return load_tokenizer(Path(file) if file else shipped_model("tokenizer")).float().to(device)

"""The small models that come with the pack, and the picture and clip to try them on."""

from pathlib import Path
from typing import Literal

from .files.sample import Kind, load_sample, sample_files
from .geometry import Geometry

MINI = Path(__file__).resolve().parent / "mini"

Model = Literal["tokenizer", "teacher", "recon_static", "recon_dynamic"]


def shipped_file(name: str) -> Path:
    """A file of the folder, which must be there."""
    path = MINI / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: this copy of the pack is incomplete; get it again, or name files of your own"
        )
    return path


def shipped_model(model: Model) -> Path:
    """The file of one of the mini models."""
    return shipped_file(f"mini_{model}.safetensors")


def shipped_sample(kind: Kind) -> Geometry:
    """The picture or clip with its depth: procedural scenes that none of the models saw."""
    for file in sample_files(MINI, kind):
        shipped_file(file.name)
    return load_sample(MINI, kind)

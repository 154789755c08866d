"""The small models that come with the pack."""

from pathlib import Path
from typing import Literal

MINI = Path(__file__).resolve().parents[1] / "mini"

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

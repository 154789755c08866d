"""Where a kind of model stands: its folder is known here, and what a loader asks about the files in it."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import folder_paths

from ...comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig
from ...comfyui_lyra.tokenizer.files import sources_of
from ...comfyui_lyra.weights.checkpoints.parts import parts_of
from ...comfyui_lyra.weights.load import stored_config
from ...comfyui_lyra.weights.shipped import MINI
from . import hooks
from .folders import OURS, SUFFIXES, add_model_folder, fingerprint

NO_MODEL = re.compile(r"mean_std\.pt$|(^|[\\/])step-\d+[^\\/]*$")  # a tokenizer's statistics, a training's checkpoints


@dataclass(frozen=True)
class Shelf:
    """The files of one kind of model: those that come with the pack, then those of a models folder."""

    folder: str  # of ComfyUI's models
    kind: type  # what describes such a model: its configuration
    parts: Callable[[Path], Iterable[Path]] = parts_of  # the files that are read with one: its shards, or others

    def names(self) -> list[str]:
        """What a loader offers, the first by default. Where there is no file, one entry that says where to put one."""
        add_model_folder()
        found = [name for name in file_names(self.folder) if name.endswith(SUFFIXES) and not NO_MODEL.search(name)]
        found += traced(self.folder) if self.folder == "vae" else []
        return [*shipped(MINI, self.kind), *found] or [f"put a model into models/{self.folder}"]

    def path(self, name: str) -> Path:
        """Where a file of ``names`` lies."""
        if name in (files := shipped(MINI, self.kind)):
            return files[name]
        add_model_folder()
        found = folder_paths.get_full_path(self.folder, name)
        if found is None:
            raise FileNotFoundError(
                f"no file '{name}' in models/{self.folder}; put one there (the README lists them), then press R and "
                "choose it"
            )
        return Path(found)

    def is_there(self, name: str | None) -> bool | str:
        """For ``validate_inputs``, see ``hooks.is_there``."""
        return hooks.is_there(self.path, name)

    def state_of(self, name: str | None) -> str:
        """For ``fingerprint_inputs``, see ``hooks.state_of``: of the file and those that are read with it."""
        return hooks.state_of(
            self.path, name, lambda path: " ".join(map(fingerprint, dict.fromkeys((path, *self.parts(path)))))
        )


TEACHERS = Shelf("diffusion_models", TeacherConfig)
TOKENIZERS = Shelf("vae", TokenizerConfig, sources_of)
DECODERS = Shelf(OURS, ReconConfig)


def traced(folder: str) -> list[str]:
    """TorchScript files of a models folder, which ComfyUI's own lists leave out: NVIDIA's tokenizer is some."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(folder)]
    return sorted({file.relative_to(root).as_posix() for root in roots for file in root.rglob("*.jit")})


def file_names(folder: str) -> list[str]:
    """ComfyUI's list of a models folder, which fails where one below it is gone: people empty their output folder."""
    try:
        return folder_paths.get_filename_list(folder)
    except FileNotFoundError:
        folder_paths.filename_list_cache.pop(folder, None)
        return folder_paths.get_filename_list(folder)


@cache
def shipped(folder: Path, kind: type) -> dict[str, Path]:
    """The pack's own files that a ``kind`` describes, by the name a list shows, those for still scenes first."""
    found = {}
    for file in sorted(folder.glob("*.safetensors"), key=lambda file: ("dynamic" in file.stem, file.name)):
        try:
            if stored_config(file, kind):
                found[f"{folder.name}/{file.name}"] = file
        except ValueError:  # described by another kind
            continue
    return found

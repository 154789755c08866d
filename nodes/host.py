"""Everything asked of ComfyUI: devices, memory, folders, progress, interruption, and what this version can do."""

import dataclasses
import inspect
import logging
import sys
import time
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..comfyui_lyra.progress import OnStep

log = logging.getLogger("lyra")

# Marks an expert widget, where the core knows the word.
EXPERT = {"advanced": True} if "advanced" in inspect.signature(io.Int.Input).parameters else {}


def schema(**fields) -> io.Schema:
    """A node's schema, without the fields that an older core does not know."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})


def missing(node: type[io.ComfyNode]) -> list[str]:
    """Parts of ComfyUI's node API that a node's schema names and this version lacks."""
    named = node.define_schema.__code__.co_names
    return [part for part in ("Autogrow", "Color", "MultiType") if part in named and not hasattr(io, part)]


def serve_help() -> None:
    """Serve ``nodes/web`` under the name by which the editor looks for help pages.

    It asks for this folder's name up to the first dot; pyproject's ``web`` serves the registry's name only.
    """
    from nodes import EXTENSION_WEB_DIRS  # ComfyUI's; deferred, for where a test runs in our root `nodes` is ours

    here = Path(__file__).absolute().parent
    EXTENSION_WEB_DIRS.setdefault(here.parent.name.split(".")[0], str(here / "web"))


def compute_device() -> torch.device:
    """Where ComfyUI wants work done."""
    return comfy.model_management.get_torch_device()


def make_room(size: int) -> None:
    """Ask ComfyUI to unload models until ``size`` bytes are free on the compute device."""
    comfy.model_management.free_memory(size, compute_device())


def intermediate_device() -> torch.device:
    """Where tensors between nodes live: the CPU, unless ComfyUI runs with --gpu-only."""
    return comfy.model_management.intermediate_device()


def intermediate_dtype() -> torch.dtype:
    """Number format of pictures between nodes; cores that offer no choice use float32."""
    choose = getattr(comfy.model_management, "intermediate_dtype", None)
    return choose() if choose else torch.float32


def progress(label: str) -> OnStep:
    """A callback that moves the node's progress bar, stops when the user cancels, and logs the time at the end."""
    bar = comfy.utils.ProgressBar(1)
    start = time.perf_counter()

    def on_step(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)
        if done == total:
            log.info("%s: %d steps in %.1f s", label, total, time.perf_counter() - start)

    return on_step


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Write a line on a node that declares ``Hidden.unique_id``; nothing where no editor is served."""
    server = sys.modules.get("server")  # ComfyUI's, if it is running
    if server and node.hidden and node.hidden.unique_id:
        server.PromptServer.instance.send_progress_text(text, node.hidden.unique_id)


def input_files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files below a folder of ComfyUI's input, as ``folder/name``, sorted."""
    root = Path(folder_paths.get_input_directory())
    found = (path for path in (root / folder).rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path.relative_to(root).as_posix() for path in found)


def input_path(name: str) -> Path:
    """A file or folder named by the user: below ComfyUI's input folder, or absolute."""
    path = Path(folder_paths.get_input_directory(), name.strip().strip('"'))
    if not path.exists():
        raise FileNotFoundError(f"'{name}' is neither in {folder_paths.get_input_directory()} nor an absolute path")
    return path


def fingerprint(path: Path) -> str:
    """Changes when a file, or anything directly in a folder, is written again."""
    parts = [path, *sorted(path.glob("*"))] if path.is_dir() else [path]
    return " ".join(f"{part.name}:{part.stat().st_mtime_ns}:{part.stat().st_size}" for part in parts)


def output_path(prefix: str, suffix: str) -> tuple[Path, dict[str, str]]:
    """The next free numbered file of the output folder, and how ComfyUI names it to the editor."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    filename = f"{name}_{counter:05}_{suffix}"
    return Path(folder, filename), {"filename": filename, "subfolder": subfolder, "type": "output"}

"""Everything asked of ComfyUI: devices, memory, folders, progress, interruption, and what this version can do."""

import gc
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import comfy.model_management
import comfy.utils
import comfyui_version
import folder_paths
import torch
from comfy_api.latest import io

from ...comfyui_lyra.callbacks import OnStep
from ...comfyui_lyra.files.names import check_name, check_prefix
from ...comfyui_lyra.files.scenes.sdg_manifest import lyra_folder
from ...comfyui_lyra.weights.load import stored_config
from ...comfyui_lyra.weights.shipped import MINI
from ...kernels_glue.memory import use_folder
from .patchers import Model

log = logging.getLogger("lyra")
Result = TypeVar("Result")

OURS = "lyra"  # the models folder of what fits into none of ComfyUI's
WEB = Path(__file__).absolute().parents[1] / "web"
SUFFIXES = (".safetensors", ".sft", ".pt", ".pth", ".ckpt")
NO_MODEL = re.compile(r"mean_std\.pt$|(^|[\\/])step-\d+[^\\/]*$")  # a tokenizer's statistics, a training's checkpoints
PRECISIONS = ("auto", "float32", "bfloat16")


def serve_help() -> None:
    """Serve ``nodes/web`` under the name by which the editor looks for help pages.

    It asks for this folder's name up to the first dot; pyproject's ``web`` serves the registry's name only.
    """
    from nodes import EXTENSION_WEB_DIRS  # ComfyUI's; deferred, for where a test runs in our root `nodes` is ours

    if WEB.is_dir():  # the server cannot start with a folder that is not there
        EXTENSION_WEB_DIRS.setdefault(WEB.parents[1].name.split(".")[0], str(WEB))
    else:
        log.warning("%s is not there: nodes have no help pages; get this pack again", WEB)


def keep_memory() -> None:
    """Let what is remembered between starts lie in ComfyUI's user folder."""
    use_folder(Path(folder_paths.get_user_directory(), OURS))


def compute_device() -> torch.device:
    """Where ComfyUI wants work done."""
    return comfy.model_management.get_torch_device()


def make_room(size: int) -> None:
    """Ask ComfyUI to unload models until ``size`` bytes are free on the compute device."""
    comfy.model_management.free_memory(size, compute_device())


def load(*models: Model, size: int) -> None:
    """Bring models to the compute device together, with room for ``size`` bytes more; others make way as needed."""
    comfy.model_management.load_models_gpu([model.patcher for model in models], memory_required=size)


def total_memory() -> int:
    """Bytes that the compute device has: what to ask ComfyUI for where nothing else may stay there."""
    return comfy.model_management.get_total_memory(compute_device())


def free_memory() -> int:
    """Bytes that are free on the compute device."""
    return comfy.model_management.get_free_memory(compute_device())


def first_that_fits(attempts: Iterable[Callable[[], Result]]) -> Result:
    """The result of the first attempt that memory suffices for; if none, the last one's error."""
    error = None
    for attempt in attempts:
        if error is not None:
            log.warning("out of memory, trying again with less on the device")
            comfy.model_management.soft_empty_cache()
        try:
            return attempt()
        except Exception as raised:
            if not is_out_of_memory(raised):
                raise
            error = raised.with_traceback(None)  # what failed must not hold on to its tensors
    raise error


@contextmanager
def training() -> Iterator[None]:
    """Room on the device, and gradients, which ComfyUI switches off for nodes; what it leaves is freed at the end.

    A training's recorded graphs hold each other in circles, and device memory with them.
    """
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        gc.collect()
        comfy.model_management.soft_empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the device's memory is used up."""
    return comfy.model_management.is_oom(error)


def precision(choice: str) -> torch.dtype:
    """Of PRECISIONS; auto is bfloat16, what the released models were made with, where the device is fast at it."""
    if choice == "auto":
        fast = comfy.model_management.should_use_bf16(compute_device())
        return torch.bfloat16 if fast else torch.float32
    return getattr(torch, choice)


def intermediate_device() -> torch.device:
    """Where tensors between nodes live: the CPU, unless ComfyUI runs with --gpu-only."""
    return comfy.model_management.intermediate_device()


def intermediate_dtype() -> torch.dtype:
    """Number format of pictures between nodes."""
    return comfy.model_management.intermediate_dtype()


def progress(label: str) -> OnStep:
    """A callback that moves the node's progress bar, stops when the user cancels, and logs the time at the end.

    It takes a third argument, a preview for the node as ComfyUI's ProgressBar takes it.
    """
    bar = comfy.utils.ProgressBar(1)
    start, ended = time.perf_counter(), []

    def on_step(done: int, total: int, preview: tuple | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total, preview)
        if done == total and not ended:
            ended.append(done)
            log.info("%s: %d steps in %.1f s", label, total, time.perf_counter() - start)

    return on_step


def version() -> dict[str, str]:
    """ComfyUI and its version, for reports."""
    return {"ComfyUI": comfyui_version.__version__}


def bar() -> comfy.utils.ProgressBar:
    """The node's progress bar, for what does not stop when the user cancels but ends early (see ``cancelled``)."""
    return comfy.utils.ProgressBar(1)


def cancelled() -> bool:
    """Whether the user has cancelled; then it is taken as done, so that the workflow goes on with what there is."""
    if not comfy.model_management.processing_interrupted():
        return False
    comfy.model_management.interrupt_current_processing(False)
    return True


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Write a line on a node that declares ``Hidden.unique_id``, for the client that runs it, if one does."""
    instance = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)  # if it is running
    client = getattr(instance, "client_id", None)
    if client is not None and node.hidden and node.hidden.unique_id:
        instance.send_progress_text(text, node.hidden.unique_id, client)


@contextmanager
def warnings() -> Iterator[list[str]]:
    """Collect what the library warns of meanwhile, to show it on a node too."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    collector = Collector(logging.WARNING)
    log.addHandler(collector)
    try:
        yield found
    finally:
        log.removeHandler(collector)


def add_model_folder() -> None:
    """Tell ComfyUI of models/lyra, once it runs; folders that a user's yaml names for it stay."""
    folder_paths.add_model_folder_path(OURS, str(Path(folder_paths.models_dir, OURS)))
    folder_paths.add_model_folder_path(OURS, str(decoders()))
    folder_paths.folder_names_and_paths[OURS][1].update(SUFFIXES)


def model_files(folder: str, kind: type) -> list[str]:
    """Files that a loader offers: those of the pack that a ``kind`` describes, then a models folder's.

    Where there is none, one entry that says where to put them.
    """
    add_model_folder()
    found = [name for name in file_names(folder) if name.endswith(SUFFIXES) and not NO_MODEL.search(name)]
    found += traced(folder) if folder == "vae" else []
    return [*shipped(MINI, kind), *found] or [f"put a model into models/{folder}"]


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


def model_path(folder: str, kind: type, name: str) -> Path:
    """Where a file that ``model_files`` offers lies."""
    if name in (files := shipped(MINI, kind)):
        return files[name]
    add_model_folder()
    found = folder_paths.get_full_path(folder, name)
    if found is None:
        raise FileNotFoundError(
            f"no file '{name}' in models/{folder}; put one there (the README lists them), then press R and choose it"
        )
    return Path(found)


def weights_path(name: str) -> Path:
    """A file of weights named by the user: below models/lyra, or absolute."""
    add_model_folder()
    name = cleaned(name)
    path = Path(folder_paths.get_full_path(OURS, name) or name)
    if not path.is_file():
        raise FileNotFoundError(f"no file '{name}' in models/{OURS}, and it is no absolute path of a file either")
    return path


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


def saved_files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files below a folder of ComfyUI's input and of its output, as ``saved_path`` takes them, sorted."""
    found = []
    for root in (Path(folder_paths.get_input_directory()), output_folder()):
        files = (path for path in (root / folder).rglob("[!.]*") if path.suffix.lower() in suffixes)
        found += sorted(name_of(path, root) for path in files if not path.parent.name.startswith("."))
    return found


def input_path(name: str) -> Path:
    """A file or folder named by the user: below ComfyUI's input folder, or absolute."""
    return existing(name, [Path(folder_paths.get_input_directory())])


def saved_path(name: str) -> Path:
    """A file or folder named by the user: below ComfyUI's input or output folder, the pack's ``mini/``, or absolute.

    Where both have one, it is the input's; of ``lyra``, where this pack keeps what it makes, the output's. A name may
    say which it means, as core's do: ``a.ply [output]``.
    """
    roots = {"input": Path(folder_paths.get_input_directory()), "output": output_folder()}
    plain = cleaned(name)
    if marked := re.fullmatch(r"(.+) \[(input|output)\]", plain):
        return existing(marked[1], [roots[marked[2]]])
    folders = list(roots.values())
    if Path(plain).parts[:1] == (OURS,):
        folders.reverse()
    return existing(plain, folders + [MINI.parent] * plain.startswith(f"{MINI.name}/"))


def cleaned(name: str) -> str:
    """A name as a person gave it, without blanks and quotes around it; ValueError where nothing is left."""
    if plain := name.strip().strip('"').strip():
        return plain
    raise ValueError("no name is given; name a file or folder")


def existing(name: str, folders: list[Path]) -> Path:
    """What has a name below one of the folders, the first that has it, or absolutely."""
    plain = cleaned(name)
    for folder in folders:
        if (path := folder / plain).exists():
            return path
    places = " nor in ".join(str(folder) for folder in folders if folder != MINI.parent)
    raise FileNotFoundError(f"'{plain}' is neither in {places} nor an absolute path")


def fingerprint(path: Path) -> str:
    """Changes when a file, or anything in a folder, is written again; what leads nowhere is not looked at."""
    parts = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    seen = []
    for part in parts:
        try:
            state = part.stat()
        except OSError:
            if part == path:
                raise
            continue  # a link to what is gone, or a file that goes meanwhile
        seen.append(f"{part.name}:{state.st_mtime_ns}:{state.st_size}")
    return " ".join(seen)


def output_folder() -> Path:
    """ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory())


def below_output(path: Path) -> str:
    """A path of the output folder as a person reads it, and as ``saved_path`` takes it."""
    return name_of(path, output_folder())


def name_of(path: Path, root: Path) -> str:
    """What ``saved_path`` finds a path of ComfyUI's input or output folder ``root`` by."""
    name = path.relative_to(root).as_posix()
    if not path.exists() or saved_path(name) == path:
        return name
    return f"{name} [{'output' if root == output_folder() else 'input'}]"


def scene_folder(name: str, anew: bool = False) -> Path:
    """The folder ``lyra/<name>`` of the output folder; if ``anew`` one that is not there yet: name, name_2, ..."""
    return named_folder(scenes(), name, anew, taken=(decoders().name,))


def scenes() -> Path:
    """Where what Generate Latents makes lies."""
    return output_folder() / OURS


def decoder_folder(name: str, anew: bool = False) -> Path:
    """Where a splat decoder is trained: ``<name>`` of ``decoders``; ``anew``: see ``scene_folder``."""
    return named_folder(decoders(), name, anew)


def decoders() -> Path:
    """Where the splat decoders that were trained here lie."""
    return scenes() / "decoders"


def named_folder(root: Path, name: str, anew: bool, taken: tuple[str, ...] = ()) -> Path:
    """A folder of ``root``, named by the user, but not as ``taken``; see ``scene_folder``."""
    folder, number = root / check_name(name, taken=taken), 1
    while anew and (folder.exists() or lyra_folder(folder).exists()):
        number += 1
        folder = folder.with_name(f"{name}_{number}")
    return folder


def output_path(prefix: str, suffix: str) -> tuple[Path, dict[str, str]]:
    """The next free numbered file of the output folder, and how ComfyUI names it to the editor."""
    root = folder_paths.get_output_directory()
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(check_prefix(cleaned(prefix)), root)
    filename = f"{name}_{counter:05}_{suffix}"
    return Path(folder, filename), {"filename": filename, "subfolder": subfolder, "type": "output"}

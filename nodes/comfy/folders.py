"""ComfyUI's folders: names that people give, and where what is made here goes. Models: see ``shelf``."""

import logging
import re
from pathlib import Path

import folder_paths

from ...comfyui_lyra.files.names import check_name, check_prefix
from ...comfyui_lyra.files.scenes.sdg_manifest import lyra_folder
from ...comfyui_lyra.viewer.html import PAGE
from ...comfyui_lyra.weights.shipped import MINI
from ...kernels_glue.memory import use_folder

log = logging.getLogger("lyra")

OURS = "lyra"  # the models folder of what fits into none of ComfyUI's
WEB = Path(__file__).absolute().parents[1] / "web"
SUFFIXES = (".safetensors", ".sft", ".pt", ".pth", ".ckpt")  # of weights


def serve_help() -> None:
    """Serve ``nodes/web`` under the name by which the editor looks for help pages.

    It asks for this folder's name up to the first dot; pyproject's ``web`` serves the registry's name only.
    """
    from nodes import EXTENSION_WEB_DIRS  # ComfyUI's; deferred, for where a test runs in our root `nodes` is ours

    if WEB.is_dir():  # the server cannot start with a folder that is not there
        EXTENSION_WEB_DIRS.setdefault(WEB.parents[1].name.split(".")[0], str(WEB))
    else:
        log.warning("%s is not there: nodes have no help pages; get this pack again", WEB)


def serve_viewer() -> None:
    """Serve the page of Explore Splats, under a name that its script knows."""
    from nodes import EXTENSION_WEB_DIRS  # ComfyUI's; see above

    EXTENSION_WEB_DIRS.setdefault("lyra-viewer", str(PAGE))


def views() -> Path:
    """Where the scenes lie that the page shows, in ComfyUI's temporary folder."""
    return Path(folder_paths.get_temp_directory(), "lyra_view")


def keep_memory() -> None:
    """Let what is remembered between starts lie in ComfyUI's user folder."""
    use_folder(Path(folder_paths.get_user_directory(), OURS))


def add_model_folder() -> None:
    """Tell ComfyUI of models/lyra, once it runs; folders that a user's yaml names for it stay."""
    folder_paths.add_model_folder_path(OURS, str(Path(folder_paths.models_dir, OURS)))
    folder_paths.add_model_folder_path(OURS, str(decoders()))
    folder_paths.folder_names_and_paths[OURS][1].update(SUFFIXES)


def weights_path(name: str) -> Path:
    """A file of weights named by the user: below models/lyra, or absolute."""
    add_model_folder()
    name = cleaned(name)
    path = Path(folder_paths.get_full_path(OURS, name) or name)
    if not path.is_file():
        raise FileNotFoundError(f"no file '{name}' in models/{OURS}, and it is no absolute path of a file either")
    return path


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

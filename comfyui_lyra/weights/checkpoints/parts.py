"""Which files a choice stands for: a file, the shards it belongs to, a folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...files.reading import parse_json
from .containers import container

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
FOLDERS = ("", "transformer", "unet", "vae", "text_encoder")  # of a diffusers release; the chosen folder itself first
STATISTICS = ("mean_std.pt", "image_mean_std.pt")  # of a tokenizer
RELEASED = (("model.pt",), ("autoencoder.jit",), ("encoder.jit", "decoder.jit"))  # what stands for NVIDIA's tokenizer
TRACED = {"autoencoder.jit", "encoder.jit", "decoder.jit"}
LONGEST = 255  # bytes of a file's name, anywhere
SUFFIXES = (".safetensors", ".sft", ".pt", ".pth", ".ckpt", ".bin", ".jit")


def parts_of(path: Path, subfolders: Sequence[str] = FOLDERS) -> tuple[Path, ...]:
    """The files with the weights that a file, an index, a shard or a folder stands for, shards in order.

    Of a folder: the index in it, or its only file of weights, or the first form of NVIDIA's tokenizer, or those of the
    first of ``subfolders`` that has any.
    Raises FileNotFoundError with the names of what is missing, ValueError where a folder leaves the choice open.
    """
    path = Path(path)
    if path.is_dir():
        return of_folder(path, subfolders)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; download them or choose another file")
    if container(path).kind == "index":
        return of_index(path)
    return of_shard(path) or (path,)


def of_index(path: Path) -> tuple[Path, ...]:
    """The files that an index names."""
    try:
        names = sorted(set(parse_json(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path.name} is no index of weights; choose the file with the weights") from error
    if not names or not all(map(is_name, names)):
        raise ValueError(f"{path.name} names no files of its own folder; choose the file with the weights")
    return all_there(path, [path.with_name(name) for name in names])


def is_name(name: object) -> bool:
    """Whether it can be the name of a file in a folder, and no way to another."""
    return isinstance(name, str) and Path(name).name == name and len(name.encode(errors="replace")) <= LONGEST


def of_shard(path: Path) -> tuple[Path, ...] | None:
    """The file and its siblings, if its name is numbered as a shard's."""
    found = SHARD.fullmatch(path.name)
    if found is None:
        return None
    stem, _, count, suffix = found.groups()
    names = [f"{stem}-{number:05}-of-{count}{suffix}" for number in range(1, min(int(count), 10_000) + 1)]
    return all_there(path, [path.with_name(name) for name in names])


def all_there(path: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """The files, all of which must be there."""
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path.name} is part of {len(files)} files, of which {len(missing)} are missing (first: {missing[0]}); "
            "download them into the same folder"
        )
    if any(container(file).kind == "index" for file in files):
        raise ValueError(f"{path.name} names itself or another index; choose the file with the weights")
    return tuple(files)


def of_folder(path: Path, subfolders: Sequence[str]) -> tuple[Path, ...]:
    """The weights in a folder or in one of its folders."""
    for folder in (path / name for name in subfolders):
        indices = sorted(folder.glob("*.index.json"))
        if len(indices) == 1:
            return of_index(indices[0])
        files = sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES and file.name not in STATISTICS)
        if len(files) == 1:
            return tuple(files)
        names = {file.name for file in files}
        if names & TRACED and (chosen := next((some for some in RELEASED if names.issuperset(some)), None)):
            return tuple(folder / name for name in chosen)
        if files and (shards := of_shard(files[0])) and set(shards) == set(files):
            return shards
        if files:
            raise ValueError(
                f"{folder} holds {len(files)} files of weights ({', '.join(file.name for file in files[:4])}); "
                "choose one of them"
            )
    raise FileNotFoundError(f"no weights in the folder {path}; choose the file with the weights")

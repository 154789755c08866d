"""Finished paths found by what they were made from, wherever they lie and whatever they are called now."""

from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..cameras.path import CameraTrajectory
from .reading import parse_json
from .scenes.sdg_manifest import path_key


def find_finished(root: Path, keys: Collection[str]) -> dict[str, Path]:
    """Files of latents below a folder, in the SDG layout, that have one of the keys; the first of each key."""
    found: dict[str, Path] = {}
    for file in sorted(root.rglob("latent/*.safetensors")):
        if len(found) == len(set(keys)):
            break
        if (key := key_of(file)) is not None and key in keys:
            found.setdefault(key, file)
    return found


def key_of(file: Path) -> str | None:
    """The key of the path that a file's latents were made along (see ``sdg_manifest.path_key``), from a few kB of it.

    None of a file that is no such path's, or cannot be read: it is only looked at, by the way.
    """
    try:
        with safe_open(file, "pt") as tensors:
            about = parse_json((tensors.metadata() or {})["about"])
            (path,) = about["paths"]
            c2w, K = (tensors.get_tensor(name).clone() for name in ("c2w.0", "K.0"))
        return path_key(about["provenance"], CameraTrajectory(c2w=c2w, K=K, **path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return None

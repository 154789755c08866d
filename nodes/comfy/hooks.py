"""What nodes answer when ComfyUI asks them about their files before a run: ``validate_inputs``, ``fingerprint_inputs``.

A widget that is linked, or left out of a prompt, has no value then: ComfyUI gives None, or nothing.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from ...comfyui_lyra.weights.checkpoints.parts import parts_of
from . import host


def is_there(find: Callable[[str], Path], name: str | None) -> bool | str:
    """True, or why ``find`` finds nothing; a name that is not known yet is looked for when the node runs."""
    if not isinstance(name, str):
        return True
    try:
        return bool(find(name))
    except (OSError, ValueError) as error:
        return str(error)


def state_of(find: Callable[[str], Path], name: str | None, look: Callable[[Path], object] = host.fingerprint) -> str:
    """Changes when what ``look`` sees of the file or folder of a name does.

    The same for every name that is not known yet, or stands for nothing: what such a name is linked to says whether it
    has changed, and a node that cannot run needs no second try.
    """
    if not isinstance(name, str):
        return "linked"
    try:
        return str(look(find(name)))
    except (OSError, ValueError):
        return "missing"


def state_of_weights(
    find: Callable[[str], Path], name: str | None, files: Callable[[Path], Iterable[Path]] = parts_of
) -> str:
    """The same for a file of weights and those that are read with it: its shards, or what ``files`` tells."""
    return state_of(find, name, lambda path: " ".join(map(host.fingerprint, dict.fromkeys((path, *files(path))))))

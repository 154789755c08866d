"""What nodes answer when ComfyUI asks them about their files before a run: ``validate_inputs``, ``fingerprint_inputs``.

A widget that is linked, or left out of a prompt, has no value then: ComfyUI gives None, or nothing.
"""

from collections.abc import Callable
from pathlib import Path

from .folders import fingerprint


def is_there(find: Callable[[str], Path], name: str | None) -> bool | str:
    """True, or why ``find`` finds nothing; a name that is not known yet is looked for when the node runs."""
    if not isinstance(name, str):
        return True
    try:
        return bool(find(name))
    except (OSError, ValueError) as error:
        return str(error)


def state_of(find: Callable[[str], Path], name: str | None, look: Callable[[Path], object] = fingerprint) -> str:
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

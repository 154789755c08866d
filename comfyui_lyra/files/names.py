"""Names that a person gives and that become files or folders: good on every system, Windows' rules among them."""

import re
from pathlib import PurePosixPath

DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f\ud800-\udfff]')
MOST_BYTES = 200  # of a name: systems take 255, and endings are added
OURS = (".lyra", ".tmp", ".unfinished")  # endings of what lies beside a result


def check_name(name: str, what: str = "a folder", taken: tuple[str, ...] = ()) -> str:
    """Return a name that every system takes for one file or folder; ValueError says what is wrong with another.

    ``taken`` are names that mean something else in that place.
    """
    if wrong := fault(name, taken):
        raise ValueError(f"'{name}' cannot be the name of {what}: {wrong}; use letters, digits, - and _")
    return name


def fault(name: str, taken: tuple[str, ...] = ()) -> str | None:
    """What is wrong with a name, if anything is."""
    checks = (
        (not name.strip(), "it is empty"),
        (FORBIDDEN.search(name), 'it holds one of \\ / : * ? " < > | or a control character'),
        (name.startswith("."), "it starts with a dot, which hides it"),
        (name != name.strip() or name.endswith("."), "it begins or ends with a blank, or ends with a dot"),
        (DEVICES.fullmatch(name), "Windows keeps it for a device"),
        (name.lower().endswith(OURS), f"endings {' '.join(OURS)} are this pack's own"),
        (name.lower() in taken, "this pack keeps other things there"),
        (len(name.encode(errors="replace")) > MOST_BYTES, f"it is longer than {MOST_BYTES} bytes"),
    )
    return next((wrong for bad, wrong in checks if bad), None)


def check_prefix(prefix: str, what: str = "a folder or file") -> str:
    """Return a ``folder/name`` whose every part is a good name, with forward slashes; ValueError names the other."""
    parts = PurePosixPath(prefix.replace("\\", "/")).parts
    for part in parts:
        check_name(part, what)
    return "/".join(parts)


def fit_name(text: str, otherwise: str) -> str:
    """A good name made from a text: ``otherwise`` where nothing of it is left."""
    name = clean(text)[:120].strip("-.")
    while len(name.encode()) > MOST_BYTES:
        name = name[:-1].strip("-.")
    name = name or otherwise
    return name if fault(name) is None else f"{name.replace('.', '-')}_"


def clean(text: str) -> str:
    """A text with hyphens for all that is no letter, digit, dot or underscore."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")

"""Two versions: of what is generated, which decides whether a result is resumed, and of the pack, which is noted."""

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = 1
"""Raised only where equal inputs give other values than before: latents of a path, steps of a training.

Stored results that name no such number are of 1.
"""

PACKAGE = "lyra-splat"


@cache
def pack_version() -> str:
    """The pack's own version, for metadata: from pyproject.toml beside the code, else as it was installed."""
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    found = re.search(r'^version = "([^"]+)"', project.read_text("utf-8"), re.M) if project.is_file() else None
    try:
        return found[1] if found else version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"

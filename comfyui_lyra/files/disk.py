"""Room on a disk."""

import shutil
from pathlib import Path


def check_disk(folder: Path, needed: int) -> None:
    """Raise ValueError if the disk of a folder, which need not exist, has fewer bytes free than needed."""
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(
            f"{folder}: {needed} bytes ({needed / 1e9:.2f} GB) are needed and {free} ({free / 1e9:.2f} GB) are free; "
            "free some space or choose a folder on another disk"
        )

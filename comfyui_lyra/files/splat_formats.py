"""Splat files of other programs, which are named here and not read."""

from pathlib import PurePath

FORMATS = {  # by the ending of the name
    ".splat": "antimatter15's .splat",
    ".spz": "Niantic's SPZ",
    ".sog": "PlayCanvas' SOG",
    ".sogs": "PlayCanvas' SOG",
    ".ksplat": "mkkellogg's .ksplat",
    ".lcc": "XGRIDS' LCC",
    ".rad": "Spark's RAD",
}
ADVICE = "only PLY splats are read; open it in SuperSplat and export PLY, or run 'npx @playcanvas/splat-transform'"


def other_format(name: str, start: bytes) -> str | None:
    """What a file of splats is that is no PLY, and what to do, by its name and first bytes; None for others."""
    kind = FORMATS.get(PurePath(name).suffix.lower())
    return None if kind is None or start.startswith(b"ply") else f"splats as {kind}; {ADVICE}"

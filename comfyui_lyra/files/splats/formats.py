"""Splat files of other programs, which are named here and not read."""

import zlib
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
    """Which format of splats a file is that is no PLY, by its first bytes and its name; None for other files."""
    if start.startswith(b"NGSP") or gunzipped(start).startswith(b"NGSP"):
        return FORMATS[".spz"]
    return None if start.startswith(b"ply") else FORMATS.get(PurePath(name).suffix.lower())


def gunzipped(start: bytes) -> bytes:
    """The first bytes inside a gzip file; none of another."""
    try:
        return zlib.decompressobj(31).decompress(start[:4096], 16)
    except zlib.error:
        return b""

"""Splats from any form of file that is read, told apart by what is in it."""

from pathlib import Path

from ...splats.gaussians import Gaussians
from ..cameras.lyra_json import read_object
from ..reading import reading
from .formats import ADVICE, READ, form_of
from .ply import parse_ply, said_metres, usable
from .sog import parse_sog
from .splat import parse_splat
from .spz import parse_spz

BESIDE = ("cameras.json", "manifest.json")  # files that may say what a unit of splats beside them is
PARSERS = {".spz": parse_spz, ".sog": parse_sog, ".sogs": parse_sog, ".splat": parse_splat}


def load_splats(source: Path | str | bytes, suffix: str = ".ply") -> Gaussians:
    """Read splats, in our axes, from a file or its bytes, which are those of a file with ``suffix``.

    Splats that hold NaN or infinity, or a quaternion of length zero, are dropped with a warning. Raises ValueError for
    other forms, what is damaged or holds no splats.
    """
    if isinstance(source, bytes):
        return parse(source, f"splats{suffix}", "the splats")
    with reading(source) as file:
        return parse(file.read_bytes(), file.name, str(file))


def parse(data: bytes, name: str, what: str) -> Gaussians:
    """As ``load_splats``; ``name`` stands for the form where the bytes do not, ``what`` names them in warnings."""
    form = form_of(name, data[:4096])
    suffix = form.suffix if form else ".sog" if data[:4] == b"PK\x03\x04" else ".ply"
    if form and not form.reads:
        raise ValueError(f"splats as {form.title}; {', '.join(READ)} are read: {ADVICE}")
    return usable(PARSERS[suffix](data), what) if suffix in PARSERS else parse_ply(data, what)


def metres_of(file: Path) -> float | None:
    """What a unit of splats is in metres, where their ``file`` or one of ours beside it says so."""
    said = None
    if file.suffix.lower() != ".json" and file.is_file():
        with file.open("rb") as stream:
            said = said_metres(stream.read(4096))
    beside = [read_object(other) for name in BESIDE if (other := file.with_name(name)).is_file()]
    found = [said, *(document.get("metres_per_unit") for document in beside)]
    return next((float(x) for x in found if isinstance(x, int | float) and 0 < x < float("inf")), None)

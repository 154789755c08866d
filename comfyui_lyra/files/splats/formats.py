"""Every form of splats on disk, in one table: verbs, nodes, help and README are made of it."""

import zlib
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, get_args

Up = Literal["y_down", "y_up", "z_up"]
UPS: tuple[Up, ...] = get_args(Up)
AXES: dict[Up, str] = {
    "y_down": "x right, y down, z ahead",
    "y_up": "x right, y up, z back",
    "z_up": "x right, y ahead, z up",
}


@dataclass(frozen=True, kw_only=True)
class SplatFormat:
    """What a form of splats is, who reads and writes it here, and what it costs."""

    name: str  # that a person chooses it by; empty where it is not written
    suffix: str
    title: str
    reads: bool = False
    needs: str = ""  # a library to write it with, as pip names it
    ups: tuple[Up, ...] = ("y_down",)  # axes it may have, the usual ones first
    says: str = ""  # what the file itself says of axes and unit
    lost: str = ""  # on writing, beside the order of the splats
    moves: bool = False  # one file may hold several moments

    @property
    def writes(self) -> bool:
        """Whether it is written here."""
        return bool(self.name)


TABLE = (
    SplatFormat(
        name="ply", suffix=".ply", title="3DGS PLY", reads=True, ups=UPS,
        says="a comment, where up is not y_down or metres are known", lost="nothing",
    ),
    SplatFormat(
        name="spz", suffix=".spz", title="Niantic's SPZ", reads=True, needs="gaussforge", ups=("y_up",),
        lost="positions to 1/4096 unit, sizes to 3.2 %, turns to 0.2 degrees, colours to 1/255, harmonics to 1/14",
    ),
    SplatFormat(
        name="sog", suffix=".sog", title="PlayCanvas' SOG", reads=True, needs="gaussforge",
        lost="positions to 1/10000 of the scene, sizes to 2 %, turns to 0.7 degrees, colours to 1/255, the order",
    ),
    SplatFormat(
        name="glb", suffix=".glb", title="glTF with KHR_gaussian_splatting", ups=("y_up",),
        says="always y up and metres: a scale, where metres are known", lost="nothing",
    ),
    SplatFormat(
        name="usda", suffix=".usda", title="OpenUSD as text", ups=("y_up", "z_up"), moves=True,
        says="upAxis and metersPerUnit", lost="the eighth digit",
    ),
    SplatFormat(
        name="usdc", suffix=".usdc", title="OpenUSD as binary", needs="usd-core", ups=("y_up", "z_up"), moves=True,
        says="upAxis and metersPerUnit", lost="nothing",
    ),
    SplatFormat(
        name="html", suffix=".html", title="a page that shows them", moves=True,
        lost="positions to 1/65534 of 256 neighbours, sizes to 1.8 %, turns to 1.1 degrees, harmonics above band 0",
    ),
    SplatFormat(name="", suffix=".splat", title="antimatter15's .splat", reads=True),
    SplatFormat(name="", suffix=".sogs", title="PlayCanvas' SOG", reads=True),
    SplatFormat(name="", suffix=".ksplat", title="mkkellogg's .ksplat"),
    SplatFormat(name="", suffix=".lcc", title="XGRIDS' LCC"),
    SplatFormat(name="", suffix=".rad", title="Spark's RAD"),
)  # fmt: skip
BY_SUFFIX = {form.suffix: form for form in TABLE}
WRITTEN = {form.name: form for form in TABLE if form.writes}
READ = tuple(form.suffix for form in TABLE if form.reads)
ADVICE = "open it in SuperSplat and export PLY, or run 'npx @playcanvas/splat-transform'"
NGSP = b"NGSP"  # how SPZ begins, alone or inside gzip


def form_of(name: str, start: bytes) -> SplatFormat | None:
    """Which form a file of splats is in, by its first bytes and else its name; None for other files."""
    if start.startswith((b"ply\n", b"ply\r")):
        return BY_SUFFIX[".ply"]
    if start.startswith(NGSP) or gunzipped(start).startswith(NGSP):
        return BY_SUFFIX[".spz"]
    return BY_SUFFIX.get(PurePath(name).suffix.lower())


def gunzipped(start: bytes) -> bytes:
    """The first bytes inside a gzip file; none of another."""
    try:
        return zlib.decompressobj(31).decompress(start[:4096], 16)
    except zlib.error:
        return b""


def to_write(path: PurePath | str, kind: str | None = None) -> SplatFormat:
    """The form that a file is to have, by its ``kind`` or the ending of its name; ValueError where none is written."""
    path = PurePath(path)
    form = WRITTEN.get(kind) if kind else BY_SUFFIX.get(path.suffix.lower())
    if form is None or not form.writes:
        endings = ", ".join(found.suffix for found in WRITTEN.values())
        raise ValueError(f"{path}: splats are written as {endings}; give it one of these endings")
    return form


def axes_of(form: SplatFormat, up: Up | None) -> Up:
    """The axes a file gets: those asked for, or the usual ones; ValueError for such as the form does not have."""
    up = up or form.ups[0]
    if up not in form.ups:
        others = ", ".join(other.name for other in WRITTEN.values() if up in other.ups)
        raise ValueError(f"{form.title} is {' or '.join(form.ups)}, not {up}; {others} can be")
    return up


def table(languages: tuple[str, ...] = ("format", "ending", "read", "written with", "axes", "lost")) -> list[str]:
    """The table as lines of Markdown."""
    lines = [f"| {' | '.join(languages)} |", "|" + "---|" * len(languages)]
    for form in TABLE:
        if form.reads or form.writes:
            written = (form.needs or "itself") if form.writes else "no"
            axes = ", ".join(f"`{up}`" for up in form.ups)
            cells = (form.title, f"`{form.suffix}`", "yes" if form.reads else "no", written, axes, form.lost or "")
            lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return lines

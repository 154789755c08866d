"""Sheets of labelled pictures and pages of text, and where pictures are kept."""

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from . import ROOT

HELP, ASSETS, TEMPLATES = ROOT / "nodes" / "web" / "pictures", ROOT / "assets", ROOT / "workflows"
README_WIDTH, TEMPLATE_WIDTH, CELL = 1100, 400, (242, 145)  # pixels
LARGE = (358, 215)  # a cell of the README
MARGIN, LABEL = 6, 20
PAPER, INK, GREEN = (24, 26, 30), (225, 228, 232), (90, 190, 110)
ROOM = {HELP: 40_000, ASSETS: 125_000, TEMPLATES: 20_000}  # bytes that a picture may take
LINE = 18  # pixels a line of text
Cell = tuple[str, Tensor]  # label, picture [H, W, 3] in [0, 1]


def place(name: str) -> Path:
    """The file of a picture: of a node's id, of a template, or of the README."""
    folder = HELP if name.startswith("Lyra") else TEMPLATES if (TEMPLATES / f"{name}.json").is_file() else ASSETS
    return folder / f"{name}.jpg"


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    return ImageFont.load_default(size=size)


def whole(picture: Tensor) -> Image.Image:
    """A picture [H, W, 3] as it is."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy())


def narrowed(picture: Image.Image, width: int) -> Image.Image:
    """A picture of at most a width."""
    width = min(width, picture.width)
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


def labelled(label: str, picture: Tensor, size: tuple[int, int]) -> Image.Image:
    """A picture of one size below its label."""
    cell = Image.new("RGB", (size[0], size[1] + LABEL), PAPER)
    ImageDraw.Draw(cell).text((3, 3), label, fill=INK, font=font(12))
    cell.paste(whole(picture).resize(size, Image.Resampling.BICUBIC), (0, LABEL))
    return cell


def sheet(*rows: list[Cell], size: tuple[int, int] = CELL) -> Image.Image:
    """Rows of labelled pictures."""
    cells = [[labelled(*cell, size) for cell in row] for row in rows]
    width, height = size[0] + MARGIN, size[1] + LABEL
    found = Image.new("RGB", (MARGIN + width * max(map(len, cells)), height * len(cells) + MARGIN), PAPER)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            found.paste(cell, (MARGIN + x * width, y * height))
    return found


def in_threes(cells: list[Cell]) -> Image.Image:
    """Rows of three."""
    return sheet(*(cells[start : start + 3] for start in range(0, len(cells), 3)))


def every_eighth(label: str, frames: Tensor) -> list[Cell]:
    """Frames 0, 8 and 16 of a clip."""
    return [(label.format(i), frames[i]) for i in (0, 8, 16)]


def page(rows: Sequence[Sequence[str]], columns: Sequence[int], width: int, title: str = "") -> Image.Image:
    """Text in columns that begin at so many pixels; a row of one cell is a heading, "ok" is green."""
    found = Image.new("RGB", (width, LINE * (len(rows) + 1 + bool(title))), PAPER)
    draw, top = ImageDraw.Draw(found), LINE // 2
    if title:
        draw.text((12, top), title, fill=INK, font=font(16))
        top += LINE + 4
    for row in rows:
        for start, text in zip(columns, row, strict=False):
            draw.text((start, top), text, fill=GREEN if text == "ok" else INK, font=font(13 if len(row) == 1 else 12))
        top += LINE
    return found


def save(picture: Image.Image, path: Path) -> None:
    """As good a JPEG as fits the room of its folder."""
    for quality in range(90, 30, -5):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= ROOM[path.parent]:
            break
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes, quality {quality}\n")

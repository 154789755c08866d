"""The page as one file: its parts and the splats inside; it opens by double click and asks nothing of a network."""

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..callbacks import OnStep, no_progress
from ..cameras.path import CameraTrajectory
from ..files.atomic import replacing
from ..splats.gaussians import GaussianSequence
from .pack import pack
from .scene import describe, focus_of, opening

PAGE = Path(__file__).resolve().parent / "page"
LARGEST = 300e6  # bytes of a file: browsers open more only with luck
IMPORT = re.compile(r"^import \{[^}]*\} from '\./([\w.]+)'\n", re.M)


def write_html(
    path: Path | str,
    splats: GaussianSequence,
    cameras: Sequence[CameraTrajectory] = (),
    *,
    fps: float = 24.0,
    title: str | None = None,
    on_step: OnStep = no_progress,
    largest: float = LARGEST,
) -> int:
    """Write a scene, still or moving, as one page, and return its bytes; ``cameras`` are in the world of the splats.

    Raises ValueError where it would be larger than ``largest`` bytes.
    """
    path = Path(path)
    start = opening(splats.frames[0], cameras)
    moments = [{"time": time, "splats": len(frame)} for time, frame in zip(splats.times, splats.frames, strict=True)]
    about = describe(
        moments, cameras, start, focus=focus_of(splats.frames[0], start), fps=fps, title=title or path.stem
    )
    before, after = page(about)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(before)
        for index, frame in enumerate(splats.frames):
            text = base64.b64encode(pack(frame, start.c2w[0, :3, 3]))
            if file.tell() + len(text) + len(after) > largest:
                raise ValueError(
                    f"{path}: more than {largest / 1e6:.0f} MB at moment {index + 1} of {len(splats)}, which browsers "
                    "refuse; take fewer moments (--times) or a smaller share of the splats (--keep)"
                )
            file.write(b'<script type="text/plain" id="moment-%d">%s</script>\n' % (index, text))
            on_step(index + 1, len(splats))
        file.write(after)
        return file.tell()


def page(about: dict) -> tuple[bytes, bytes]:
    """The file before and after its moments."""
    html = read("index.html")
    html = html.replace('<link rel="stylesheet" href="style.css">', f"<style>\n{read('style.css')}</style>")
    html = html.replace(
        '<script type="module" src="main.mjs"></script>', f'<script type="module">\n{bundle()}</script>'
    )
    text = json.dumps(about, separators=(",", ":")).replace("<", "\\u003c")
    before, after = html.split("<!-- scene -->")
    return f'{before}<script type="application/json" id="scene">{text}</script>\n'.encode(), after.encode()


def bundle(entry: str = "main.mjs") -> str:
    """All modules that ``entry`` needs as one, each after what it imports."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        source = read(name)
        for needed in IMPORT.findall(source):
            if needed not in done:
                add(needed)
        done[name] = re.sub(r"^export ", "", IMPORT.sub("", source), flags=re.M)

    add(entry)
    return ";\n".join(done.values())


def read(name: str) -> str:
    """One part of the page."""
    return (PAGE / name).read_text(encoding="utf-8")

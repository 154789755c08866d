"""Remakes the pictures of README, help pages and templates: ``python dev/make_pictures.py [--only NAME...]``.

Without names all that the library draws itself: ten minutes on two CPU cores. ``--editor`` makes what ComfyUI's editor
shows too. That starts a ComfyUI from COMFYUI_DIR, and needs node and what tests/comfyui/editor.mjs names. ``--list``
tells every picture and what makes it.
"""

import argparse
import shutil
import sys

import torch
from pictures import ROOT, drawn, editor
from pictures.scenes import WORK, refining
from pictures.sheets import ASSETS, HELP, TEMPLATES, place, save


def made_by() -> dict[str, str]:
    """Every picture by its path below the repository, and what makes it."""
    files = {place(name): "the library" for name in drawn.DRAWN} | {place(name): "the editor" for name in editor.NAMES}
    files |= {ASSETS / f"{name}.jpg": "the editor" for name in editor.IN_README}
    return {path.relative_to(ROOT).as_posix(): what for path, what in sorted(files.items())}


def pictures() -> list[str]:
    """Every picture that is there, by its path below the repository."""
    return [path.relative_to(ROOT).as_posix() for folder in (ASSETS, HELP, TEMPLATES) for path in folder.glob("*.jpg")]


def main() -> None:
    """Remake what is named, or all that can be made without ComfyUI."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="README pictures, ids of nodes, or templates")
    parser.add_argument("--editor", action="store_true", help="also remake what the editor shows")
    parser.add_argument("--refine", type=float, default=40.0, metavar="SECONDS", help="of each scene's splats")
    parser.add_argument("--fresh", action="store_true", help="make latents and splats anew, which are kept otherwise")
    parser.add_argument("--list", action="store_true", help="say what is made by what, and make nothing")
    args = parser.parse_args()
    if args.list:
        sys.stdout.writelines(f"{path}: {what}\n" for path, what in made_by().items())
        return
    refining["seconds"] = args.refine
    if args.fresh:
        shutil.rmtree(WORK, ignore_errors=True)
    names = args.only or [*drawn.DRAWN, *(editor.NAMES if args.editor else ())]
    if unknown := set(names) - {*drawn.DRAWN, *editor.NAMES}:
        parser.error(f"no picture is called {', '.join(sorted(unknown))}; --list tells all")
    for name in [name for name in names if name in drawn.DRAWN]:
        with torch.inference_mode(name != "LyraTrainRecon"):
            save(drawn.DRAWN[name](), place(name))
    if shown := [name for name in names if name in editor.NAMES]:
        with editor.comfyui() as server:
            sys.exit("\n".join(filter(None, (editor.tried(server, name) for name in shown))) or 0)


if __name__ == "__main__":
    main()

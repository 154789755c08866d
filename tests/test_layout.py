"""The one-way imports, the file sizes and the other rules that hold the layout together."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("kernels_glue", "comfyui_lyra", "nodes")  # each may import itself and what stands before it
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server", "execution", "nodes"}
FORBIDDEN = {"torchvision", "pickle", "plyfile", "subprocess"}  # see pyproject and the registry's scan


def imports(path: Path):
    """(level, dotted name) of every import statement of a file, deferred ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from ((node.level, f"{base}.{alias.name}".strip(".")) for alias in node.names)


def room_of(path: Path, level: int, name: str) -> str | None:
    """The room a relative import of this file lands in; None for the root or beyond."""
    package = path.relative_to(ROOT).parent.parts
    landed = (*package[: len(package) - level + 1], *name.split("."))
    return landed[0] if landed and landed[0] in ROOMS else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path):
    own = path.relative_to(ROOT).parts[0]
    for level, name in imports(path):
        top = name.split(".")[0]
        if level:
            room = room_of(path, level, name)
            assert room is not None, f"{path}: relative import {name} leaves the rooms"
            assert ROOMS.index(room) <= ROOMS.index(own), f"{path}: {own} must not import {room}"
        else:
            assert top not in ("lyra_pack", *ROOMS) or (top == "nodes" and own == "nodes"), (
                f"{path}: import {name} relatively"
            )
            assert top not in COMFYUI or own == "nodes", f"{path}: only nodes/ knows ComfyUI, not {name}"
            assert top not in FORBIDDEN, f"{path}: {top} has no place here"


def test_files_stay_short():
    long = [(p.name, n) for p in SOURCES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400]
    assert not long


def test_no_file_is_named_for_nothing():
    assert not [p for p in SOURCES if p.stem in ("utils", "helpers", "common", "misc", "base")]


def test_every_package_is_declared():
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(("lyra_pack", *p.parent.relative_to(ROOT).parts)) for p in SOURCES if p.name == "__init__.py"}
    assert found | {"lyra_pack"} == set(declared)


def test_the_shipped_models_are_declared():
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert data == {"lyra_pack.comfyui_lyra": ["mini/*", "mini/latents/*/*/*"]}


def test_tracked_files_stay_under_50_mib():
    listed = shutil.which("git") and subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if not listed or listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert sum(f.stat().st_size for f in files if f.exists()) <= 50 * 2**20


def test_importing_the_root_has_no_effect():
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr, ast.AsyncFunctionDef]

"""The one-way imports, the file sizes and the other rules that hold the layout together."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("kernels_glue", "comfyui_lyra", "nodes")  # each may import itself and what stands before it
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
STEPS = (  # of comfyui_lyra: a room sees those before it, and none beside it
    {"shapes", "configs", "callbacks", "versions", "files.atomic", "files.reading", "files.disk", "files.names",
     "files.splats.formats"},
    {"files.arrays"},
    {"cameras"},
    {"splats", "latents", "geometry"},
    {"weights"},
    {"files"},
    {"tokenizer", "sources"},
    {"gen3c", "recon"},
    {"released", "quality", "cost", "viewer"},
    {"refine"},
    {"pipeline"},
    {"training"},
    {"scale"},
    {"demo"},
    {"check", "bench"},
    {"cli"},
)  # fmt: skip
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


def wrong_import(path: Path, level: int, name: str) -> str | None:
    """What is wrong with an import; None where it points one way."""
    own, top = path.relative_to(ROOT).parts[0], name.split(".")[0]
    if level:
        room = room_of(path, level, name)
        if room is None:
            return f"relative import {name} leaves the rooms"
        return f"{own} must not import {room}" if ROOMS.index(room) > ROOMS.index(own) else None
    if top in ("lyra_pack", *ROOMS) and not (top == "nodes" and own == "nodes"):
        return f"import {name} relatively"
    if top in COMFYUI and own != "nodes":
        return f"only nodes/ knows ComfyUI, not {name}"
    return f"{top} has no place here" if top in FORBIDDEN else None


def test_imports_point_one_way():
    found = [(path, wrong_import(path, *each)) for path in SOURCES for each in imports(path)]
    assert not [f"{path.relative_to(ROOT)}: {wrong}" for path, wrong in found if wrong]


@pytest.mark.parametrize(
    ("path", "level", "name"),
    [
        ("kernels_glue/x.py", 2, "nodes.host"),
        ("comfyui_lyra/x.py", 2, "nodes.host"),
        ("kernels_glue/x.py", 3, "torch"),
        ("nodes/x.py", 0, "lyra_pack.nodes"),
        ("comfyui_lyra/x.py", 0, "comfy.utils"),
        ("nodes/x.py", 0, "pickle"),
    ],
)
def test_imports_that_point_elsewhere_are_seen(path, level, name):
    assert wrong_import(ROOT / path, level, name)


def leads_nowhere(path: Path, level: int, name: str) -> bool:
    """Whether a relative import names neither a file, nor a folder, nor something in a file."""
    folder = path.parents[level - 1]
    at = folder.joinpath(*name.split("."))
    if at.with_suffix(".py").exists() or at.is_dir():
        return False
    module = at.parent.with_suffix(".py") if at.parent != folder else folder / "__init__.py"
    module = module if module.exists() else at.parent / "__init__.py"
    return not module.exists() or at.name not in module.read_text(encoding="utf-8")


def test_imports_lead_somewhere():
    found = [(path, level, name) for path in SOURCES for level, name in imports(path) if level]
    assert not [f"{path.relative_to(ROOT)}: {name}" for path, level, name in found if leads_nowhere(path, level, name)]
    assert leads_nowhere(ROOT / "nodes" / "splats" / "load.py", 2, "comfy.nothing")
    assert leads_nowhere(ROOT / "nodes" / "splats" / "load.py", 2, "comfy.types.nothing_of_that_name")


def step_of(name: str) -> tuple[int, str] | None:
    """Step and room of a module of comfyui_lyra, by the longest name of a room that it begins with."""
    found = [
        (len(room), step, room)
        for step, rooms in enumerate(STEPS)
        for room in rooms
        if f"{name}.".startswith(f"{room}.")
    ]
    return max(found)[1:] if found else None


def test_rooms_of_the_library_see_only_those_before_them():
    library = ROOT / "comfyui_lyra"
    modules = {".".join(p.relative_to(library).with_suffix("").parts): p for p in library.rglob("*.py")}
    wrong = []
    for name, path in modules.items():
        own = step_of(name)
        if own is None:
            assert path.name in ("__init__.py", "__main__.py"), f"{name} belongs to no room; name it in STEPS"
            continue
        package = name.split(".")[:-1]
        for level, imported in imports(path):
            if level == 0 or level > len(package) + 1:
                continue
            landed = ".".join((*package[: len(package) - level + 1], *imported.split(".")))
            seen = step_of(landed)
            if seen and seen[1] != own[1] and seen[0] >= own[0]:
                wrong.append(f"{name} sees {landed}")
    assert not wrong


def test_rooms_are_small_enough_to_look_over():
    full = {folder: len(list(folder.glob("*.py"))) for folder in {path.parent for path in SOURCES}}
    assert full[ROOT / "kernels_glue"]  # the rooms themselves are counted too
    assert not {folder.name: count for folder, count in full.items() if count > 14}
    top = {p.stem for p in (ROOT / "comfyui_lyra").glob("*.py")} - {"__init__", "__main__", "demo"}
    assert len(top) <= 6, top


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


def test_the_shipped_models_and_the_page_are_declared():
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert data == {"lyra_pack.comfyui_lyra": ["mini/*", "mini/latents/*/*/*", "viewer/page/*"]}


def test_tracked_files_stay_under_50_mib():
    listed = shutil.which("git") and subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if not listed or listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert sum(f.stat().st_size for f in files if f.exists()) <= 50 * 2**20


def test_importing_the_root_has_no_effect():
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr, ast.AsyncFunctionDef]

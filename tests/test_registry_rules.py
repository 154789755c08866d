"""What the ComfyUI registry asks of a pack."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(p for room in ("comfyui_lyra", "kernels_glue", "nodes") for p in (ROOT / room).rglob("*.py"))
RUNNING = {"eval", "exec", "__import__", "os.system", "os.popen", "os.startfile", "torch.hub.load"}  # what a scan flags


def test_the_project_names_what_the_registry_needs():
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, comfy = document["project"], document["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,98}", project["name"])
    assert "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert (ROOT / project["license"]["file"]).exists()
    assert project["urls"]["Repository"].startswith("https://")
    assert comfy["PublisherId"]
    assert comfy["DisplayName"] == "Lyra: image and video to 3D Gaussians"
    assert comfy["requires-comfyui"].startswith(">=")
    assert (ROOT / comfy["web"] / "docs").is_dir()


def test_torch_is_never_pinned_for_users():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    requirements = [line for line in lines if line]
    assert not [line for line in requirements if "==" in line or "<" in line]


def test_each_dependency_says_why_it_is_there():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert all("#" in line for line in lines if line.strip())


def calls(path: Path):
    """(dotted name, call) of every call in a file that names what it calls."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


def runs_data(name: str, call: ast.Call) -> bool:
    """Whether a call could run what it reads."""
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    runs = name in RUNNING or name.startswith(("os.exec", "os.spawn"))
    unpickles = name == "torch.load" and given.get("weights_only") != "True"
    return runs or unpickles or given.get("allow_pickle", "False") != "False"


def test_nothing_runs_code_that_is_data():
    found = [(p, name, call) for p in SHIPPED for name, call in calls(p) if runs_data(name, call)]
    assert not [f"{p.relative_to(ROOT)}:{call.lineno}: {name}" for p, name, call in found]


@pytest.mark.parametrize("line", ["torch.load(f)", "np.load(f, allow_pickle=True)", "eval(x)", "os.execv(x, y)"])
def test_calls_that_run_data_are_seen(line):
    call = ast.parse(line, mode="eval").body
    assert runs_data(ast.unparse(call.func), call)


def test_tests_and_ci_are_not_shipped():
    ignored = (ROOT / ".comfyignore").read_text().split()
    assert {"run.py", "tests/", ".ci/", "dev/", ".github/"} <= set(ignored)

"""The two commands of run.py, up to where they would install something, and CI's own program."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "run.py"


@pytest.mark.parametrize("words", [[], ["destroy"]])
def test_without_a_known_command_it_says_how_it_is_used(words):
    told = subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True)
    assert told.returncode == 1
    assert "usage: python run.py {demo,test}" in told.stderr


def test_an_old_python_gets_as_far_as_being_told_so():
    tree = ast.parse(RUN.read_text(encoding="utf-8"), feature_version=(3, 7))
    arguments = [argument for node in ast.walk(tree) if isinstance(node, ast.arguments) for argument in every(node)]
    evaluated = [argument.annotation for argument in arguments if argument.annotation]
    assert evaluated
    assert not [ast.unparse(a) for a in evaluated if any(isinstance(n, ast.BinOp) for n in ast.walk(a))]


def every(node: ast.arguments) -> list[ast.arg]:
    return [*node.args, *node.kwonlyargs, *filter(None, (node.vararg, node.kwarg))]


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """run.py as a module whose .venv lies elsewhere, and what its steps would have called."""
    spec = importlib.util.spec_from_file_location("lyra_run", RUN)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    called = []
    monkeypatch.setattr(run, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(run, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(run, "call", lambda step, remedy, *command: called.append(command[-3:]))
    return run, called


def test_the_demo_installs_what_users_need_and_the_tests_add_theirs(steps):
    run, called = steps
    users, ours = (run.TORCH, "-e", "."), (run.TORCH, "-e", ".[dev]")
    run.install("demo")
    run.install("demo")
    assert called == [users]
    run.install("test")
    assert called == [users, ours]
    run.install("demo")  # what the tests installed is more
    run.install("test")
    assert called == [users, ours]


def script(path: Path, text: str) -> None:
    """An executable shell program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def ci(tmp_path):
    """CI's program in a checkout of stand-ins; returns what it does with some environment."""
    (tmp_path / "checkout" / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", tmp_path / "checkout" / ".ci" / "run")
    (tmp_path / "checkout" / "run.py").write_text("print('Ran on Python 3: 7 passed. Skipped: nothing.')")
    for tool in ("ruff", "pyright"):
        script(tmp_path / "checkout" / ".venv" / "bin" / tool, "exit 0")

    def run(**environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COMFYUI", "PYTHONPATH"))}
        words = ["bash", str(tmp_path / "checkout" / ".ci" / "run")]
        environment = kept | {"HOME": str(tmp_path / "home")} | environment
        return subprocess.run(words, env=environment, capture_output=True, text=True)

    return run


needs_bash = pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="CI's program is for bash")


@needs_bash
def test_ci_finds_the_comfyui_at_home_and_its_python_for_the_node_tests(ci, tmp_path):
    comfyui = tmp_path / "home" / "ComfyUI"
    comfyui.mkdir(parents=True)
    (comfyui / "main.py").touch()
    script(comfyui / "venv" / "bin" / "python", 'echo "$PYTHONPATH $@"; echo "Ran on Python 4: 5 passed."')
    done = ci()
    assert done.returncode == 0
    assert f"{comfyui} -m pytest -q -n 2 tests/nodes" in done.stdout
    told = done.stdout.partition("== what ran and what was skipped\n")[2]
    assert re.search(r"^tests: passed in \d+ s\. Ran on Python 3: 7 passed\. Skipped: nothing\.$", told, re.M)
    nodes = r"node tests under the real comfy_api: passed in \d+ s\. Ran on Python 4: 5 passed\."
    assert re.fullmatch(nodes, told.splitlines()[-2]) and told.splitlines()[-1].startswith("pyright: passed in ")
    script(comfyui / "venv" / "bin" / "python", '[ "$2" != "import xdist" ] || exit 1; [ "$1" = -c ] || exit 3')
    done = ci()
    assert done.returncode == 1
    assert re.fullmatch(r"node tests under the real comfy_api: FAILED \(3\) in \d+ s", done.stdout.splitlines()[-2])


@needs_bash
def test_ci_shows_what_runs_beside_whole_and_fails_with_it(ci, tmp_path):
    script(tmp_path / "checkout" / ".venv" / "bin" / "pyright", "echo first; sleep 0.5; echo second; exit 7")
    done = ci()
    assert done.returncode == 1
    assert "== pyright\nfirst\nsecond\n== what ran" in done.stdout
    assert re.fullmatch(r"pyright: FAILED \(7\) in \d+ s", done.stdout.splitlines()[-1])


@needs_bash
def test_ci_says_what_it_skipped_for_want_of_a_comfyui(ci, tmp_path):
    done = ci()
    assert done.returncode == 0
    assert "skipped, no ComfyUI found (COMFYUI_DIR, ~/ComfyUI)\n" in done.stdout
    assert "\nnode tests: skipped, no Python found for" in ci(COMFYUI_DIR=str(tmp_path)).stdout

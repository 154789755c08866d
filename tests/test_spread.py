"""Tests spread over processes: what they read, left out and found comes together as in one process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
READS = """
import pytest

@pytest.mark.golden("area/{name}.bin")
def test_it_is_read(golden):
    assert golden.path.read_text() == "{name}"

def test_it_is_left_out():
    pass

def test_it_is_skipped():
    pytest.skip("CUDA is not there")
"""
OTHER = """
import pytest

@pytest.mark.golden("area/second.bin")
def test_it_is_not_read(golden):
    assert golden.name
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with two goldens, each read by a file of tests; returns what pytest says with some words more."""
    tests = tmp_path / "tests"
    (tests / "data" / "goldens" / "area").mkdir(parents=True)
    (tmp_path / "__init__.py").touch()
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib\nmarkers = golden"
    )
    (tests / "conftest.py").write_bytes((HERE / "conftest.py").read_bytes())
    (tests / "packed.py").write_text("unpack = str")  # these goldens hold no tensors
    (tests / "wires.py").touch()
    for name in ("first", "second"):
        (tests / "data" / "goldens" / "area" / f"{name}.bin").write_text(name)
        (tests / f"test_{name}.py").write_text(READS.format(name=name))

    def run(*words: str) -> tuple[int, list[str]]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "LYRA_"))}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "xdist.plugin", *words]
        kept["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they start in half the time
        done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True)
        return done.returncode, (done.stdout + done.stderr).splitlines()

    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_goldens_count_as_read_and_what_was_left_out_is_told(checkout, tmp_path, workers):
    if not importlib.util.find_spec("xdist"):
        pytest.skip("no pytest-xdist to spread tests with")
    spread = ["-n", str(workers)]
    code, told = checkout(*spread, "-k", "not left_out")
    assert code == 0, told
    (ran,) = [line for line in told if line.startswith("Ran on Python")]
    assert ran.endswith(": 2 passed, 2 deselected. Skipped: 2 on a GPU (need CUDA).")
    assert not [line for line in told if "compared by no test" in line]
    (tmp_path / "tests" / "test_second.py").write_text(OTHER)
    code, told = checkout(*spread)
    assert code == 1
    assert "1 goldens of area were compared by no test:" in told and "  area/second.bin" in told

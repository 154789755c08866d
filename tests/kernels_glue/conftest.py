import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_memory(tmp_path, monkeypatch):
    """Nothing is remembered from one test to the next, or in the tester's own folders."""
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path / "remembered"))
    return tmp_path / "remembered"


@pytest.fixture
def run_interpreted():
    """Runs a file's function ``interpreted`` in a process where Triton interprets its kernels on the CPU."""

    def run(file: str) -> None:
        told = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{file}::interpreted", "--no-header",
             "-o", "python_functions=interpreted"],
            cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "only 0-dimensional arrays can be converted" in told.stdout:  # Triton 3.6 with NumPy 2.5
            pytest.skip("the interpreter of this Triton cannot work with this NumPy")
        assert told.returncode == 0 and "1 passed" in told.stdout, told.stdout[-2000:]

    return run

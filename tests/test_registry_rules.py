"""What the ComfyUI registry asks of a pack."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_project_names_what_the_registry_needs():
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
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


def test_tests_and_ci_are_not_shipped():
    ignored = (ROOT / ".comfyignore").read_text().split()
    assert {"run.py", "tests/", ".ci/"} <= set(ignored)

from pathlib import Path

from lyra_pack.comfyui_lyra.versions import RESULTS, pack_version


def test_the_packs_version_is_that_of_the_project_file():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{pack_version()}"\n' in project


def test_results_count_from_one():
    assert isinstance(RESULTS, int) and RESULTS >= 1

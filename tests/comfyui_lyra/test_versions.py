import json
from pathlib import Path

import pytest
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.configs import TeacherConfig
from lyra_pack.comfyui_lyra.files.cameras.lyra_json import load_cameras_json, save_cameras_json
from lyra_pack.comfyui_lyra.files.scenes.geometry import load_geometry, save_geometry
from lyra_pack.comfyui_lyra.files.scenes.latents import load_latents, save_latents
from lyra_pack.comfyui_lyra.files.splats.sequence import save_sequence
from lyra_pack.comfyui_lyra.gen3c.text import load_text, save_text, zero_text
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.recon.load import load_recon, save_recon
from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence
from lyra_pack.comfyui_lyra.versions import RESULTS, pack_version
from safetensors import safe_open


def test_the_packs_version_is_that_of_the_project_file():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{pack_version()}"\n' in project


def test_results_count_from_one():
    assert isinstance(RESULTS, int) and RESULTS >= 1


def test_the_shell_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lyra {pack_version()}\n"


def told(file: Path) -> str:
    """The version that a file names."""
    if file.suffix == ".json":
        return json.loads(file.read_text("utf-8"))["pack"]
    with safe_open(file, "pt") as tensors:
        return tensors.metadata()["pack"]


def test_files_name_the_pack_that_wrote_them_and_load_as_before(tmp_path, picture, two_moves, cloud, small_recon):
    config = TeacherConfig(text_dim=4, text_rows=3)
    save_geometry(tmp_path / "geometry.safetensors", picture)
    save_cameras_json(tmp_path / "cameras.json", two_moves)
    latents = VideoLatents(values=picture.depth.new_zeros(2, 16, 2, 4, 6))
    scene = MultiViewLatents(latents=latents, cameras=two_moves, family="mini", dynamic=False, provenance={})
    save_latents(tmp_path / "latents.safetensors", scene)
    save_recon(small_recon, tmp_path / "recon.safetensors")
    save_text(tmp_path / "text.safetensors", zero_text(config))
    save_sequence(tmp_path / "sequence", GaussianSequence(frames=(cloud,), times=(0,)))
    files = [*tmp_path.glob("*.*"), tmp_path / "sequence" / "manifest.json"]
    assert {file.name: told(file) for file in files} == {file.name: pack_version() for file in files}
    assert len(files) == 6
    assert len(load_geometry(tmp_path / "geometry.safetensors").frames) == 1
    assert len(load_cameras_json(tmp_path / "cameras.json")) == 2
    assert load_latents(tmp_path / "latents.safetensors").family == "mini"
    assert load_recon(tmp_path / "recon.safetensors").config == small_recon.config
    assert load_text(tmp_path / "text.safetensors", config).prompt.shape == (1, 3, 4)

import shutil
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg
from lyra_pack.comfyui_lyra.training.data import sdg_disk
from lyra_pack.comfyui_lyra.training.data.sdg_disk import write_sdg
from lyra_pack.comfyui_lyra.training.data.sdg_memory import SDG_SETTINGS

pytestmark = pytest.mark.slow  # seconds

SETTINGS = replace(SDG_SETTINGS, steps=2, guidance=0.0)


@pytest.fixture
def made(tmp_path, nano_teacher, nano_tokenizer, monkeypatch):
    """Writes the scene of a seed into a folder, and says how often the teacher was asked."""
    calls, make = [], sdg_disk.generate_many
    monkeypatch.setattr(sdg_disk, "generate_many", lambda *args: (calls.append(1), make(*args))[1])

    def write(**changes) -> int:
        calls.clear()
        settings = replace(SETTINGS, **changes)
        write_sdg(tmp_path / "out", nano_teacher, nano_tokenizer, [10_000], moving=True, settings=settings)
        return len(calls)

    return write


def test_what_is_gone_of_a_scene_is_made_again(made, tmp_path):
    root = tmp_path / "out"
    assert made() == 2 and made() == 0
    latents = load_sdg(root).latents.values
    for file in [file for file in root.glob("[0-5]/*/*") if file.suffix != ".zip"]:
        file.unlink()
    assert made() == 1 and torch.equal(load_sdg(root).latents.values, latents)
    (root / "8" / "pose" / "10000.npz").unlink()
    assert made() == 1 and made() == 0


def test_depth_of_another_making_is_not_taken_over(made, tmp_path):
    made()
    for file in [file for file in (tmp_path / "out").glob("*/*/*") if file.suffix != ".zip"]:
        file.unlink()
    with pytest.raises(ValueError, match="holds paths of '10000' made with other steps"):
        made(steps=3)


def test_nothing_is_made_before_both_halves_of_a_scene_are_found_to_fit(made, tmp_path):
    made()
    for view in range(6):
        shutil.rmtree(tmp_path / "out" / str(view))
    with pytest.raises(ValueError, match="is a time-flipped path of '10000', whose forward paths are gone; delete"):
        made(steps=3)
    shutil.rmtree(tmp_path / "out.lyra")
    shutil.rmtree(tmp_path / "out")
    made(steps=3)
    for view in range(6, 12):
        shutil.rmtree(tmp_path / "out" / str(view))
    with pytest.raises(ValueError, match="holds paths of '10000' made with other steps"):
        made()
    assert made(steps=3) == 1

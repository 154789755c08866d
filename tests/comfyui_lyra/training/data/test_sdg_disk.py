import shutil
import threading
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes import sdg_writer
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg
from lyra_pack.comfyui_lyra.training.data import sdg_disk
from lyra_pack.comfyui_lyra.training.data.sdg_disk import write_sdg
from lyra_pack.comfyui_lyra.training.data.sdg_memory import SDG_SETTINGS
from lyra_pack.comfyui_lyra.training.world import filming

pytestmark = pytest.mark.slow  # seconds

SETTINGS = replace(SDG_SETTINGS, steps=2, guidance=0.0)


@pytest.fixture
def made(tmp_path, nano_teacher, nano_tokenizer, monkeypatch):
    """Writes the scene of a seed into a folder, and says how often the teacher was asked."""
    calls, make = [], sdg_disk.film_paths
    monkeypatch.setattr(sdg_disk, "film_paths", lambda *args: (calls.append(1), make(*args))[1])

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


@pytest.fixture
def large(tmp_path, nano_teacher, nano_tokenizer, monkeypatch):
    """Makes a scene whose clips count as large, path by path; ``filmed`` is called with the number of each path."""
    monkeypatch.setattr(filming, "LARGE", 1)
    make, real = sdg_disk.film_paths, sdg_writer.save_depth_zip

    def write(filmed, packed):
        def film(*args):
            for number, clip in enumerate(make(*args)):
                filmed(number)
                yield clip

        def pack(file, depth):
            packed(int(file.name.split(".")[0]))
            real(file, depth)

        monkeypatch.setattr(sdg_disk, "film_paths", film)
        monkeypatch.setattr(sdg_writer, "save_depth_zip", pack)
        write_sdg(tmp_path / "out", nano_teacher, nano_tokenizer, [10_000], settings=SETTINGS)

    return write


def test_a_path_is_packed_while_the_next_is_filmed(large, tmp_path):
    second = threading.Event()
    large(
        lambda number: number == 1 and second.set(),
        lambda number: number or second.wait(60) or pytest.fail("the second path was not filmed meanwhile"),
    )
    assert len(list((tmp_path / "out").glob("[0-5]/depth/10000.zip"))) == 6


def test_nothing_is_written_any_more_when_a_scene_has_failed(large, tmp_path):
    packed, before = [], threading.active_count()

    def filmed(number):
        if number == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        large(filmed, packed.append)
    assert sorted(packed) == [0, 1] and threading.active_count() == before
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_ctrl_c_is_not_hidden_by_a_packing_that_fails(large):
    def filmed(number):
        if number == 1:
            raise KeyboardInterrupt

    def packed(number):
        raise OSError("the disk is full")

    with pytest.raises(KeyboardInterrupt):
        large(filmed, packed)

"""Further forms of splats that a batch has made: each once, from the PLY, and linked by the page."""

import json
import re
import sys
from pathlib import Path

import fsspec
import pytest
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.files.cameras.lyra_json import save_cameras_json
from lyra_pack.comfyui_lyra.files.places import Place
from lyra_pack.comfyui_lyra.files.splats.ply import save_ply
from lyra_pack.comfyui_lyra.files.splats.sequence import save_sequence
from lyra_pack.comfyui_lyra.scale.pictures import PicturesJob
from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence


@pytest.fixture
def photos(tmp_path) -> Path:
    """A picture, one whose page would be the index, and a clip; nothing of them is read here."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "index.png", "walk.mp4"):
        (folder / name).touch()
    return folder


@pytest.fixture(params=["folder", "URL"])
def out(request, tmp_path, photos, cloud, two_moves):
    """Where splats of all three are already, as PLY."""
    if request.param == "URL":
        memory = fsspec.filesystem("memory")
        memory.rm("/exports", recursive=True) if memory.exists("/exports") else None
    place = Place.of("memory://exports/out" if request.param == "URL" else tmp_path / "out")
    job, made = PicturesJob(folder=str(photos), out=str(place)), tmp_path / "made"
    for item in job.found():
        if moving := item.name == "walk":
            moments = GaussianSequence(frames=(cloud, cloud[:6]), times=(0, 8))
            save_sequence(made / item.name, moments, two_moves)
        else:
            save_ply(made / f"{item.name}.ply", cloud)
            (made / "cameras").mkdir(exist_ok=True)
            save_cameras_json(made / "cameras" / f"{item.name}.json", two_moves, metres=2.0)
        record = {
            "picture": item.picture.name, "key": job.key(item), "seconds": 1.0, "splats": [80, 6][: 1 + moving],
            "times": [0, 8][: 1 + moving], "metres": 2.0,
            "file": f"{item.name}{'/manifest.json' if moving else '.ply'}",
        }  # fmt: skip
        (place / f"{item.name}.json").write(json.dumps(record))
    for file in [file for file in made.rglob("*") if file.is_file()]:
        (place / file.relative_to(made).as_posix()).put(file)
    return place


def batch(photos, out, *more) -> int:
    return main(["batch", str(photos), str(out), "--device", "cpu", *more])


def test_forms_are_added_one_by_one_from_what_is_there(photos, out, tmp_path, capsys):
    assert batch(photos, out, "--format", "ply", "--missing") == 0  # there already
    assert batch(photos, out, "--format", "html", "usda") == 1
    said = capsys.readouterr().out
    assert "index could not be made: ValueError: html: index.html is the page of thumbnails" in said
    assert {"a.html", "a.usda", "walk.html", "walk.usda", "index.usda"} <= set(out.names())
    assert batch(photos, out, "--format", "html", "--missing") == 1
    assert capsys.readouterr().out == "index\n"

    (out / "a.html").write("kept")
    assert batch(photos, out, "--format", "html", "glb") == 1
    assert (out / "a.html").read() == b"kept"  # made once
    assert {"00000.glb", "00001.glb"} <= set((out / "walk").names())
    for file, there in (("a.ply", out / "a.ply"), ("cameras.json", out / "cameras" / "a.json")):
        (tmp_path / file).write_bytes(there.read())
    assert main(["convert", str(tmp_path / "a.ply"), str(tmp_path / "a.glb")]) == 0
    assert b"metersPerUnit = 2" in (out / "a.usda").read()
    assert (out / "a.glb").read() == (tmp_path / "a.glb").read_bytes()

    page = (out / "index.html").read().decode()
    links = re.findall(r'href="([^"]+)"', page)
    assert all((out / link).is_file() for link in links) and page.count("<figure>") == 3
    assert 'href="a.html"><img' in page and 'href="index.ply"><img' in page
    assert 'href="walk/00001.glb">glb 1<' in page and {"a.usda", "walk.usda", "index.glb"} <= set(links)


def test_a_page_of_a_scene_knows_its_paths(photos, out, two_moves):
    batch(photos, out, "--format", "html")
    for name in ("a.html", "walk.html"):
        assert two_moves[1].name in (out / name).read().decode().split('id="scene">')[1]


def test_what_a_form_needs_is_said_before_anything_is_made(photos, out, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gaussforge", None)
    assert batch(photos, out, "--format", "html", "spz") == 1
    assert "writing .spz needs gaussforge" in capsys.readouterr().err and "a.html" not in out.names()

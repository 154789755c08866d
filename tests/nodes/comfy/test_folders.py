import os
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("comfy_api")

import folder_paths  # noqa: E402
from lyra_pack.kernels_glue import memory  # noqa: E402
from lyra_pack.nodes.comfy import folders as places  # noqa: E402


def test_output_files_are_numbered_below_the_output_folder(folders):
    first, saved = places.output_path("3d/scene", ".ply")
    assert first == folders / "output" / "3d" / "scene_00001_.ply"
    assert saved == {"filename": "scene_00001_.ply", "subfolder": "3d", "type": "output"}
    first.write_bytes(b"")
    assert places.output_path("3d/scene", ".ply")[0].name == "scene_00002_.ply"


@pytest.mark.parametrize("name", ["CON", "nul.txt", "a.", "a:b", "a ", " ", "x" * 250, "scene.lyra"])
def test_names_that_some_system_does_not_take_are_refused(folders, name):
    for folder in (places.scene_folder, places.decoder_folder):
        with pytest.raises(ValueError, match="cannot be the name of a folder"):
            folder(name)
    if name.strip() == name:
        with pytest.raises(ValueError, match="cannot be the name of a folder or file"):
            places.output_path(f"3d/{name}", ".ply")


@pytest.mark.parametrize("name", ["..", "../a", "/tmp/a", "b\\..\\a", "C:\\a", "a/../../b"])
def test_no_name_leads_out_of_the_output_folder(folders, name):
    for place in (places.scene_folder, places.decoder_folder, lambda name: places.output_path(name, ".ply")):
        with pytest.raises(ValueError, match="cannot be the name of"):
            place(name)


def test_a_scene_cannot_be_named_as_the_folder_of_the_decoders(folders):
    with pytest.raises(ValueError, match="'decoders' cannot be the name of a folder: this pack keeps other things"):
        places.scene_folder("decoders")
    assert places.decoder_folder("decoders").name == "decoders"


def test_input_files_and_paths(folders):
    (folders / "input" / "3d" / "deep").mkdir(parents=True)
    for name in ("b.PLY", "deep/a.ply", "c.glb"):
        (folders / "input" / "3d" / name).write_bytes(b"")
    assert places.saved_files("3d", (".ply",)) == ["3d/b.PLY", "3d/deep/a.ply"]
    assert places.input_path("3d/b.PLY") == folders / "input" / "3d" / "b.PLY"
    assert places.input_path(f'"{folders}"') == folders
    with pytest.raises(FileNotFoundError, match=r"'3d/gone.ply' is neither in .* nor an absolute path"):
        places.input_path("3d/gone.ply")


def test_a_fingerprint_changes_with_a_file_of_the_folder(tmp_path):
    (tmp_path / "a").write_text("1")
    before = places.fingerprint(tmp_path), places.fingerprint(tmp_path / "a")
    assert before == (places.fingerprint(tmp_path), places.fingerprint(tmp_path / "a"))
    os.utime(tmp_path / "a", (1, 1))
    assert places.fingerprint(tmp_path) != before[0]
    assert places.fingerprint(tmp_path / "a") != before[1]


def test_a_link_that_leads_nowhere_hides_no_change(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    before = places.fingerprint(tmp_path)
    os.utime(tmp_path / "a", (1, 1))
    assert places.fingerprint(tmp_path) != before
    with pytest.raises(OSError):
        places.fingerprint(tmp_path / "gone")


def test_lyra_is_the_folder_of_what_was_made_here(folders):
    for kind in ("input", "output"):
        (folders / kind / "lyra" / "scene").mkdir(parents=True)
        (folders / kind / "3d").mkdir()
    for name in ("lyra", "lyra/scene"):
        assert places.saved_path(name) == folders / "output" / name
        assert places.saved_path(f"{name} [input]") == folders / "input" / name
    assert places.saved_path("3d") == folders / "input" / "3d"
    (folders / "input" / "lyra" / "own").mkdir()
    assert places.saved_path("lyra/own") == folders / "input" / "lyra" / "own"
    assert places.below_output(folders / "output" / "lyra" / "scene") == "lyra/scene"
    assert places.below_output(folders / "output" / "3d") == "3d [output]"
    with pytest.raises(ValueError, match="no name is given"):
        places.saved_path(' "" ')


def test_a_pack_without_help_pages_does_not_stop_the_server(monkeypatch, tmp_path, caplog):
    served = {}
    monkeypatch.setitem(sys.modules, "nodes", SimpleNamespace(EXTENSION_WEB_DIRS=served))
    monkeypatch.setattr(places, "WEB", tmp_path / "My Pack.v1" / "nodes" / "web")
    places.serve_help()
    assert served == {} and "nodes have no help pages" in caplog.text
    places.WEB.mkdir(parents=True)
    places.serve_help()
    assert served == {"My Pack": str(places.WEB)}


def test_what_is_remembered_lies_in_comfyuis_user_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LYRA_CACHE", raising=False)
    monkeypatch.setattr(memory, "_told", [])
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    places.keep_memory()
    assert memory.cache_folder() == tmp_path / "lyra"

import errno

import pytest
from lyra_pack.comfyui_lyra.files.atomic import replacing


def test_a_finished_write_replaces_the_old_file_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "scene.ply"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_is_replaced_and_not_written_over(tmp_path):
    path = tmp_path / "scene.ply"
    path.write_text("old")
    (tmp_path / "seen by a reader").hardlink_to(path)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "seen by a reader").read_text() == "old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, error):
    path = tmp_path / "scene.ply"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("ha")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_reader_takes_the_temporary_file_for_a_result(tmp_path):
    with replacing(tmp_path / "clip.mp4") as temporary:
        assert not list(tmp_path.glob("*.mp4"))
        assert temporary.name.startswith(".")


@pytest.mark.parametrize("place", ["file/scene.ply", "file/deeper/scene.ply", "folder"])
def test_an_unwritable_place_is_one_sentence(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    message = r"cannot write .*: .*; choose another folder or name"
    with pytest.raises(ValueError, match=message), replacing(tmp_path / place):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_full_disk_is_one_sentence_and_other_errors_pass(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ValueError, match="cannot write .*scene.ply: No space left"), replacing(tmp_path / "scene.ply"):
        raise full
    with pytest.raises(FileNotFoundError, match="my input"), replacing(tmp_path / "scene.ply"):
        raise FileNotFoundError("my input")
    assert not list(tmp_path.iterdir())

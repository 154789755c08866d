import errno
import os
import time
import zipfile

import pytest
from lyra_pack.comfyui_lyra.files import atomic
from lyra_pack.comfyui_lyra.files.atomic import is_full, replacing, replacing_folder, writing
from safetensors import SafetensorError


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("name", ["a" * 250 + ".ply", "é" * 125 + ".ply"])
def test_a_name_as_long_as_systems_allow_is_written_and_cleared(tmp_path, name):
    other = f"{name[:-5]}b.ply"  # differs only where a temporary's name is cut
    if not (child := os.fork()):
        with replacing(tmp_path / name):
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    with replacing(tmp_path / other) as temporary:
        temporary.write_text("b")
    assert len(list(tmp_path.iterdir())) == 2  # another name's temporary is left alone
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("a")
    assert {path.name for path in tmp_path.iterdir()} == {name, other}


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


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed: No space left on device"),
        OSError("There is not enough space on the disk. (os error 112)"),
    ],
)
def test_a_full_disk_is_one_sentence_whatever_a_library_makes_of_it(tmp_path, error):
    message = r"cannot write .*a\.bin: No space left on device; free some space"
    with pytest.raises(ValueError, match=message), replacing(tmp_path / "a.bin"):
        raise error
    assert not list(tmp_path.iterdir())


def test_an_error_that_came_from_a_full_disk_is_one(tmp_path):
    def zipped():
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, archive.open("member", "w"):
            raise OSError(errno.ENOSPC, "No space left on device")  # the archive then cannot be closed: ValueError

    with pytest.raises(ValueError, match="cannot write x: No space left"), writing("x"):
        zipped()
    assert not is_full(ValueError("cannot write a: No space left on device")) and not is_full(RuntimeError("shape"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("kind", [replacing, replacing_folder])
def test_what_killed_saves_left_goes_with_the_next_save_of_that_name(tmp_path, kind):
    for _ in range(10):
        if not (child := os.fork()):
            with kind(tmp_path / "a[1]") as temporary:  # a name that glob would take for a pattern
                inside = temporary / "0.ply" if kind is replacing_folder else temporary
                inside.parent.mkdir(exist_ok=True)
                inside.write_bytes(bytes(1000))
                os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
        assert len(list(tmp_path.iterdir())) == 1  # of this child; those before are gone
    with kind(tmp_path / "a[1]") as temporary:
        if kind is replacing_folder:
            temporary.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["a[1]"]


def test_temporaries_of_other_machines_are_judged_by_their_age(tmp_path):
    gone = 99999999
    here, elsewhere = atomic.HERE, f"{int(atomic.HERE, 16) ^ 1:04x}"
    marks = f"{here}00000000", f"{elsewhere}00000000", f"{elsewhere}11111111"
    ours, theirs, older = (tmp_path / f".a.{gone}-{mark}.tmp" for mark in marks)
    for path in (ours, theirs, older):
        path.write_text("")
    os.utime(older, (time.time() - 1e6,) * 2)
    with replacing(tmp_path / "a"):
        assert {path.name for path in (ours, theirs, older) if path.exists()} == {theirs.name}


def test_temporaries_of_others_that_still_write_stay(tmp_path):
    words = "0123abcd", "12345678", f"{os.getppid()}-0123abcd"
    mine, older, running = (tmp_path / f".a.{word}.tmp" for word in words)
    for path in (mine, older, running, tmp_path / ".ab.99999999-0123abcd.tmp"):
        path.write_text("")
    os.utime(older, (time.time() - 1e6,) * 2)
    with replacing(tmp_path / "a"), replacing(tmp_path / "a"):
        assert len(list(tmp_path.glob(f".a.{os.getpid()}-*.tmp"))) == 2  # neither takes the other's away
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a", mine.name, running.name, ".ab.99999999-0123abcd.tmp"}

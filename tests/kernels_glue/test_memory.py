import os
import subprocess
import sys
from pathlib import Path

import pytest
from lyra_pack.kernels_glue import memory


def test_a_record_is_kept_by_kind_and_key_until_it_is_forgotten():
    assert memory.recall("proofs", "a") is None
    assert memory.remember("proofs", "a", {"state": "right"})
    assert memory.recall("proofs", "a") == {"state": "right"}
    assert memory.recall("proofs", "b") is None and memory.recall("files", "a") is None
    memory.forget("proofs", "a")
    memory.forget("proofs", "a")
    assert memory.recall("proofs", "a") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "other", "value": 1}', "\x00\xff"])
def test_a_damaged_record_counts_as_none(own_memory, text):
    memory.remember("proofs", "a", {"state": "right"})
    (file,) = (own_memory / "proofs").iterdir()
    file.write_text(text, encoding="latin-1")
    assert memory.recall("proofs", "a") is None
    assert memory.remember("proofs", "a", {"state": "wrong"})
    assert memory.recall("proofs", "a") == {"state": "wrong"}


def test_a_folder_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path / "file" / "below"))
    assert not memory.remember("proofs", "a", {})
    assert memory.recall("proofs", "a") is None
    memory.forget("proofs", "a")


def test_the_oldest_records_go_when_there_are_too_many(monkeypatch, own_memory):
    monkeypatch.setattr(memory, "MOST", 3)
    for number in range(5):
        memory.remember("proofs", str(number), {"number": number})
        for age, file in enumerate(sorted((own_memory / "proofs").iterdir(), key=lambda f: f.stat().st_mtime_ns)):
            os.utime(file, ns=(age, age))
    assert [memory.recall("proofs", str(n)) is not None for n in range(5)] == [False, False, True, True, True]


def test_no_temporary_stays(own_memory):
    memory.remember("proofs", "a", {})
    assert [file.suffix for file in (own_memory / "proofs").iterdir()] == [".json"]


def test_the_environment_names_the_folder_before_the_host_and_the_platform(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_told", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.delenv("LYRA_CACHE")
    assert memory.cache_folder() == tmp_path / "xdg" / "lyra"
    memory.use_folder(tmp_path / "user" / "lyra")
    assert memory.cache_folder() == tmp_path / "user" / "lyra"
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path / "named"))
    assert memory.cache_folder() == Path(tmp_path / "named")


TURN = """
import runpy, sys, time
from pathlib import Path
with runpy.run_path(sys.argv[1])["in_turn"]("thing"):
    mark = Path(sys.argv[2])
    mark.touch(exist_ok=False)
    time.sleep(0.3)
    mark.unlink()
"""


def test_processes_take_turns(tmp_path):
    command = [sys.executable, "-c", TURN, memory.__file__, tmp_path / "mark"]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4


def test_nobody_waits_where_no_file_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path / "file" / "below"))
    with memory.in_turn("thing"):
        done = True
    assert done

import json
import struct
import zlib
from tokenize import TokenError
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import av
import pytest
from lyra_pack.comfyui_lyra.files.reading import FREE, check_claim, one_line, open_zip, read_text, reading
from PIL import Image
from safetensors import SafetensorError

RAISED = [
    ValueError("no depth"), KeyError("depth"), IndexError("7"), TypeError("no list"), AttributeError("no shape"),
    RuntimeError("bad\npassword"), NotImplementedError("compression 99"), RecursionError(), OverflowError("too large"),
    EOFError(), MemoryError(), BadZipFile("no zip"), zlib.error("-3"), struct.error("short"), SafetensorError("header"),
    PermissionError(13, "Permission denied"), SyntaxError("broken PNG"),
    TokenError("EOF in multi-line statement", (2, 0)),
    Image.DecompressionBombError("178956971 pixels"), av.error.InvalidDataError(1, "Invalid data"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
]  # fmt: skip


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_a_library_raises_is_one_sentence_that_starts_with_the_file(tmp_path, error):
    file = tmp_path / "bad.bin"
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match="bad.bin: .") as raised, reading(file):
        raise error
    assert type(raised.value) is ValueError
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is error


def test_a_sentence_names_the_file_once(tmp_path):
    file = tmp_path / "bad.bin"
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match="no depth") as raised, reading(file), reading(file):
        raise ValueError("no depth")
    assert str(raised.value) == f"{file}: no depth"


def test_missing_files_and_folders_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.ply: no such file"), reading(tmp_path / "none.ply"):
        pass
    with pytest.raises(ValueError, match="a folder; expected a file"), reading(tmp_path):
        pass


def test_bugs_and_interruptions_pass():
    class Interrupted(Exception):
        pass

    with pytest.raises(Interrupted), reading(__file__):
        raise Interrupted


def test_absurd_names_become_short_and_printable():
    told = one_line(ValueError("member " + "\x1b[31m\ud800" + "a" * 70_000))
    assert len(told) < 600
    assert told.isprintable()
    told.encode()


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-sig"])
def test_text_of_windows_editors_is_read(tmp_path, codec):
    text = json.dumps({"name": "größe"}, ensure_ascii=False)
    data = b"\xff\xfe" + text.encode("utf-16-le") if codec.endswith("le-sig") else text.encode(codec)
    (tmp_path / "a.json").write_bytes(data)
    assert read_text(tmp_path / "a.json") == text


def test_claims_are_held_against_the_file():
    check_claim(FREE, 10, "an honest one")
    check_claim(10 * FREE, FREE, "a well packed one")
    with pytest.raises(ValueError, match="claims 2400000000 bytes in 2300000; damaged, or made to fill"):
        check_claim(2_400_000_000, 2_300_000, "the archive")


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    with ZipFile(tmp_path / "bomb.zip", "w", ZIP_DEFLATED) as archive, archive.open("0.bin", "w") as member:
        for _ in range(FREE // 2**24 + 1):
            member.write(bytes(2**24))
    with pytest.raises(ValueError, match="the archive claims"), open_zip(tmp_path / "bomb.zip"):
        pass

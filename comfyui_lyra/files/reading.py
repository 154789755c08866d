"""Opening somebody's file: whatever is wrong with it, one sentence says so and starts with its name.

Every reader works inside ``reading``: it alone knows what the libraries raise for bytes that are not what they expect.
What a file claims is held against what it is before anything is allocated: ``check_claim``, ``open_zip``.
"""

import codecs
import json
import lzma
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile, LargeZipFile, ZipFile

from av.error import FFmpegError
from PIL import Image
from safetensors import SafetensorError

# What numpy, zipfile, json, Pillow, PyAV, OpenEXR, safetensors and torch raise for damaged files. RuntimeError covers
# encrypted archives, NotImplementedError compressions of newer ones, RecursionError text that is nested too deep;
# TokenError is numpy's for a header that ends in mid-sentence.
DAMAGE = (
    ArithmeticError, AttributeError, BadZipFile, EOFError, LargeZipFile, LookupError, RuntimeError, SafetensorError,
    SyntaxError, TokenError, TypeError, FFmpegError, lzma.LZMAError, struct.error, zlib.error,
)  # fmt: skip
LONGEST = 500  # characters of a message; names inside a file may have any length
FREE, DENSEST = 1 << 28, 100  # bytes that any archive may hold, and beyond them at most so many a byte of the file


@contextmanager
def reading(path: Path | str) -> Iterator[Path]:
    """Yield the path of a file that exists; whatever a reader raises inside becomes a ValueError of one sentence.

    The sentence starts with the file's name. FileNotFoundError passes, as does what names the file already.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: a folder; expected a file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        yield path
    except FileNotFoundError:
        raise
    except UnicodeError as error:
        raise ValueError(f"{path}: not text in UTF-8, or damaged") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {one_line(error)}; make the picture smaller first") from error
    except MemoryError as error:
        raise ValueError(f"{path}: asks for more memory than there is; it is damaged or too large") from error
    except DAMAGE as error:
        raise ValueError(f"{path}: damaged, or not of the kind that its name says: {one_line(error)}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    except ValueError as error:
        text = one_line(error)
        raise ValueError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from error


def one_line(error: object) -> str:
    """What an error says, or its kind: one line that can be printed anywhere, and not endless."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"no {text}" if isinstance(error, KeyError) else text
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def read_text(file: Path) -> str:
    """The text of a file in UTF-8 or, where it begins with that mark, UTF-16: Windows' editors write both."""
    data = file.read_bytes()
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_utf16 else "utf-8-sig")


def parse_json(text: str | bytes) -> Any:
    """What JSON holds; ValueError for any that cannot be read, also for brackets inside brackets without end."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def check_claim(claimed: int, size: int, what: str) -> None:
    """Raise ValueError if ``what`` claims more bytes than a file of ``size`` bytes can honestly hold, compressed."""
    if claimed > max(FREE, DENSEST * size):
        raise ValueError(f"{what} claims {claimed} bytes in {size}; damaged, or made to fill the memory")


@contextmanager
def open_zip(file: Path) -> Iterator[ZipFile]:
    """A zip archive whose members together claim a believable size."""
    with ZipFile(file) as archive:
        check_claim(sum(member.file_size for member in archive.infolist()), file.stat().st_size, "the archive")
        yield archive

"""Torch's own files: zip archives, TorchScript among them, and the older form; mapped into memory, never unpickled.

``described`` reads keep their tensors on ``meta``: names, shapes and precisions, whatever the file's size.
"""

import errno
import io
import mmap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch

from .mapping import Windows
from .unpickle import STORAGES, Damaged, Inert, Stored, unpickle

# what zipfile raises where an archive contradicts itself
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, UnicodeDecodeError)
LARGEST_PICKLE = 512 * 2**20  # bytes; a checkpoint's has a few million


def read_zip(path: Path, described: bool = False) -> object:
    """What torch.save or torch.jit.save wrote as a zip archive.

    Raises ``Damaged`` where records are missing, shorter than their tensors, or compressed.
    """
    try:
        return walk_zip(path, described)
    except BROKEN_ZIP as error:
        raise Damaged(f"a damaged archive ({error})") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # the machine's: no descriptors, no memory, a broken disk
            raise
        raise Damaged(f"a damaged archive ({error})") from error  # a seek to nowhere


def walk_zip(path: Path, described: bool) -> object:
    """As ``read_zip``, with the errors of a damaged archive as they come."""
    with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
        windows = Windows(path)
        records = {entry.filename: entry for entry in archive.infolist()}
        root = min((name for name in records if f"/{name}".endswith("/data.pkl")), key=len).removesuffix("data.pkl")
        if f"{root}byteorder" in records and limited(archive, records[f"{root}byteorder"]).strip() == b"big":
            raise Damaged("written on a big-endian machine, which this pack does not read")

        def storage(dtype: torch.dtype, key: str, numel: int) -> Stored:
            entry = records.get(f"{root}data/{key}")
            size = numel * dtype.itemsize
            if entry is None or entry.file_size < size:
                raise Damaged(f"the numbers of '{key}' are missing or too few")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise Damaged("an archive that was packed again with compression; unpack and save it with torch.save")
            return Stored(dtype, numel, None if described else windows.storage(start_of(file, entry), size))

        return unpickle(io.BytesIO(limited(archive, records[f"{root}data.pkl"])), references(storage))


def limited(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A small record, whatever size it claims."""
    if entry.flag_bits & 1:
        raise Damaged("an encrypted archive; unpack it")
    with archive.open(entry) as record:
        found = record.read(LARGEST_PICKLE + 1)
    if len(found) > LARGEST_PICKLE:
        raise Damaged(f"its {entry.filename} is larger than any checkpoint's")
    return found


def start_of(file: io.BufferedReader, entry: zipfile.ZipInfo) -> int:
    """Where a record's bytes begin: behind its own header, whose length the table does not tell."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise Damaged("its table points to no record")
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def read_legacy(path: Path, described: bool = False) -> object:
    """What torch.save wrote before its zip archives, or with ``_use_new_zipfile_serialization=False``.

    The pickle is walked twice: its storages follow it, and where each begins is known only when all are.
    """
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        try:
            return walk_legacy(Path(path), stream, described)
        except Damaged as error:
            if stream.tell() < stream.size():
                raise
            raise Damaged(f"it ends after {stream.size():,} bytes: a download that broke off") from error


def walk_legacy(path: Path, stream: mmap.mmap, described: bool) -> object:
    """As ``read_legacy``, from the file's bytes."""
    for _ in range(3):  # magic number, protocol, the writing machine
        about = unpickle(stream, no_reference)
    if isinstance(about, dict) and about.get("little_endian") is False:
        raise Damaged("written on a big-endian machine, which this pack does not read")
    begin, needed = stream.tell(), {}

    def note(dtype: torch.dtype, key: str, numel: int) -> Stored:
        needed[key] = max(needed.get(key, 0), numel * dtype.itemsize)
        return Stored(dtype, numel)

    found = unpickle(stream, references(note))
    starts = storage_starts(stream, needed)
    if described:
        return found
    windows = Windows(path)

    def storage(dtype: torch.dtype, key: str, numel: int) -> Stored:
        return Stored(dtype, numel, windows.storage(starts[key], numel * dtype.itemsize))

    stream.seek(begin)
    return unpickle(stream, references(storage))


def storage_starts(stream: mmap.mmap, needed: dict[str, int]) -> dict[str, int]:
    """Where each storage's bytes begin; each is preceded by its count of elements, all by a list of their keys."""
    keys = unpickle(stream, no_reference)
    if not isinstance(keys, list) or needed.keys() != set(map(key_of, keys)):
        raise Damaged("its list of storages does not fit its tensors")
    starts, position = {}, stream.tell()
    for key in map(key_of, keys):
        starts[key] = position + 8
        position += 8 + needed[key]
        if position > stream.size():
            raise Damaged(f"it ends after {stream.size():,} bytes of {position:,} or more: a download that broke off")
    return starts


def key_of(key: object) -> str:
    """A storage's key; of what is none only the kind, as tuples of tuples may be endless in words."""
    return str(key)[:200] if isinstance(key, str | int) else type(key).__name__


def references(storage: Callable[[torch.dtype, str, int], Stored]) -> Callable[[object], object]:
    """What a checkpoint's pickle may refer to: storages, by type, key and count. Anything else is inert."""
    known: dict[str, tuple[int, Stored]] = {}  # by key, with its bytes

    def refer(reference: object) -> object:
        if isinstance(reference, tuple) and len(reference) >= 2 and reference[0] == "module":
            return reference[1]
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            return Inert("reference", reference)
        kind, key, numel = reference[1], key_of(reference[2]), reference[4]
        dtype = STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Inert) else None
        if dtype is None or type(numel) is not int or not 0 <= numel < 2**48 or any(reference[5:]):
            return Inert("storage", reference)
        if known.get(key, (-1,))[0] < numel * dtype.itemsize:
            known[key] = numel * dtype.itemsize, storage(dtype, key, numel)
        return Stored(dtype, numel, known[key][1].data)

    return refer


def no_reference(reference: object) -> object:
    """For pickles that refer to nothing."""
    return Inert("reference", reference)

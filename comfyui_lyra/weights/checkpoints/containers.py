"""What a file is, by its content: the first bytes, and for archives their table."""

import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ...files.reading import parse_json
from ...files.splats.formats import ADVICE, BY_SUFFIX, SplatFormat, form_of
from .ours import JSON_FORMATS

LARGEST_HEADER = 100 * 2**20  # of safetensors; the format's own limit
AGAIN = "fetch it again"
LEGACY = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e", re.DOTALL)

PHOTOS = (b"heic", b"heix", b"mif1", b"avif")  # brands of what looks like a video
WEIGHTS = ("safetensors", "torch zip", "torch legacy", "torchscript")  # forms that hold tensors and can be read
BEGINNINGS = (  # (first bytes, kind)
    (b"GGUF", "gguf"),
    (b"version https://git-lfs", "lfs pointer"),
    (b"ply\n", "ply"),
    (b"ply\r", "ply"),
    (b"\x76\x2f\x31\x01", "exr"),
    (b"\x89PNG", "picture"),
    (b"\xff\xd8\xff", "picture"),
    (b"II*\x00", "picture"),
    (b"MM\x00*", "picture"),
    (b"PF\n", "pfm"),
    (b"Pf\n", "pfm"),
    (b"GIF8", "animation"),
    (b"\x00\x00\x01\xba", "video"),
    (b"\x93NUMPY", "npy"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "rar"),
    (b"\x1aE\xdf\xa3", "video"),
)
PLAIN = {  # kind -> (what it is, what to do)
    "gguf": (
        "a GGUF file, quantised for llama.cpp and its kin",
        "this pack reads none; take the model as safetensors or .pt",
    ),
    "lfs pointer": (
        "a git-lfs pointer: a few lines that stand for the real file",
        "run 'git lfs pull' in its folder, or download the file itself",
    ),
    "html": (
        "a web page, not the file it was saved as",
        "the link led to a page: log in or accept the licence there, and use the page's download button",
    ),
    "empty": ("an empty file: a download that never began", AGAIN),
    "zeros": ("a file of zeros: room that a downloader took and did not fill", AGAIN),
    "ply": ("a PLY file of points or splats", ""),
    "exr": ("an OpenEXR picture, such as a depth map", ""),
    "picture": ("a picture", ""),
    "animation": ("a GIF, a picture or a short animation", ""),
    "pfm": ("a PFM picture, such as a depth map", ""),
    "npy": ("a numpy array", ""),
    "npz": ("numpy arrays (npz)", ""),
    "video": ("a video", ""),
    "gzip": ("a gzip archive", "unpack it and choose the file inside"),
    "xz": ("an xz archive", "unpack it and choose the file inside"),
    "7z": ("a 7z archive", "unpack it and choose the file inside"),
    "rar": ("a RAR archive", "unpack it and choose the file inside"),
    "tar": ("a tar archive", "unpack it and choose the file inside"),
    "zip": ("a zip archive of other files", "unpack it and choose the file inside"),
    "pickle": ("a pickle that torch.save did not write", "save it again with torch.save, or as safetensors"),
    "text": ("a text file", ""),
    "unknown": ("of no kind that this pack knows", "check where it comes from"),
}


@dataclass(frozen=True, kw_only=True)
class Container:
    """The outer form of one file."""

    kind: str  # one of WEIGHTS, "index", "cameras", "json", a key of PLAIN, or "truncated"
    size: int  # bytes
    sentence: str  # what it is, after "NAME is "
    remedy: str = ""  # what to do, where it is not what somebody wanted

    @property
    def refusal(self) -> str:
        """Why no weights can be read from it, and what to do."""
        return f"{self.sentence}; {self.remedy}" if self.remedy else self.sentence


def container(path: Path) -> Container:
    """What one file is. Reads its first bytes and an archive's table, whatever its size and suffix.

    Raises OSError where the file cannot be opened.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        start = file.read(2**16)
    if not size:
        return plain("empty", size)
    if not start.strip(b"\0"):
        return plain("zeros", size)
    form = form_of(Path(path).name, start)
    if form and form.suffix != ".ply":
        return splats_of(form, size)
    for beginning, kind in BEGINNINGS:
        if start.startswith(beginning):
            return plain(kind, size)
    if start.startswith(b"PK"):
        return zip_kind(path, size)
    if LEGACY.match(start):  # torch's magic number, pickled
        return Container(kind="torch legacy", size=size, sentence="an older torch file (a pickle, then the numbers)")
    if (begun := safetensors_kind(start, size)) is not None:
        return begun
    found = by_words(start, size)
    return json_kind(path, size) if found.kind == "json" else found


def splats_of(form: SplatFormat, size: int) -> Container:
    """A file of splats that is no PLY; a remedy where it is not read here."""
    kind, remedy = ("packed splats", "") if form.reads else ("other splats", ADVICE)
    return Container(kind=kind, size=size, sentence=f"splats as {form.title}", remedy=remedy)


def plain(kind: str, size: int) -> Container:
    """A file that its kind says all about."""
    sentence, remedy = PLAIN[kind]
    return Container(kind=kind, size=size, sentence=sentence, remedy=remedy)


def truncated(what: str, size: int, wanted: int | None = None) -> Container:
    """A file that ends too early."""
    ends = f"ends after {size:,} bytes" + (f" of {wanted:,}" if wanted else "")
    return Container(
        kind="truncated", size=size, sentence=f"{what} that {ends}: a download that broke off", remedy=AGAIN
    )


def zip_kind(path: Path, size: int) -> Container:
    """Torch's archives and others, by the names inside."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return truncated("a torch or zip archive", size)
    names = [entry.filename for entry in entries]
    if any(entry.header_offset + entry.compress_size > size for entry in entries):
        return truncated("a torch or zip archive", size)
    if not any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        if "meta.json" in names and any(name.endswith(".webp") for name in names):
            return splats_of(BY_SUFFIX[".sog"], size)
        return plain("npz" if names and all(name.endswith(".npy") for name in names) else "zip", size)
    if any("/code/" in f"/{name}" for name in names):
        return Container(kind="torchscript", size=size, sentence="a TorchScript archive (a program with its tensors)")
    return Container(kind="torch zip", size=size, sentence="a torch file")


def safetensors_kind(start: bytes, size: int) -> Container | None:
    """Safetensors, whole or broken off; None for anything else."""
    if len(start) < 9 or start[8:9] != b"{":
        return None
    (length,) = struct.unpack("<Q", start[:8])
    if length > LARGEST_HEADER:
        return None
    if 8 + length > size:
        return truncated("a safetensors file", size)
    return Container(kind="safetensors", size=size, sentence="a safetensors file")


def by_words(start: bytes, size: int) -> Container:
    """Pages, JSON, tar archives, pickles, videos, text."""
    words = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if words.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")):
        return plain("html", size)
    if words[:1] in (b"{", b"["):
        return Container(kind="json", size=size, sentence="a JSON file")
    if start[257:262] == b"ustar":
        return plain("tar", size)
    if start[4:8] == b"ftyp" and start[8:12] in PHOTOS:
        return plain("picture", size)
    if start[4:8] == b"ftyp" or is_transport(start) or (start[:4] == b"RIFF" and start[8:12] == b"AVI "):
        return plain("video", size)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return plain("picture", size)
    if start[0] == 0x80 and start[1:2] and start[1] <= 5:
        return plain("pickle", size)
    readable = re.fullmatch(rb"[\t\n\r\x20-\x7e\x80-\xff]*", start)
    return plain("text" if readable else "unknown", size)


def is_transport(start: bytes) -> bool:
    """Whether a file is an MPEG transport stream, .mts or .ts: packets of 192 or 188 bytes that begin with a mark."""
    return any(
        len(start) > offset + 3 * packet and all(start[offset + i * packet] == 0x47 for i in range(4))
        for offset, packet in ((4, 192), (0, 188))
    )


def json_kind(path: Path, size: int) -> Container:
    """A JSON file by what stands in it: a shard index, cameras, an error of a server, others."""
    try:
        document = parse_json(Path(path).read_bytes()) if size < LARGEST_HEADER else None
    except ValueError:
        return lines_or_less(path, size)
    known = document if isinstance(document, dict) else {}
    if isinstance(known.get("weight_map"), dict):
        return Container(kind="index", size=size, sentence="the index of weights in several files")
    if (own := JSON_FORMATS.get(str(known.get("format")))) is not None:
        return Container(kind=own[0], size=size, sentence=own[1])
    if {"frames", "camera_path", "transform_matrix"} & known.keys():
        return Container(kind="cameras", size=size, sentence="cameras (transforms.json or a camera path)")
    if "_class_name" in known:
        return Container(kind="json", size=size, sentence=f"the configuration of diffusers' {known['_class_name']}")
    if "error" in known or "message" in known:
        return Container(
            kind="html",
            size=size,
            sentence="a server's answer that it did not give the file",
            remedy="log in or accept the licence where it lies, then download it",
        )
    return Container(kind="json", size=size, sentence="a JSON file of no kind that this pack knows")


def lines_or_less(path: Path, size: int) -> Container:
    """What begins like JSON and is none: a line of JSON after another, a file that broke off, or text."""
    with Path(path).open("rb") as file:
        first, second = file.readline(LARGEST_HEADER), file.read(1)
    if not first.startswith(b"{"):
        return plain("text", size)
    try:
        parse_json(first)
    except ValueError:
        second = b""
    if second == b"{":
        return Container(kind="json", size=size, sentence="lines of JSON, such as the log of a training")
    return truncated("a JSON file", size)

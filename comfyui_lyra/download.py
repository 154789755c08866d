"""Released weights: what there is, and fetching it when a person asks for it and accepts its licence.

Nothing here runs on its own. Upstream calls several files ``model.pt``: our folders and names keep them apart.
"""

import hashlib
import io
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from .files.disk import check_disk
from .progress import OnStep, no_progress

log = logging.getLogger("lyra")

NVIDIA = (
    "NVIDIA Open Model License (https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license)"
    ". It ends the right to use a model whose guardrail is bypassed without a substantially similar one; this pack "
    "runs the models without one, as the reference's own data programs do"
)
BLOCK = 2**22  # bytes hashed at a time


@dataclass(frozen=True, kw_only=True)
class ReleasedFile:
    """One file of a release."""

    source: str  # where it lies in the repository
    name: str  # what we call it
    gigabytes: float  # about; the hub tells exactly
    md5: str | None = None  # as the reference's own download program knows it


@dataclass(frozen=True, kw_only=True)
class Release:
    """Files of one repository of the Hugging Face hub."""

    repo: str
    folder: str  # below the folder of all weights, as ComfyUI names it
    licence: str
    files: tuple[ReleasedFile, ...]
    revision: str = "main"

    def __str__(self) -> str:
        files = ", ".join(f"{file.source} ({file.gigabytes:g} GB) as {self.folder}/{file.name}" for file in self.files)
        return f"https://huggingface.co/{self.repo}: {files}. Licence: {self.licence}"


RELEASES = MappingProxyType(
    {
        "gen3c": Release(
            repo="nvidia/GEN3C-Cosmos-7B",
            folder="diffusion_models",
            licence=f"{NVIDIA}; see also the model card, whose terms have changed",
            files=(
                ReleasedFile(
                    source="model.pt",
                    name="gen3c_cosmos_7b.pt",
                    gigabytes=14.5,
                    md5="38644bf823aa5272acef60cfad8bc0f7",
                ),
            ),
        ),
        "tokenizer": Release(
            repo="nvidia/Cosmos-Tokenize1-CV8x8x8-720p",
            folder="vae/cosmos_cv8x8x8_720p",
            licence=NVIDIA,
            files=(
                ReleasedFile(source="model.pt", name="cosmos_cv8x8x8_720p.pt", gigabytes=0.3),
                ReleasedFile(
                    source="mean_std.pt", name="mean_std.pt", gigabytes=1e-5, md5="f07680ad7eefae57d698778e2a0c7c96"
                ),
            ),
        ),
        "lyra": Release(
            repo="nvidia/Lyra",
            folder="lyra",
            licence=NVIDIA,
            files=(
                ReleasedFile(source="lyra_static.pt", name="lyra_static.pt", gigabytes=0.13),
                ReleasedFile(source="lyra_dynamic.pt", name="lyra_dynamic.pt", gigabytes=0.13),
            ),
        ),
        "t5": Release(
            repo="google-t5/t5-11b",
            folder="text_encoders/t5-11b",
            licence="Apache License 2.0",
            files=(
                ReleasedFile(source="config.json", name="config.json", gigabytes=1e-6),
                ReleasedFile(source="tokenizer.json", name="tokenizer.json", gigabytes=1.4e-3),
                ReleasedFile(source="spiece.model", name="spiece.model", gigabytes=8e-4),
                ReleasedFile(
                    source="pytorch_model.bin",
                    name="pytorch_model.bin",
                    gigabytes=45,
                    md5="f890878d8a162e0045a25196e27089a3",
                ),
            ),
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class Remote:
    """What the hub says of a file."""

    url: str
    headers: dict[str, str]
    size: int
    etag: str  # sha256 of a large file, git's name of a small one


def fetch(
    name: str,
    folder: Path,
    accept_licence: bool = False,
    on_step: OnStep = no_progress,
    endpoint: str | None = None,
) -> tuple[Path, ...]:
    """Files of a release below ``folder``, downloaded where they are missing and ``accept_licence`` is given.

    A download that breaks off leaves a ``.part`` file, from which the next call goes on; a file gets its name once its
    hash is right. ``on_step`` counts bytes and may raise to stop. ``endpoint`` is a mirror of the hub.
    """
    if name not in RELEASES:
        raise ValueError(f"unknown release '{name}'; there are {', '.join(RELEASES)}")
    release = RELEASES[name]
    targets = {file: Path(folder) / release.folder / file.name for file in release.files}
    missing = {file: target for file, target in targets.items() if not target.is_file()}
    for file, target in targets.items():
        if file not in missing:
            check_hash(target, None, file.md5)
    if missing:
        if not accept_licence:
            raise ValueError(f"{release}. Nothing is downloaded before you accept this licence")
        remotes = {file: ask(release, file, target, endpoint) for file, target in missing.items()}
        total = sum(remote.size for remote in remotes.values())
        parts = {file: part_of(target, remotes[file]) for file, target in missing.items()}
        done = sum(part.stat().st_size for part in parts.values() if part.is_file())
        check_disk(Path(folder).absolute(), max(0, total - done))
        before = 0
        for file, target in missing.items():
            log.info("fetching %s from %s, %.2f GB", file.source, release.repo, remotes[file].size / 1e9)
            receive(remotes[file], parts[file], lambda size, before=before: on_step(before + size, total))
            try:
                check_hash(parts[file], remotes[file].etag, file.md5)
            except ValueError:
                parts[file].unlink()  # nothing to go on from
                raise
            os.replace(parts[file], target)
            before += remotes[file].size
    return tuple(targets.values())


def part_of(target: Path, remote: Remote) -> Path:
    """Where an unfinished download lies; another version of the file has another name."""
    version = re.sub(r"\W", "", remote.etag)[:12]
    return target.with_name(f"{target.name}.{version}.part")


def ask(release: Release, file: ReleasedFile, target: Path, endpoint: str | None) -> Remote:
    """What the hub says of a file; ValueError or ConnectionError with what to do where it does not answer."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url  # deferred: a second to import
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.utils import build_hf_headers

    page = f"https://huggingface.co/{release.repo}"
    by_hand = f"download {file.source} from {page} by hand and put it at {target}"
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or {by_hand}")
    url, headers = (
        hf_hub_url(release.repo, file.source, revision=release.revision, endpoint=endpoint),
        build_hf_headers(),
    )
    try:
        found = get_hf_file_metadata(url)
    except GatedRepoError as error:
        raise ValueError(f"{page} asks you to accept its terms: do so there, then run 'hf auth login'") from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise ValueError(f"{release.repo} has no {file.source} any more, or asks you to log in; {by_hand}") from error
    except Exception as error:  # the hub's own, httpx's or requests' kinds, by version
        raise ConnectionError(f"{page} does not answer ({error}); try again later, or {by_hand}") from error
    if not (found.size and found.etag):
        raise ConnectionError(f"{page} does not tell size and hash of {file.source}; {by_hand}")
    if urlsplit(found.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # a signed address elsewhere; our token is none of its business
    return Remote(url=found.location, headers=headers, size=found.size, etag=found.etag)


class Sink(io.FileIO):
    """A file to append to that reports its size after each write, and remembers if the report raised."""

    def __init__(self, path: Path, report: Callable[[int], None]):
        super().__init__(path, "ab")
        self.report, self.stopped = report, False

    def write(self, data: bytes) -> int:
        """Append, then report."""
        count = super().write(data)
        self.stopped = True
        self.report(os.fstat(self.fileno()).st_size)
        self.stopped = False
        return count


def receive(remote: Remote, part: Path, report: Callable[[int], None]) -> None:
    """Bring a part file to its full size; ``report`` gets the size so far and may raise."""
    from huggingface_hub.file_download import http_get

    part.parent.mkdir(parents=True, exist_ok=True)
    with Sink(part, report) as sink:
        there = os.fstat(sink.fileno()).st_size
        if there < remote.size:
            try:
                http_get(remote.url, sink, resume_size=there, headers=remote.headers, expected_size=remote.size)
            except Exception as error:
                if sink.stopped or isinstance(error, OSError) and error.errno:  # the host's, or the disk's
                    raise
                raise ConnectionError(f"the download of {part.name} broke off; fetch it again to go on") from error


def check_hash(file: Path, etag: str | None, md5: str | None) -> None:
    """Raise ValueError unless a file has the hashes that the hub (etag) and the table (md5) name."""
    expected = {"md5": md5} if md5 else {}
    if etag and re.fullmatch(r"[0-9a-f]{64}", etag):
        expected["sha256"] = etag
    elif etag and re.fullmatch(r"[0-9a-f]{40}", etag):
        expected["git"] = etag
    digests = {kind: hashlib.new({"git": "sha1"}.get(kind, kind), usedforsecurity=False) for kind in expected}
    if "git" in digests:
        digests["git"].update(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            for digest in digests.values():
                digest.update(block)
    for kind, digest in digests.items():
        if digest.hexdigest() != expected[kind]:
            raise ValueError(
                f"{file}: {kind} {digest.hexdigest()}, expected {expected[kind]}: incomplete or another version. "
                "Delete it and fetch it again; if that repeats, the release has changed and this pack does not know it"
            )

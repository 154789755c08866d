"""Fetching released weights through the Hugging Face hub's own library, when a person asks and accepts the licence.

Nothing here runs on its own. A file gets its name once it is whole; what the table of hashes does not know is kept.
"""

import hashlib
import inspect
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ...kernels_glue.memory import recall, remember
from ..callbacks import OnStep, no_progress
from ..files.disk import check_disk
from .table import RELEASES, Release, ReleasedFile

log = logging.getLogger("lyra")

BLOCK = 2**22  # bytes hashed at a time
UNUSABLE = re.compile(r"\.[0-9a-f]{8}\.incomplete$")  # the hub's remains that it will not go on from


@dataclass(frozen=True, kw_only=True)
class Remote:
    """What the hub says of a file."""

    size: int
    etag: str  # sha256 of a large file, git's name of a small one
    commit: str


def fetch(
    name: str,
    folder: Path,
    accept_licence: bool = False,
    on_step: OnStep = no_progress,
    endpoint: str | None = None,
) -> tuple[Path, ...]:
    """Files of a release below ``folder``, downloaded where they are missing and ``accept_licence`` is given.

    A connection that breaks is taken up where it broke; after a stop the hub's library goes on with the file in hand
    or begins it anew, by its version, and finished files stay. ``on_step`` counts bytes and may raise to stop.
    ``endpoint`` is a mirror of the hub.
    """
    if name not in RELEASES:
        raise ValueError(f"unknown release '{name}'; there are {', '.join(RELEASES)}")
    release = RELEASES[name]
    targets = {file: Path(folder) / release.folder / file.name for file in release.files}
    missing = {file: target for file, target in targets.items() if not target.is_file()}
    for file, target in targets.items():
        if file not in missing:
            check_present(target, file)
    if not missing:
        return tuple(targets.values())
    if not accept_licence:
        raise ValueError(f"{release}. Nothing is downloaded before you accept this licence")
    remotes = {file: ask(release, file, target, endpoint) for file, target in missing.items()}
    total, before = sum(remote.size for remote in remotes.values()), 0
    check_disk(Path(folder).absolute(), max(0, total - sum(map(kept, missing.values()))))
    for file, target in missing.items():
        log.info("fetching %s from %s, %.2f GB", file.source, release.repo, remotes[file].size / 1e9)
        found = receive(release, file, target, remotes[file], endpoint, lambda n, b=before: on_step(b + n, total))
        accept(found, target, file, remotes[file].etag)
        before += remotes[file].size
        on_step(before, total)
    return tuple(targets.values())


def staging(target: Path) -> Path:
    """Where the hub's library works until a file is whole: beside it, so that it needs no copy."""
    return target.with_name(f".{target.name}.fetch")


def kept(target: Path) -> int:
    """Bytes of an earlier call that the next one need not fetch."""
    return sum(f.stat().st_size for f in staging(target).rglob("*") if f.is_file() and not UNUSABLE.search(f.name))


def by_hand(release: Release, file: ReleasedFile, target: Path) -> str:
    """What a person can do without us."""
    return f"download {file.source} from https://huggingface.co/{release.repo} by hand and put it at {target}"


def ask(release: Release, file: ReleasedFile, target: Path, endpoint: str | None) -> Remote:
    """What the hub says of a file; ValueError or ConnectionError with what to do where it does not answer."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url  # deferred: a second to import
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    page, otherwise = f"https://huggingface.co/{release.repo}", by_hand(release, file, target)
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or {otherwise}")
    try:
        found = get_hf_file_metadata(
            hf_hub_url(release.repo, file.source, revision=release.revision, endpoint=endpoint)
        )
    except GatedRepoError as error:
        raise ValueError(f"{page} asks you to accept its terms: do so there, then run 'hf auth login'") from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise ValueError(f"{release.repo} has no {file.source} any more, or asks you to log in; {otherwise}") from error
    except Exception as error:  # the hub's own, httpx's or requests' kinds, by version
        raise ConnectionError(f"{page} does not answer ({error}); try again later, or {otherwise}") from error
    if not (found.size and found.etag and found.commit_hash):
        raise ConnectionError(f"{page} does not tell size, hash and commit of {file.source}; {otherwise}")
    return Remote(size=found.size, etag=found.etag, commit=found.commit_hash)


class Stopped:
    """Progress for the hub's library, which takes a class of bars; remembers what the report raised.

    The library may draw one bar for the wire and one for the disk: the one that is ahead is reported, up to ``size``.
    """

    def __init__(self, report: Callable[[int], None], size: int):
        self.report, self.size, self.most, self.error = report, size, 0, None

    def bars(self) -> type[tqdm]:
        """A class of bars that draw nothing and report bytes."""
        stopped = self

        class Bar(tqdm):
            """One file's bytes."""

            def __init__(self, *args: object, name: str | None = None, **options: object):
                super().__init__(*args, **(options | {"disable": True}))

            def update(self, count: int = 1) -> None:
                """Count, then report."""
                self.n += count
                stopped.most = min(max(stopped.most, self.n), stopped.size)
                try:
                    stopped.report(stopped.most)
                except BaseException as error:
                    stopped.error = error
                    raise

        return Bar


def receive(
    release: Release,
    file: ReleasedFile,
    target: Path,
    remote: Remote,
    endpoint: str | None,
    report: Callable[[int], None],
) -> Path:
    """The whole file, still in its staging folder; ``report`` gets the bytes so far and may raise."""
    from huggingface_hub import hf_hub_download

    stopped = Stopped(report, remote.size)
    takes_bars = "tqdm_class" in inspect.signature(hf_hub_download).parameters  # since 1.1; before it, no steps
    options = {"tqdm_class": stopped.bars()} if takes_bars else {}
    try:
        found = hf_hub_download(
            release.repo,
            file.source,
            revision=remote.commit,  # what was asked about, even if main moves on meanwhile
            local_dir=staging(target),
            endpoint=endpoint,
            **options,
        )
    except Exception as error:
        if stopped.error or isinstance(error, OSError) and error.errno:  # the host's, or the disk's
            raise
        raise ConnectionError(f"the download of {file.source} broke off ({error}); fetch it again") from error
    if stopped.error:  # raised in a thread of the library, which did not pass it on
        raise stopped.error
    return Path(found)


def accept(found: Path, target: Path, file: ReleasedFile, etag: str) -> None:
    """Give a download its name if it is what the hub says; ValueError if not, and it is kept under another name."""
    wanted = hub_hash(etag)
    digests = hashes(found, [*wanted, *(["md5"] if file.md5 else [])])
    for kind, expected in wanted.items():
        if digests[kind] != expected:
            aside = target.with_name(f"{target.name}.damaged")
            os.replace(found, aside)
            shutil.rmtree(staging(target), ignore_errors=True)
            raise ValueError(
                f"{file.source}: {kind} {digests[kind]}, but the hub says {expected}: damaged on the way, or by a "
                f"mirror. Fetch it again; what came is kept as {aside} and may be deleted"
            )
    if file.md5 and digests["md5"] != file.md5:
        log.warning(
            "%s is whole, but another version than this pack knows (md5 %s, expected %s); it is kept",
            target, digests["md5"], file.md5,
        )  # fmt: skip
    os.replace(found, target)
    shutil.rmtree(staging(target), ignore_errors=True)
    remember("fetched", identity(target), digests)


def check_present(target: Path, file: ReleasedFile) -> None:
    """Raise ValueError for a file that is there and has another hash than the table knows; it is not touched."""
    if not file.md5 or recall("fetched", identity(target)) is not None:
        return
    digests = hashes(target, ["md5"])
    if digests["md5"] != file.md5:
        raise ValueError(
            f"{target}: md5 {digests['md5']}, expected {file.md5}: incomplete, or another version than this pack "
            "knows. It is left as it is; to fetch it anew, move it away first"
        )
    remember("fetched", identity(target), digests)


def identity(path: Path) -> str:
    """Names a file's content as long as nobody writes it."""
    about = path.stat()
    return f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}"


def hub_hash(etag: str) -> dict[str, str]:
    """The hash that the hub's tag of a file is: sha256 of a large one, git's of a small one, by kind."""
    kind = {64: "sha256", 40: "git"}.get(len(etag)) if re.fullmatch(r"[0-9a-f]+", etag) else None
    return {kind: etag} if kind else {}


def hashes(file: Path, kinds: list[str]) -> dict[str, str]:
    """Hexadecimal digests of a file in one reading; "git" is the sha1 that git names it by."""
    digests = {kind: hashlib.new({"git": "sha1"}.get(kind, kind), usedforsecurity=False) for kind in kinds}
    if "git" in digests:
        digests["git"].update(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as opened:
        while digests and (block := opened.read(BLOCK)):
            for digest in digests.values():
                digest.update(block)
    return {kind: digest.hexdigest() for kind, digest in digests.items()}

import hashlib
import shutil
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from lyra_pack.comfyui_lyra import download
from lyra_pack.comfyui_lyra.download import RELEASES, Release, ReleasedFile, fetch

BIG = bytes(range(256)) * 40  # 10240 bytes
SMALL = b"statistics"


class Hub:
    """A hub in this process that serves two files and remembers what it was asked."""

    def __init__(self):
        self.files = {"model.pt": BIG, "mean_std.pt": SMALL}
        self.hashes = {
            "model.pt": hashlib.sha256(BIG).hexdigest(),
            "mean_std.pt": hashlib.sha1(b"blob %d\0" % len(SMALL) + SMALL).hexdigest(),
        }
        self.requests, self.refusal = [], None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def handler(hub):
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body: bool):
                name = self.path.rsplit("/", 1)[1]
                start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
                hub.requests.append((self.command, name, start))
                if hub.refusal or name not in hub.files:
                    self.send_response(403 if hub.refusal else 404)
                    self.send_header("X-Error-Code", hub.refusal or "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content = hub.files[name]
                self.send_response(206 if start else 200)
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hub.hashes[name]}"')
                self.send_header("Content-Length", str(len(content) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                if body:
                    self.wfile.write(content[start:])

            def log_message(self, *_):
                pass

        return Handler


@pytest.fixture
def hub(monkeypatch):
    """A running hub, known as the release "mine"; downloads come in pieces of 1000 bytes."""
    hub = Hub()
    files = (
        ReleasedFile(source="model.pt", name="big.pt", gigabytes=1e-5, md5=hashlib.md5(BIG).hexdigest()),
        ReleasedFile(source="mean_std.pt", name="mean_std.pt", gigabytes=1e-8),
    )
    release = Release(repo="someone/Mine", folder="mine", licence="Be kind", files=files)
    monkeypatch.setattr(download, "RELEASES", {"mine": release})
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


class Stop(Exception):
    """What a host raises."""


def get(hub, folder, **options):
    return fetch("mine", folder, **{"accept_licence": True, "endpoint": hub.url} | options)


def test_nothing_is_asked_of_the_network_before_the_licence_is_accepted(hub, tmp_path):
    message = "https://huggingface.co/someone/Mine: model.pt .1e-05 GB. as mine/big.pt, .* Licence: Be kind. Nothing is"
    with pytest.raises(ValueError, match=message):
        get(hub, tmp_path, accept_licence=False)
    assert not hub.requests and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="unknown release 'other'; there are mine"):
        fetch("other", tmp_path)


def test_files_arrive_under_our_names_and_are_not_fetched_twice(hub, tmp_path):
    seen = []
    big, small = get(hub, tmp_path, on_step=lambda *step: seen.append(step))
    assert (big, small) == (tmp_path / "mine" / "big.pt", tmp_path / "mine" / "mean_std.pt")
    assert (big.read_bytes(), small.read_bytes()) == (BIG, SMALL)
    total = len(BIG) + len(SMALL)
    assert len(seen) > 5 and seen[-1] == (total, total) and seen == sorted(seen)
    assert sorted(file.name for file in (tmp_path / "mine").iterdir()) == ["big.pt", "mean_std.pt"]
    asked = len(hub.requests)
    assert get(hub, tmp_path, accept_licence=False) == (big, small) and len(hub.requests) == asked
    small.unlink()
    get(hub, tmp_path)
    assert {name for _, name, _ in hub.requests[asked:]} == {"mean_std.pt"}


def test_a_stopped_download_goes_on_where_it_was(hub, tmp_path):
    def stop(done: int, total: int) -> None:
        if done >= 4000:
            raise Stop

    with pytest.raises(Stop):
        get(hub, tmp_path, on_step=stop)
    (part,) = (tmp_path / "mine").iterdir()
    assert part.suffix == ".part" and part.read_bytes() == BIG[: part.stat().st_size]
    there, asked = part.stat().st_size, len(hub.requests)
    assert 4000 <= there < len(BIG)
    big, _ = get(hub, tmp_path)
    assert ("GET", "model.pt", there) in hub.requests[asked:] and big.read_bytes() == BIG


def test_a_changed_release_does_not_continue_an_old_part(hub, tmp_path):
    with pytest.raises(Stop):
        get(hub, tmp_path, on_step=lambda done, total: (_ for _ in ()).throw(Stop))
    hub.hashes["model.pt"] = "a" * 64
    asked = len(hub.requests)
    with pytest.raises(ValueError, match="sha256 [0-9a-f]{64}, expected aaaa.*: incomplete or another version. Delete"):
        get(hub, tmp_path)
    assert ("GET", "model.pt", 0) in hub.requests[asked:]
    assert [file.suffix for file in (tmp_path / "mine").iterdir()] == [".part"]  # the old one: of the other version


@pytest.mark.parametrize(("name", "kind"), [("model.pt", "md5"), ("mean_std.pt", "git")])
def test_a_file_of_another_content_is_not_taken(hub, tmp_path, name, kind):
    hub.files[name] = hub.files[name][::-1]
    if kind == "md5":  # the hub itself serves another version
        hub.hashes[name] = hashlib.sha256(hub.files[name]).hexdigest()
    with pytest.raises(ValueError, match=f"{kind} [0-9a-f]+, expected .* if that repeats, the release has changed"):
        get(hub, tmp_path)
    assert not list(tmp_path.rglob("big.pt" if kind == "md5" else "mean_std.pt"))


def test_a_half_file_put_there_by_hand_is_found_out(hub, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "big.pt").write_bytes(BIG[:-1])
    (tmp_path / "mine" / "mean_std.pt").write_bytes(SMALL)
    with pytest.raises(ValueError, match="big.pt: md5 .*: incomplete or another version. Delete it and fetch it again"):
        get(hub, tmp_path, accept_licence=False)
    assert (tmp_path / "mine" / "big.pt").is_file() and not hub.requests


def test_offline_means_offline(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set, so nothing is downloaded; .* put it at .*big.pt"):
        get(hub, tmp_path)
    assert not hub.requests


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ("GatedRepo", "someone/Mine asks you to accept its terms: do so there, then run 'hf auth login'"),
        ("RepoNotFound", "someone/Mine has no model.pt any more, or asks you to log in; download model.pt from"),
    ],
)
def test_refusals_of_the_hub_say_what_to_do(hub, tmp_path, refusal, message):
    hub.refusal = refusal
    with pytest.raises(ValueError, match=message):
        get(hub, tmp_path)


def test_a_hub_that_is_not_there_is_named(hub, tmp_path):
    with pytest.raises(ConnectionError, match="someone/Mine does not answer .*; try again later, or download model.pt"):
        get(hub, tmp_path, endpoint="http://127.0.0.1:9")


def test_a_full_disk_is_named_before_the_download(hub, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, len(BIG)))
    with pytest.raises(ValueError, match=f"{len(BIG) + len(SMALL)} bytes .* are needed and {len(BIG)} "):
        get(hub, tmp_path)
    assert {method for method, _, _ in hub.requests} == {"HEAD"}


def test_our_names_tell_the_released_files_apart():
    targets = [f"{release.folder}/{file.name}" for release in RELEASES.values() for file in release.files]
    assert len(set(targets)) == len(targets) and not any(target.endswith("/model.pt") for target in targets)
    assert all(release.licence and release.repo.count("/") == 1 for release in RELEASES.values())

import hashlib
import shutil
import threading
from collections import namedtuple
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from huggingface_hub import constants
from lyra_pack.comfyui_lyra.released import download
from lyra_pack.comfyui_lyra.released.download import fetch
from lyra_pack.comfyui_lyra.released.table import Release, ReleasedFile

BIG = bytes(range(256)) * 40  # 10240 bytes
SMALL = b"statistics"


class Hub:
    """A hub in this process that serves two files and remembers what it was asked.

    ``breaks`` is after how many bytes of a file it hangs up, once.
    """

    def __init__(self):
        self.files = {"model.pt": BIG, "mean_std.pt": SMALL}
        self.hashes = {
            "model.pt": hashlib.sha256(BIG).hexdigest(),
            "mean_std.pt": hashlib.sha1(b"blob %d\0" % len(SMALL) + SMALL).hexdigest(),
        }
        self.requests, self.paths, self.refusal, self.breaks = [], [], None, {}
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
                hub.paths.append(self.path)
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
                    self.wfile.write(content[start : hub.breaks.pop(name, None)])
                    self.close_connection = True

            def log_message(self, *_):
                pass

        return Handler


@pytest.fixture
def hub(monkeypatch, tmp_path_factory):
    """A running hub, known as the release "mine"; downloads come in pieces of 1000 bytes."""
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path_factory.mktemp("remembered")))
    hub = Hub()
    files = (
        ReleasedFile(source="model.pt", name="big.pt", size="10 kB", md5=hashlib.md5(BIG).hexdigest()),
        ReleasedFile(source="mean_std.pt", name="mean_std.pt", size="10 B"),
    )
    release = Release(repo="someone/Mine", folder="mine", licence="Be kind", files=files)
    monkeypatch.setattr(download, "RELEASES", {"mine": release})
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


class Stop(Exception):
    """What a host raises."""


def get(hub, folder, **options):
    return fetch("mine", folder, **{"accept_licence": True, "endpoint": hub.url} | options)


def test_nothing_is_asked_of_the_network_before_the_licence_is_accepted(hub, tmp_path):
    message = "https://huggingface.co/someone/Mine: model.pt .10 kB. as mine/big.pt, .* Licence: Be kind. Nothing is"
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


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub, tmp_path):
    hub.breaks["model.pt"] = 4000
    seen = []
    big, _ = get(hub, tmp_path, on_step=lambda done, total: seen.append(done))
    assert big.read_bytes() == BIG
    assert [start for method, name, start in hub.requests if (method, name) == ("GET", "model.pt")] == [0, 4000]
    assert max(seen) == len(BIG) + len(SMALL)


def test_a_stopped_download_leaves_no_file_and_finished_ones_stay(hub, tmp_path):
    def stop(done: int, total: int) -> None:
        if done > len(BIG):
            raise Stop

    with pytest.raises(Stop):
        get(hub, tmp_path, on_step=stop)
    folder = tmp_path / "mine"
    assert [file.name for file in folder.iterdir() if file.is_file()] == ["big.pt"]
    asked = len(hub.requests)
    big, small = get(hub, tmp_path)
    assert {name for _, name, _ in hub.requests[asked:]} == {"mean_std.pt"} and small.read_bytes() == SMALL
    assert sorted(file.name for file in folder.iterdir()) == ["big.pt", "mean_std.pt"]


def test_a_download_that_the_hub_s_own_hash_denies_is_not_taken_and_not_lost(hub, tmp_path):
    hub.hashes["model.pt"] = "a" * 64
    with pytest.raises(
        ValueError, match="model.pt: sha256 [0-9a-f]{64}, but the hub says aaaa.* kept as .*big.pt.dama"
    ):
        get(hub, tmp_path)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["big.pt.damaged"]
    hub.hashes["model.pt"] = hashlib.sha256(BIG).hexdigest()
    assert get(hub, tmp_path)[0].read_bytes() == BIG


def test_a_small_file_is_checked_by_the_hash_that_git_has_of_it(hub, tmp_path):
    hub.files["mean_std.pt"] = SMALL[::-1]
    with pytest.raises(ValueError, match="mean_std.pt: git [0-9a-f]{40}, but the hub says"):
        get(hub, tmp_path)


def test_a_release_that_has_changed_is_kept_with_a_warning_and_fetched_once(hub, tmp_path, caplog):
    hub.files["model.pt"] = BIG[::-1]
    hub.hashes["model.pt"] = hashlib.sha256(BIG[::-1]).hexdigest()
    big, _ = get(hub, tmp_path)
    assert big.read_bytes() == BIG[::-1]
    assert "big.pt is whole, but another version than this pack knows (md5" in caplog.text
    asked = len(hub.requests)
    assert get(hub, tmp_path)[0] == big and len(hub.requests) == asked


def test_a_hash_that_nobody_knows_deletes_nothing(hub, tmp_path):
    """The hub of a mirror may call its files what it likes."""
    hub.hashes["model.pt"] = "something-of-its-own"
    big, _ = get(hub, tmp_path)
    assert big.read_bytes() == BIG


def test_a_file_put_there_by_hand_is_hashed_once_and_a_half_one_found_out_and_left(hub, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    big = tmp_path / "mine" / "big.pt"
    (tmp_path / "mine" / "mean_std.pt").write_bytes(SMALL)
    big.write_bytes(BIG[:-1])
    with pytest.raises(
        ValueError, match="big.pt: md5 .*, or another version than this pack knows. It is left as it is"
    ):
        get(hub, tmp_path, accept_licence=False)
    assert big.read_bytes() == BIG[:-1]
    big.write_bytes(BIG)
    get(hub, tmp_path, accept_licence=False)
    monkeypatch.setattr(download, "hashes", lambda *_: pytest.fail("hashed again"))
    get(hub, tmp_path, accept_licence=False)
    assert not hub.requests


def test_a_pinned_release_is_asked_for_at_its_commit_and_another_at_main(hub, tmp_path, monkeypatch):
    get(hub, tmp_path)
    assert {path.split("/resolve/")[1].split("/")[0] for path in hub.paths if "/resolve/" in path} == {"main", "0" * 40}
    pinned = replace(download.RELEASES["mine"], revision="1" * 40)
    monkeypatch.setattr(download, "RELEASES", {"mine": pinned})
    hub.paths.clear()
    get(hub, tmp_path / "other")
    assert f"/someone/Mine/resolve/{'1' * 40}/model.pt" in hub.paths


def test_a_hub_library_without_bars_still_downloads(hub, tmp_path, monkeypatch):
    """As before 1.1 of it."""
    whole = huggingface_hub.hf_hub_download

    def old(repo_id, filename, *, revision, local_dir, endpoint):
        return whole(repo_id, filename, revision=revision, local_dir=local_dir, endpoint=endpoint)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", old)
    seen = []
    assert get(hub, tmp_path, on_step=lambda *step: seen.append(step))[0].read_bytes() == BIG
    assert [done for done, _ in seen] == [len(BIG), len(BIG) + len(SMALL)]


def test_offline_means_offline(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
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


def test_bars_of_the_wire_and_of_the_disk_are_one_progress():
    seen = []
    bars = download.Stopped(seen.append, 100).bars()
    with bars(total=100, name="wire") as wire, bars(total=100, disable=False) as disk:
        for bar, count in ((wire, 60), (disk, 40), (disk, 60), (wire, 45)):
            bar.update(count)
            bar.set_postfix_str("1 B/s", refresh=False)
    assert seen == [60, 60, 100, 100]


def test_what_the_hub_s_library_goes_on_from_needs_no_room_again(tmp_path):
    begun = download.staging(tmp_path / "big.pt") / ".cache" / "huggingface" / "download"
    begun.mkdir(parents=True)
    (begun / f"a=.{'0' * 64}.incomplete").write_bytes(BIG[:4000])
    (begun / f"a=.{'0' * 64}.1234abcd.incomplete").write_bytes(BIG[:5000])  # of a killed one, which newer ones ignore
    assert download.kept(tmp_path / "big.pt") == 4000

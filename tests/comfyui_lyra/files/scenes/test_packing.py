"""Videos and depth that are packed beside the caller's work (``PathStore.save``)."""

import signal
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from lyra_pack.comfyui_lyra.files.media.video import load_video
from lyra_pack.comfyui_lyra.files.scenes import sdg_writer
from lyra_pack.comfyui_lyra.files.scenes.sdg_writer import PathStore


def begin(store: PathStore, scenes) -> None:
    """Claim the clip for the paths of some scenes."""
    store.begin(scenes[0].provenance, [scene.cameras[0] for scene in scenes], scenes[0].latents.values.numel())


def brightening() -> torch.Tensor:
    """17 grey frames, each brighter than the one before."""
    return torch.linspace(0.1, 0.9, 17)[:, None, None, None].expand(-1, 16, 32, 3)


def never() -> torch.Tensor:
    raise AssertionError("no frames are wanted")


def test_a_video_is_encoded_beside_what_comes_next(tmp_path, scenes, monkeypatch):
    go, real = threading.Event(), sdg_writer.save_video
    monkeypatch.setattr(sdg_writer, "save_video", lambda *given: go.wait(60) and real(*given))
    monkeypatch.setattr(sdg_writer, "AT_ONCE", 1)
    store, video = PathStore(tmp_path / "out", "clip"), tmp_path / "out" / "0" / "rgb" / "clip.mp4"
    begin(store, scenes)
    store.save(0, scenes[0], brightening, beside=True)
    assert store.load(0) is not None and not video.exists()
    go.set()
    store.save(1, scenes[1], brightening, beside=True)
    assert len(load_video(video)[0]) == 17  # the next waits for it
    store.finish()
    assert (tmp_path / "out" / "1" / "rgb" / "clip.mp4").is_file()
    assert not list((tmp_path / "out.lyra").glob("*.unfinished"))


def test_several_videos_are_encoded_at_the_same_time(tmp_path, scenes, monkeypatch):
    both, real = threading.Barrier(2, timeout=60), sdg_writer.save_video
    monkeypatch.setattr(sdg_writer, "save_video", lambda *given: (both.wait(), real(*given)))
    monkeypatch.setattr(sdg_writer, "AT_ONCE", 2)
    store = PathStore(tmp_path / "out", "clip")
    begin(store, scenes)
    for index, scene in enumerate(scenes):
        store.save(index, scene, lambda index=index: brightening().flip(0) if index else brightening(), beside=True)
    store.finish()
    first, second = (load_video(tmp_path / "out" / str(i) / "rgb" / "clip.mp4")[0].mean((1, 2, 3)) for i in (0, 1))
    assert first[0] < first[-1] and second[0] > second[-1]  # each got its own frames


def test_a_video_that_fails_is_told_when_no_other_is_being_written(tmp_path, scenes, monkeypatch):
    real, written = sdg_writer.save_video, []

    def encode(file, *given):
        if not written:
            written.append("first")
            raise ZeroDivisionError
        time.sleep(0.2)
        real(file, *given)
        written.append("second")

    monkeypatch.setattr(sdg_writer, "save_video", encode)
    monkeypatch.setattr(sdg_writer, "AT_ONCE", 2)
    store = PathStore(tmp_path / "out", "clip")
    begin(store, scenes)
    for index, scene in enumerate(scenes):
        store.save(index, scene, brightening, beside=True)
    with pytest.raises(ZeroDivisionError):
        store.finish()
    assert written == ["first", "second"]


def test_a_clip_that_is_begun_again_keeps_the_video_that_is_being_written(tmp_path, scenes, monkeypatch):
    """As where memory ran out in the second path, and the node tries again with less on the device."""
    go, real = threading.Event(), sdg_writer.save_video
    monkeypatch.setattr(sdg_writer, "save_video", lambda *given: go.wait(60) and real(*given))
    store = PathStore(tmp_path / "out", "clip")
    begin(store, scenes)
    store.save(0, scenes[0], brightening, beside=True)
    threading.Timer(0.2, go.set).start()
    begin(store, scenes)
    store.save(0, scenes[0], never, beside=True)
    store.save(1, scenes[1], brightening, beside=True)
    store.finish()
    assert len(load_video(tmp_path / "out" / "0" / "rgb" / "clip.mp4")[0]) == 17


def test_what_went_wrong_with_a_video_is_raised_at_the_end(tmp_path, scenes, monkeypatch):
    store = PathStore(tmp_path / "out", "clip")
    begin(store, scenes)
    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(sdg_writer, "save_video", lambda *given: 1 / 0)
        store.save(0, scenes[0], brightening, beside=True)
        with pytest.raises(ZeroDivisionError):
            store.finish()
    assert threading.active_count() == before
    again = PathStore(tmp_path / "out", "clip")
    begin(again, scenes)
    for index, scene in enumerate(scenes):
        again.save(index, scene, brightening)  # goes on with what is missing
    assert (tmp_path / "out" / "0" / "rgb" / "clip.mp4").is_file()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Ctrl-C is sent by a signal")
def test_ctrl_c_while_a_video_is_waited_for_leaves_nobody_who_writes(tmp_path, scenes, monkeypatch):
    real, main, before = sdg_writer.save_video, threading.main_thread(), threading.active_count()
    waits = threading.Event()

    @contextmanager
    def part(_):
        waits.set()
        yield

    def encode(*given):
        waits.wait(60)
        time.sleep(0.1)  # in which the wait begins
        signal.pthread_kill(main.ident, signal.SIGINT)
        time.sleep(0.2)  # in which it has ended
        real(*given)

    monkeypatch.setattr(sdg_writer, "part", part)
    monkeypatch.setattr(sdg_writer, "save_video", encode)
    store = PathStore(tmp_path / "out", "clip")
    begin(store, scenes)
    store.save(0, scenes[0], brightening, beside=True)
    with pytest.raises(KeyboardInterrupt):
        store.finish()
    assert threading.active_count() == before and not list((tmp_path / "out.lyra").glob("*.unfinished"))
    assert (tmp_path / "out" / "0" / "rgb" / "clip.mp4").is_file()

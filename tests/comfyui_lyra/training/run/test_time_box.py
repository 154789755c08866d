import os
import signal
import threading
import time

import pytest
from lyra_pack.comfyui_lyra.training.run.time_box import TimeBox


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_to_stop_and_the_second_one_stops(number):
    before = signal.getsignal(number)
    caught = []
    signal.signal(number, lambda *_: caught.append(number))
    try:
        with TimeBox() as box:
            assert box.ends() is None
            os.kill(os.getpid(), number)
            assert box.ends() == signal.Signals(number).name and not caught
            os.kill(os.getpid(), number)
            assert caught == [number]
        os.kill(os.getpid(), number)
        assert caught == [number] * 2
    finally:
        signal.signal(number, before)


def test_the_time_runs_out():
    with TimeBox(0.02) as box:
        assert box.ends() is None
        time.sleep(0.03)
        assert box.ends() == "its 0.02 seconds are over"


def test_another_thread_has_a_clock_and_no_signals():
    found = []

    def run():
        with TimeBox(0) as box:
            found.append(box.ends())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == ["its 0 seconds are over"]


def test_a_box_may_begin_to_watch_later():
    caught = []
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
    try:
        with TimeBox(watches=False) as box:
            os.kill(os.getpid(), signal.SIGTERM)
            assert caught == [1] and box.ends() is None
            box.watch()
            box.watch()
            os.kill(os.getpid(), signal.SIGTERM)
            assert caught == [1] and box.ends() == "SIGTERM"
            box.watch()  # the second interruption is not to be caught
            os.kill(os.getpid(), signal.SIGTERM)
            assert caught == [1, 1]
    finally:
        signal.signal(signal.SIGTERM, before)

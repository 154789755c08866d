import threading
from types import SimpleNamespace

import pytest
import torch
from lyra_pack.comfyui_lyra.callbacks import part
from lyra_pack.comfyui_lyra.cost import timing
from lyra_pack.comfyui_lyra.cost.timing import Timeline, process_bytes, process_seconds

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """A clock that stands until it is told to go on."""
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: found.now))
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_second_belongs_to_the_innermost_part(clock):
    @part("inner")
    def inner(seconds: float) -> None:
        clock.now += seconds

    timeline = Timeline(CPU, before=5.0)
    with timeline.stage("make") as lines:
        clock.now += 1
        with part("outer"):
            clock.now += 2
            inner(4)
            inner(8)
    clock.now += 16
    inner(32)  # nobody watches here
    assert [cells(line)[:4] for line in lines] == [
        ["make: outer", "1", "2.00", "2.00"],
        ["make: inner", "2", "12.00", "4.00"],
        ["make: the rest", "1", "1.00", "1.00"],
    ]
    everything, unexplained = timeline.summary()
    assert cells(everything)[:3] == ["all", "", "68.00"] and timeline.seconds == 68
    assert cells(unexplained)[:3] == ["of it unexplained: 72.1%", "", "49.00"]
    assert len({len(cells(line)) for line in (*Timeline.HEAD, *lines, everything, unexplained)}) == 1


def test_what_another_thread_does_meanwhile_is_not_counted_twice(clock):
    timeline = Timeline(CPU)
    with timeline.stage("make") as lines, part("mine"):
        other = threading.Thread(target=lambda: part("its")(lambda: None)())
        other.start()
        other.join()
        clock.now += 3
    assert [cells(line)[0] for line in lines] == ["make: mine", "make: the rest"]


def test_a_part_that_fails_is_closed(clock):
    timeline = Timeline(CPU)
    with timeline.stage("make") as lines:
        with pytest.raises(OSError), part("broken"):
            clock.now += 3
            raise OSError
        clock.now += 4
    assert [float(cells(line)[2]) for line in lines] == [3, 4]


@pytest.mark.skipif(not timing.PROCESS.is_dir(), reason="only Linux tells it")
def test_the_system_tells_how_old_and_how_large_the_process_is():
    assert 0 < process_seconds() < 1e6 and process_bytes() > 1e7


def test_a_system_that_tells_nothing_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "PROCESS", tmp_path)
    assert (process_seconds(), process_bytes()) == (0, 0)

import pytest
from lyra_pack.comfyui_lyra.recon.times import format_times, parse_times


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("0", (0,)),
        ("0, 60, 120", (0, 60, 120)),
        (" 120 0,\n60,", (120, 0, 60)),
        ("0-120/40", (0, 40, 80, 120)),
        ("3-5, 9-12/2", (3, 4, 5, 9, 11)),
    ],
)
def test_times_are_read_in_their_order(text, times):
    assert parse_times(text) == times
    assert parse_times(format_times(times)) == times


@pytest.mark.parametrize("part", ["x", "1.5", "-1", "5-3", "1-2-3", "0-9/0", "0-9/-1", "4/", "4/2"])
def test_what_is_no_time_is_quoted(part):
    with pytest.raises(ValueError, match=f"'0, {part}': '{part}' is no frame number; write numbers from 0 on"):
        parse_times(f"0, {part}")


def test_no_times_and_repeated_times_are_refused():
    with pytest.raises(ValueError, match="no bullet times; write frame numbers such as 0, 60, 120"):
        parse_times(" , ")
    with pytest.raises(ValueError, match="'0-8/4, 4' name frame 4 twice"):
        parse_times("0-8/4, 4")

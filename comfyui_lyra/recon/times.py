"""Bullet times as people write them."""

import re
from collections import Counter
from collections.abc import Sequence

STRETCH = re.compile(r"(\d+)(?:-(\d+)(?:/([1-9]\d*))?)?")  # first, last, step


def parse_times(text: str) -> tuple[int, ...]:
    """Frame indices, in their order, of a text such as "0, 60, 120", or "0-120/8" for every eighth of a stretch."""
    times: list[int] = []
    for part in text.replace(",", " ").split():
        found = STRETCH.fullmatch(part)
        stretch = found and range(int(found[1]), int(found[2] or found[1]) + 1, int(found[3] or 1))
        if not stretch:
            raise ValueError(
                f"bullet times '{text}': '{part}' is no frame number; write numbers from 0 on, such as 0, 60, 120, or "
                "0-120/8 for every eighth"
            )
        times += stretch
    if not times:
        raise ValueError("no bullet times; write frame numbers such as 0, 60, 120")
    if twice := [time for time, count in Counter(times).items() if count > 1]:
        raise ValueError(f"bullet times '{text}' name frame {twice[0]} twice; each makes a set of splats, once will do")
    return tuple(times)


def format_times(times: Sequence[int]) -> str:
    """As ``parse_times`` reads them."""
    return ", ".join(str(time) for time in times)

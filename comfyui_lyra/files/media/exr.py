"""The depth in an EXR: looked for by name in all its parts, placed where its data window says."""

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import OpenEXR

from .depth_values import COLORED

log = logging.getLogger("lyra")

MOST_PIXELS = 1 << 26  # an EXR that claims more in a window is damaged
MOST_VALUES = 1 << 29  # of all channels, which the library reads at once: 2 GB of floats
NOT_DEPTH = {"mist", "normal", "normals", "position", "vector", "uv"}  # layers that have a Z or a V of another kind


@dataclass(frozen=True)
class Channel:
    """A channel of a part; ``layer`` is what its name, or its part's, has before the last dot, in small letters."""

    part: int
    name: str  # as in the file
    shown: str  # with its part's name
    layer: str
    leaf: str


def read_exr(source: Path | bytes) -> np.ndarray:
    """Depth [H, W] of the display window in the file's pixel type, NaN where there is none or alpha is 0.

    The channel is ``*Depth.Z``, ``*Depth.V``, ``depth``, ``*.Z`` or ``Z``, ``V``, in any case; else one that is alone,
    or R that equals G and B. Raises ValueError for others, and for a header that claims too much.
    """
    head = _open(source, header_only=True)
    channels = list_channels(head)
    _check_claims(head)
    chosen = choose(channels)
    file = _open(source, separate_channels=True)
    if len(file.parts) != len(head.parts):  # the library leaves out a part that it cannot read
        raise ValueError("an EXR file that is cut short or damaged; copy or render it again")
    layer = {c.leaf: c for c in channels if (c.part, c.layer) == (chosen.part, chosen.layer)}
    values = _pixels(file, chosen)
    if chosen.leaf == "r" and any(
        not np.array_equal(_pixels(file, layer[leaf]), values, equal_nan=True) for leaf in "gb" if leaf in layer
    ):
        raise ValueError(f"{COLORED}; found {', '.join(c.shown for c in channels)}")
    if values.dtype.kind != "f":
        values = values.astype(np.float32)
    if "a" in layer:
        values = np.where((_pixels(file, layer["a"]) == 0) & (values != np.inf), np.nan, values).astype(values.dtype)
    header = head.parts[chosen.part].header
    return place(values, header["dataWindow"], header["displayWindow"])


def list_channels(file: OpenEXR.File) -> list[Channel]:
    """The channels of all parts."""
    found = []
    for index, part in enumerate(file.parts):
        prefix = str(part.header.get("name", "") or "")
        for channel in part.header["channels"]:
            shown = channel.name
            if len(file.parts) > 1 and prefix and not shown.lower().startswith(prefix.lower()):
                shown = f"{prefix}.{shown}"
            layer, _, leaf = shown.lower().rpartition(".")
            found.append(Channel(index, channel.name, shown, layer, leaf))
    return found


def choose(channels: list[Channel]) -> Channel:
    """The channel that holds depth, by its name; a warning if there are several as good."""
    ranked = [(rank(channel, channels), channel) for channel in channels]
    best = min((order for order, _ in ranked if order is not None), default=None)
    if best is None:
        names = ", ".join(channel.shown for channel in channels)
        raise ValueError(f"expected a depth channel named Z, V, Depth.Z, Depth.V or a grey picture, found {names}")
    first, *others = [channel for order, channel in ranked if order == best]
    if others:
        log.warning(
            "depth is read from channel %s; this EXR holds %s too", first.shown, ", ".join(c.shown for c in others)
        )
    return first


def rank(channel: Channel, channels: list[Channel]) -> int | None:
    """How surely a channel holds depth, 0 the most; None for one that does not."""
    word, leaf = channel.layer.rpartition(".")[2], channel.leaf
    siblings = {c.leaf for c in channels if (c.part, c.layer) == (channel.part, channel.layer)} - {leaf, "a"}
    is_grey = not siblings or siblings == {"g", "b"}
    if word.endswith("depth") and (leaf in ("z", "v") or (leaf in ("r", "y", "x") and is_grey)):
        return 0 if word == "depth" else 1
    if leaf == "depth":
        return 2
    if word in NOT_DEPTH:
        return None
    if leaf == "z" and not siblings & {"x", "y", "u", "v"}:
        return 3 if word else 2
    if leaf == "v" and not word and not siblings & {"u", "h", "s"}:
        return 4
    if leaf in ("y", "r") and is_grey and (leaf == "r" or not siblings):
        return 5 if not word else 6
    return None


def place(values: np.ndarray, data: tuple, display: tuple) -> np.ndarray:
    """Pixels of the data window (two corners, both inside it) in the display window; NaN where there are none."""
    (left, top), (right, bottom) = (np.asarray(corner, dtype=int) for corner in display)
    (x, y), (rows, columns) = np.asarray(data[0], dtype=int) - (left, top), values.shape
    height, width = int(bottom - top + 1), int(right - left + 1)
    if (x, y, rows, columns) == (0, 0, height, width):
        return values
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + columns, width), min(y + rows, height)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"its data window {data} lies outside its display window {display}")
    canvas = np.full((height, width), np.nan, values.dtype)
    canvas[y0:y1, x0:x1] = values[y0 - y : y1 - y, x0 - x : x1 - x]
    return canvas


def _open(source: Path | bytes, **options: bool) -> OpenEXR.File:
    """The library's file; ValueError where it cannot be read."""
    try:
        file = OpenEXR.File(io.BytesIO(source) if isinstance(source, bytes) else str(source), **options)
        if not file.parts:
            raise ValueError("no part can be read")
    except (RuntimeError, OSError, ValueError, TypeError, MemoryError) as error:
        raise ValueError("not an EXR file, or one that is cut short or damaged; copy or render it again") from error
    return file


def _check_claims(file: OpenEXR.File) -> None:
    """Raise ValueError, before anything is allocated, if a part is deep or larger than any picture."""
    values = 0
    for part in file.parts:
        if "deep" in str(part.header.get("type", "")):
            raise ValueError("a deep EXR, with many depths a pixel; save one depth a pixel")
        for window in (part.header["dataWindow"], part.header["displayWindow"]):
            size = np.asarray(window[1], dtype=np.float64) - window[0] + 1
            if size.min() < 1 or np.prod(size) > MOST_PIXELS:
                raise ValueError(
                    f"claims a picture of {size[0]:.0f}x{size[1]:.0f}; at most {MOST_PIXELS} pixels are read"
                )
        size = np.asarray(part.header["dataWindow"][1], dtype=np.float64) - part.header["dataWindow"][0] + 1
        values += np.prod(size) * len(part.header["channels"])
    if values > MOST_VALUES:
        raise ValueError(
            f"claims {values:.0f} numbers in its channels; at most {MOST_VALUES} are read: save depth alone"
        )


def _pixels(file: OpenEXR.File, channel: Channel) -> np.ndarray:
    """Values of a channel."""
    found = file.parts[channel.part].channels[channel.name]
    if (found.xSampling, found.ySampling) != (1, 1) or found.pixels.ndim != 2:
        raise ValueError(f"channel {channel.shown} has not one number a pixel")
    return found.pixels

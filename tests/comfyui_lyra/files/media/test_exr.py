import io
import logging
import struct

import numpy as np
import OpenEXR
import pytest
from lyra_pack.comfyui_lyra.files.media import exr
from lyra_pack.comfyui_lyra.files.media.exr import read_exr

DEPTH = np.array([[0.5, 1.25, 30.0], [np.inf, 2.0, 1000.0]], np.float32)
OTHER = np.array([[9, 8, 7], [6, 5, 4]], np.float32)


def exr_bytes(*parts: dict[str, np.ndarray], names: tuple[str, ...] = (), **header) -> bytes:
    """An EXR of one part, or of several with names."""
    file, head = io.BytesIO(), {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION} | header
    if names:
        OpenEXR.File(
            [OpenEXR.Part(head | {"name": name}, part) for name, part in zip(names, parts, strict=True)]
        ).write(file)
    else:
        OpenEXR.File(head, parts[0]).write(file)
    return file.getvalue()


def placed(inner: tuple[int, ...], outer: tuple[int, ...]) -> bytes:
    """OTHER with its data window in a display window, each left, top, right, bottom."""
    corners = {"dataWindow": inner, "displayWindow": outer}
    return exr_bytes(
        {"Z": OTHER}, **{name: (np.int32(window[:2]), np.int32(window[2:])) for name, window in corners.items()}
    )


def windows(data: bytes, inner: tuple[int, ...], outer: tuple[int, ...]) -> bytes:
    """The same file with other corners of its data and display window."""
    for name, corners in ((b"dataWindow", inner), (b"displayWindow", outer)):
        at = data.index(name + b"\0box2i\0") + len(name) + 7 + 4
        data = data[:at] + struct.pack("<4i", *corners) + data[at + 16 :]
    return data


@pytest.mark.parametrize(
    "name", ["Z", "z", "Depth.Z", "ViewLayer.Depth.Z", "Depth.V", "ViewLayer.Depth.v", "camera.Z", "V", "depth"]
)
def test_depth_is_found_by_name_beside_colours(name):
    assert np.array_equal(read_exr(exr_bytes({"R": OTHER, "G": OTHER + 1, "B": OTHER, name: DEPTH})), DEPTH)


@pytest.mark.parametrize("other", ["Mist.Z", "Normal.Z", "UV.V", "Denoising Depth.Z", "Position.Z"])
def test_the_surest_name_wins(other):
    assert np.array_equal(read_exr(exr_bytes({other: OTHER, "ViewLayer.Depth.Z": DEPTH})), DEPTH)


def test_depth_is_looked_for_in_all_parts():
    parts = {"R": OTHER, "G": OTHER + 1, "B": OTHER}, {"Z": DEPTH}
    assert np.array_equal(read_exr(exr_bytes(*parts, names=("beauty", "ViewLayer.Depth"))), DEPTH)


@pytest.mark.parametrize("names", [("R",), ("Y",), ("R", "A"), ("R", "G", "B"), ("depth.R", "depth.G", "depth.B")])
def test_a_grey_picture_is_depth(names):
    channels = {name: np.ones_like(DEPTH) if name == "A" else DEPTH for name in names}
    assert np.array_equal(read_exr(exr_bytes(channels)), DEPTH)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"R": OTHER, "G": OTHER + 1, "B": OTHER}, "a coloured picture holds no depth.*found B, G, R"),
        ({"R": OTHER, "G": OTHER}, "expected a depth channel named Z, V, .*found G, R"),
        ({"Normal.X": OTHER, "Normal.Y": OTHER, "Normal.Z": OTHER}, "expected a depth channel.*found Normal.X"),
        ({"Flow.X": OTHER, "Flow.Y": OTHER, "Flow.Z": OTHER}, "expected a depth channel.*found Flow.X"),
        ({"Mist.Z": OTHER}, "expected a depth channel.*found Mist.Z"),
        ({"U": OTHER, "V": OTHER}, "expected a depth channel.*found U, V"),
    ],
)
def test_what_is_no_depth_is_refused_by_name(channels, message):
    with pytest.raises(ValueError, match=message):
        read_exr(exr_bytes(channels))


def test_several_depths_are_named(caplog):
    with caplog.at_level(logging.WARNING, "lyra"):
        read_exr(exr_bytes({"left.Depth.Z": DEPTH, "right.Depth.Z": OTHER}))
    assert "depth is read from channel left.Depth.Z; this EXR holds right.Depth.Z too" in caplog.text


def test_where_alpha_is_0_nothing_is_known_unless_it_is_background():
    alpha = np.array([[0, 1, 1], [0, 1, 0.5]], np.float32)
    expected = DEPTH.copy()
    expected[0, 0] = np.nan
    assert np.array_equal(read_exr(exr_bytes({"Z": DEPTH, "A": alpha})), expected, equal_nan=True)


def test_whole_numbers_are_depth_too():
    found = read_exr(exr_bytes({"Z": np.array([[1, 70000, 3]], np.uint32)}))
    assert found.dtype == np.float32 and found.tolist() == [[1, 70000, 3]]


def test_the_data_window_is_placed_in_the_display_window():
    found = read_exr(placed((1, 2, 3, 3), (0, 0, 4, 5)))
    assert found.shape == (6, 5)
    assert np.array_equal(found[2:4, 1:4], OTHER) and np.isnan(found).sum() == 24
    assert np.array_equal(read_exr(placed((-1, -1, 1, 0), (0, 0, 1, 0))), OTHER[1:, 1:])  # overscan
    assert np.array_equal(read_exr(placed((7, 5, 9, 6), (7, 5, 9, 6))), OTHER)
    with pytest.raises(ValueError, match="its data window .* lies outside its display window"):
        read_exr(placed((9, 9, 11, 10), (0, 0, 4, 5)))


@pytest.mark.parametrize("inner", [(0, 0, 60000, 60000), (0, 0, 2, 1)])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(inner):
    with pytest.raises(ValueError, match="claims a picture of 60001x60001; at most"):
        read_exr(windows(exr_bytes({"Z": OTHER}), inner, (0, 0, 60000, 60000)))


def test_more_channels_than_can_be_read_are_refused(monkeypatch):
    monkeypatch.setattr(exr, "MOST_VALUES", 11)
    with pytest.raises(ValueError, match="claims 12 numbers in its channels; at most 11 are read: save depth alone"):
        read_exr(exr_bytes({"Z": OTHER, "N": OTHER}))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_is_cut_short_says_so(share):
    values = np.random.default_rng(0).random((48, 64), np.float32)
    for data in (exr_bytes({"Z": values}), exr_bytes({"Z": values}, {"R": values}, names=("depth", "beauty"))):
        with pytest.raises(ValueError, match="cut short or damaged; copy or render it again"):
            read_exr(data[: int(len(data) * share)])

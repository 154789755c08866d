import struct
import zlib

import numpy as np
import OpenEXR
import pytest
import torch
from lyra_pack.comfyui_lyra.files.media.depth import holds_lengths, load_depth
from lyra_pack.comfyui_lyra.files.media.video import save_video
from PIL import Image

DEPTH = np.array([[0.5, 1.25, 30.0], [np.inf, 2.0, 1000.0]], np.float32)


def write_exr(path, channels) -> None:
    OpenEXR.File({"type": OpenEXR.scanlineimage}, channels).write(str(path))


@pytest.mark.parametrize("name", ["Z", "depth.Z", "Y", "R"])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exr_holds_lengths_in_any_usual_channel(tmp_path, name, kind):
    write_exr(tmp_path / "d.exr", {name: DEPTH.astype(kind), "A": np.ones_like(DEPTH)})
    assert torch.equal(load_depth(tmp_path / "d.exr"), torch.from_numpy(DEPTH)[None])


def test_numpy_files_hold_lengths_with_or_without_a_name(tmp_path):
    np.savez(tmp_path / "named.npz", depth=DEPTH, mask=DEPTH)
    np.savez(tmp_path / "alone.npz", DEPTH.astype(np.float64)[None])
    np.save(tmp_path / "plain.npy", DEPTH[..., None])
    for name in ("named.npz", "alone.npz", "plain.npy"):
        found = load_depth(tmp_path / name)
        assert found.dtype == torch.float32 and torch.equal(found, torch.from_numpy(DEPTH)[None])
    np.save(tmp_path / "clip.npy", np.stack([DEPTH, DEPTH + 1]))
    assert load_depth(tmp_path / "clip.npy").shape == (2, 2, 3)


def test_pictures_hold_levels(tmp_path):
    levels = np.array([[0, 1000, 65535], [2, 3, 4]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "d16.png")
    (found,) = load_depth(tmp_path / "d16.png")
    torch.testing.assert_close(found, torch.from_numpy(levels.astype(np.float32) / 65535))
    Image.fromarray(levels.astype(np.uint8)).convert("RGB").save(tmp_path / "grey.png")
    assert load_depth(tmp_path / "grey.png").shape == (1, 2, 3)
    save_video(tmp_path / "grey.mp4", torch.linspace(0, 1, 3)[:, None, None, None].expand(-1, 16, 32, 3), 24)
    clip = load_depth(tmp_path / "grey.mp4")
    assert clip.shape == (3, 16, 32) and torch.allclose(clip.mean((1, 2)), torch.linspace(0, 1, 3), atol=0.02)


def test_what_holds_no_depth_is_named(tmp_path):
    Image.new("RGB", (4, 4), (200, 30, 60)).save(tmp_path / "viridis.png")
    with pytest.raises(ValueError, match="viridis.png: a coloured picture holds no depth"):
        load_depth(tmp_path / "viridis.png")
    write_exr(tmp_path / "n.exr", {"X": DEPTH})
    with pytest.raises(ValueError, match=r"n.exr: expected a depth channel named Z, .*, found X"):
        load_depth(tmp_path / "n.exr")
    np.savez(tmp_path / "two.npz", a=DEPTH, b=DEPTH)
    with pytest.raises(ValueError, match="two.npz: expected an array 'depth', found a, b"):
        load_depth(tmp_path / "two.npz")
    np.save(tmp_path / "many.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(ValueError, match=r"many.npy: expected depth pictures \[H W\] or \[F H W\], got \(2, 3, 4, 5\)"):
        load_depth(tmp_path / "many.npy")
    for name in ("broken.exr", "broken.npz", "broken.npy", "broken.png"):
        (tmp_path / name).write_bytes(b"half a file")
        with pytest.raises(ValueError, match=name):
            load_depth(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_depth(tmp_path / "none.exr")


def ramp16() -> np.ndarray:
    """Millimetres, 1000 to 2100."""
    return (np.arange(12, dtype=np.uint16) * 100 + 1000).reshape(3, 4)


def png16(path, channels: np.ndarray, fmt: str) -> None:
    """A PNG of 16 bits in each of several channels, which Pillow cannot write."""
    kind = {"rgb48": 2, "ya16": 4, "rgba64": 6}[fmt]
    height, width = channels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    data = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">2I5B", width, height, 16, kind, 0, 0, 0)
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_have_the_unit_that_is_said(tmp_path, suffix):
    path, numbers = tmp_path / f"d.{suffix}", torch.from_numpy(ramp16().astype(np.float32))[None]
    Image.fromarray(ramp16()).save(path)
    for unit, expected in (
        ("mm", numbers / 1000),
        ("m", numbers),
        ("levels", numbers / 65535),
        (None, numbers / 65535),
    ):
        torch.testing.assert_close(load_depth(path, unit=unit), expected)
    with pytest.raises(ValueError, match="depth unit 'cm' is none of m, mm, levels"):
        load_depth(path, unit="cm")


@pytest.mark.parametrize("fmt", ["rgb48", "ya16", "rgba64"])
def test_sixteen_bits_a_channel_stay_sixteen(tmp_path, fmt):
    depth, alpha = ramp16()[..., None], np.full((3, 4, 1), 65535, np.uint16)
    alpha[0, 0] = 0
    parts = {"rgb48": [depth] * 3, "ya16": [depth, alpha], "rgba64": [depth] * 3 + [alpha]}[fmt]
    png16(tmp_path / "d.png", np.concatenate(parts, -1), fmt)
    found, expected = (
        load_depth(tmp_path / "d.png", unit="mm"),
        torch.from_numpy(ramp16().astype(np.float32))[None] / 1000,
    )
    if fmt != "rgb48":
        assert found[0, 0, 0].isnan()
        expected[0, 0, 0] = torch.nan
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0.0015)


def test_numbers_of_numpys_files_take_a_unit_too(tmp_path):
    for name, values in (
        ("whole", ramp16()),
        ("floats", ramp16().astype(np.float64)),
        ("signed", ramp16().astype("i4")),
    ):
        np.save(tmp_path / f"{name}.npy", values)
        numbers = torch.from_numpy(ramp16().astype(np.float32))[None]
        assert torch.equal(load_depth(tmp_path / f"{name}.npy"), numbers)
        torch.testing.assert_close(load_depth(tmp_path / f"{name}.npy", unit="mm"), numbers / 1000)
    np.save(tmp_path / "bytes.npy", np.array([[0, 51, 255]], np.uint8))
    torch.testing.assert_close(load_depth(tmp_path / "bytes.npy"), torch.tensor([[[0, 0.2, 1]]]))
    assert load_depth(tmp_path / "whole.npy", unit="levels").max() < 0.04


def test_float_pictures_hold_lengths(tmp_path):
    values = DEPTH.copy()
    values[0, 1] = np.nan
    Image.fromarray(values).save(tmp_path / "d.tiff")
    found = load_depth(tmp_path / "d.tiff")
    assert torch.equal(found.nan_to_num(-1), torch.from_numpy(values)[None].nan_to_num(-1))
    assert holds_lengths(tmp_path / "d.tiff") and holds_lengths(tmp_path / "any.exr")
    Image.fromarray(ramp16()).save(tmp_path / "levels.tiff")
    assert not holds_lengths(tmp_path / "levels.tiff") and not holds_lengths(tmp_path / "any.png")


@pytest.mark.parametrize(("order", "sign"), [("<f4", -1), (">f4", 1)])
def test_portable_float_maps_are_read_from_the_bottom_up(tmp_path, order, sign):
    for kind, values in (("Pf", DEPTH), ("PF", np.repeat(DEPTH[..., None], 3, -1))):
        body = values[::-1].astype(order).tobytes()
        (tmp_path / "d.pfm").write_bytes(f"{kind}\n3 2\n{sign}.0\n".encode() + body)
        assert torch.equal(load_depth(tmp_path / "d.pfm"), torch.from_numpy(DEPTH)[None])
    (tmp_path / "d.pfm").write_bytes(f"Pf\n3 2\n{sign}.0\n".encode() + body[:20])
    with pytest.raises(ValueError, match="d.pfm: cut short: 20 of 24 bytes of a PFM"):
        load_depth(tmp_path / "d.pfm")
    for head in (b"P6\n3 2\n255\n", b"Pf\n99999999 99999999\n-1\n", b"Pf\n0 2\n-1\n", b""):
        (tmp_path / "d.pfm").write_bytes(head)
        with pytest.raises(ValueError, match="d.pfm: not a PFM, or a damaged one"):
            load_depth(tmp_path / "d.pfm")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_where_alpha_is_0_nothing_is_known(tmp_path, mode):
    rgba = np.array([[[51, 51, 51, 255], [102, 102, 102, 128], [200, 30, 60, 0]]], np.uint8)
    image = Image.fromarray(rgba)
    if mode == "P":
        image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
        image.putpalette([51] * 3 + [102] * 3 + [200, 30, 60])
        image.save(tmp_path / "d.png", transparency=2)
    else:
        image.convert(mode).save(tmp_path / "d.png")
    found = load_depth(tmp_path / "d.png")
    torch.testing.assert_close(found[0, 0, :2], torch.tensor([0.2, 0.4]))
    assert found[0, 0, 2].isnan()


@pytest.mark.parametrize("name", ["depth", "Depth", "depths", "z", "Z"])
def test_arrays_and_fields_of_structures_are_found_by_name(tmp_path, name):
    np.savez(tmp_path / "d.npz", other=DEPTH + 1, **{name: DEPTH})
    records = np.zeros(DEPTH.shape, [("confidence", "f4"), (name, "f4")])
    records[name] = DEPTH
    np.save(tmp_path / "d.npy", records)
    for file in ("d.npz", "d.npy"):
        assert torch.equal(load_depth(tmp_path / file), torch.from_numpy(DEPTH)[None])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((5, 6), [("d", "f4"), ("c", "f4")]), "a structured array needs a field depth or z, and has d, c"),
        (np.zeros((5, 6), bool), "holds values of type bool; expected numbers"),
        (np.zeros((5, 6), complex), "no numbers"),
        (np.full((5, 6), "far"), "holds values of type <U3; expected numbers"),
        (np.zeros((5, 6, 3)), r"expected depth pictures \[H W\] or \[F H W\], got \(5, 6, 3\)"),
        (np.zeros((0, 6)), r"got \(0, 6\)"),
        (np.zeros(5), r"got \(5,\)"),
    ],
)
def test_arrays_of_other_things_are_refused(tmp_path, values, message):
    np.save(tmp_path / "d.npy", values)
    with pytest.raises(ValueError, match=f"d.npy: .*{message}"):
        load_depth(tmp_path / "d.npy")


def test_a_damaged_array_is_one_sentence(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", depth=np.random.default_rng(0).random((64, 64)))
    data = bytearray((tmp_path / "d.npz").read_bytes())
    for at in range(200, len(data) - 200, len(data) // 16):
        (tmp_path / "d.npz").write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        with pytest.raises(ValueError, match="d.npz: ") as caught:
            load_depth(tmp_path / "d.npz")
        assert "\n" not in str(caught.value)


def test_of_a_clip_only_what_is_asked_for_is_read(tmp_path):
    clip = np.stack([DEPTH + frame for frame in range(6)])
    np.save(tmp_path / "clip.npy", clip)
    np.savez(tmp_path / "clip.npz", clip)
    for file in ("clip.npy", "clip.npz"):
        assert torch.equal(load_depth(tmp_path / file, 2, 3), torch.from_numpy(clip[2:5]))
        with pytest.raises(ValueError, match="holds 6 depth pictures, none from number 6 on"):
            load_depth(tmp_path / file, 6)
    for start, count in ((-1, None), (0, 0)):
        with pytest.raises(ValueError, match="expected 1 or more"):
            load_depth(tmp_path / "clip.npy", start, count)


def test_a_folder_holds_a_numbered_file_a_frame(tmp_path):
    for frame in range(8, 12):  # 10 comes after 9
        write_exr(tmp_path / f"depth_{frame}.exr", {"Z": DEPTH + frame})
    (tmp_path / "notes.txt").write_text("of the take")
    found = load_depth(tmp_path)
    assert found[:, 0, 0].tolist() == [8.5, 9.5, 10.5, 11.5]
    assert load_depth(tmp_path, 1, 2, unit="mm")[:, 0, 0].tolist() == pytest.approx([0.0095, 0.0105])
    assert holds_lengths(tmp_path)
    (tmp_path / "._depth_8.png").write_bytes(b"macOS")  # sorts before all others
    assert holds_lengths(tmp_path) and len(load_depth(tmp_path)) == 4
    with pytest.raises(ValueError, match="holds 4 depth pictures, none from number 4 on"):
        load_depth(tmp_path, 4)
    write_exr(tmp_path / "depth_11.exr", {"Z": DEPTH[:1]})
    with pytest.raises(ValueError, match="depth_11.exr: depth of .1, 1, 3. beside others of .1, 2, 3."):
        load_depth(tmp_path)
    (tmp_path / "depth_9.exr").unlink()
    with pytest.raises(ValueError, match="frame 9 is missing"):
        load_depth(tmp_path)
    Image.new("L", (3, 2)).save(tmp_path / "depth_9.png")
    with pytest.raises(ValueError, match="numbered files of several kinds"):
        load_depth(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: a folder of depth holds numbered files, such as 00000.exr"):
        load_depth(tmp_path / "empty")


def test_a_grey_video_may_be_a_step_off_grey(tmp_path):
    frames = torch.linspace(0.2, 0.8, 3)[:, None, None, None].repeat(1, 16, 32, 3)
    frames[..., 0] += 3 / 255
    frames[..., 2] -= 3 / 255
    save_video(tmp_path / "d.mp4", frames, 24)
    assert torch.allclose(load_depth(tmp_path / "d.mp4")[:, 8, 8], torch.linspace(0.2, 0.8, 3), atol=3 / 255)
    save_video(tmp_path / "d.mp4", frames * torch.tensor([1.0, 0.6, 0.2]), 24)
    with pytest.raises(ValueError, match="d.mp4: a coloured picture holds no depth"):
        load_depth(tmp_path / "d.mp4")


def test_of_several_pages_the_first_is_read_with_a_warning(tmp_path, caplog):
    first, second = (Image.fromarray(DEPTH + page) for page in range(2))
    first.save(tmp_path / "d.tif", save_all=True, append_images=[second])
    assert torch.equal(load_depth(tmp_path / "d.tif"), torch.from_numpy(DEPTH)[None])
    assert "d.tif: holds 2 pages; the first is read" in caplog.text


def test_a_damaged_header_of_an_array_is_one_sentence(tmp_path):
    np.save(tmp_path / "d.npy", DEPTH)
    data = (tmp_path / "d.npy").read_bytes()
    for place, byte in (
        (b"2, 3)", b"2, 3+"),
        (b"2, 3)", b"2, -3"),
        (b"<f4'", b"<f4\0"),
        (b"<f4", b"<O4"),
        (b"{", b"["),
    ):
        (tmp_path / "d.npy").write_bytes(data.replace(place, byte))
        with pytest.raises(ValueError, match="d.npy: "):
            load_depth(tmp_path / "d.npy")

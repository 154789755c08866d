import logging

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.files.media.images import load_image, save_image
from PIL import Image


def test_pictures_survive_to_the_nearest_byte(tmp_path):
    frame = torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(0))
    save_image(tmp_path / "a.png", frame)
    found = load_image(tmp_path / "a.png")
    assert found.dtype == torch.float32
    assert torch.allclose(found, frame, atol=0.501 / 255, rtol=0)
    save_image(tmp_path / "b.PNG", found)
    assert torch.equal(load_image(tmp_path / "b.PNG"), found)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_formats_stay_close(tmp_path, suffix):
    ramp = torch.linspace(0, 1, 32)[None, :, None].expand(32, 32, 3)
    save_image(tmp_path / f"a.{suffix}", ramp)
    assert (load_image(tmp_path / f"a.{suffix}") - ramp).abs().max() < 0.03


def test_values_outside_the_range_are_clipped(tmp_path):
    save_image(tmp_path / "a.png", torch.tensor([[[-1.0, 0.5, 2.0]]]))
    assert load_image(tmp_path / "a.png").tolist() == [[[0, pytest.approx(128 / 255), 1]]]


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (3, 5)), (6, (0, 3)), (8, (5, 0))])
def test_the_exif_turn_is_applied(tmp_path, orientation, corner):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = load_image(tmp_path / "a.png")
    assert found.shape == ((4, 6, 3) if orientation in (1, 3) else (6, 4, 3))
    assert found.sum(-1).nonzero().tolist() == [list(corner)]


def test_transparency_is_laid_over_white(tmp_path):
    Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 51], [255, 0, 0, 255]]], np.uint8)).save(tmp_path / "a.png")
    expected = torch.tensor([[[1, 1, 1], [1, 0.8, 0.8], [1, 0, 0]]])
    assert torch.allclose(load_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "CMYK", "YCbCr", "I;16", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    gray = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (2, 1)))
    if mode == "I;16":
        image = Image.fromarray(np.tile(np.array([[0, 65535]], np.uint16), (2, 1)))
    else:
        image = gray.convert("RGB").convert("P").convert("PA") if mode == "PA" else gray.convert("RGB").convert(mode)
    assert image.mode == mode
    image.save(tmp_path / "a.tiff")
    found = load_image(tmp_path / "a.tiff")
    assert torch.allclose(found, torch.tensor([[0.0], [1.0]]).expand(2, 2, 3), atol=0.01)


def test_the_colours_of_a_ycbcr_tiff_are_its_colours_whichever_pillow_reads_it(tmp_path):
    frame = torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray((frame * 255).round().to(torch.uint8).numpy()).convert("YCbCr")
    image.save(tmp_path / "a.tiff")
    assert torch.allclose(load_image(tmp_path / "a.tiff"), frame, atol=0.02)
    image.save(tmp_path / "b.tiff", compression="tiff_lzw")
    assert torch.allclose(load_image(tmp_path / "b.tiff"), frame, atol=0.02)


def test_sixteen_bits_keep_their_depth(tmp_path):
    Image.fromarray(np.array([[0, 1000, 65535]], np.uint16)).save(tmp_path / "depth.png")
    assert torch.allclose(load_image(tmp_path / "depth.png")[0, :, 1], torch.tensor([0, 1000 / 65535, 1]))


def test_what_is_no_picture_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.png: no such file"):
        load_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="a.png: not a picture that Pillow can read"):
        load_image(tmp_path / "a.png")
    save_image(tmp_path / "a.png", torch.rand(64, 64, 3))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-2000])
    with pytest.raises(ValueError, match="a.png: damaged picture"):
        load_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.gif: unknown picture format; use .png, .jpg or .webp"):
        save_image(tmp_path / "a.gif", torch.zeros(2, 2, 3))
    with pytest.raises(ValueError, match=r"expected a frame \[H W 3\], got \(2, 2\)"):
        save_image(tmp_path / "b.png", torch.zeros(2, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_a_large_picture_is_averaged_down_upright(tmp_path, caplog, mode):
    corner = np.zeros((40, 60), np.uint8)
    corner[:20, :20] = 255
    image = Image.fromarray(corner.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(corner).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.tiff", exif=exif)
    with caplog.at_level(logging.WARNING, "lyra"):
        found = load_image(tmp_path / "a.tiff", most=300)  # 2400 pixels, so a third of each side
        assert found.shape == (20, 14, 3)
        assert "a picture of 40x60 is read at 1 / 3 of that: 14x20" in caplog.text
        assert found[:6, -6:].mean() > 0.99 and found[8:].mean() < 0.01 and found[:, :6].mean() < 0.01
        caplog.clear()
        assert load_image(tmp_path / "a.tiff", most=2400).shape == (60, 40, 3) and not caplog.text


def test_a_picture_beyond_pillows_limit_is_too_large(tmp_path):
    Image.new("1", (20000, 10000)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png: .*make the picture smaller first"):
        load_image(tmp_path / "a.png")

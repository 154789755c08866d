import argparse

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.cli.scene import own_picture
from lyra_pack.comfyui_lyra.files.media.images import save_image
from lyra_pack.comfyui_lyra.files.media.video import save_video
from lyra_pack.comfyui_lyra.files.scenes.geometry import load_geometry
from PIL import Image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A picture of 24x16 with its depth in millimetres, 16 bits, and a clip of 4 frames with one too few."""
    monkeypatch.chdir(tmp_path)
    save_image("photo.png", torch.rand(16, 24, 3, generator=torch.Generator().manual_seed(0)))
    Image.fromarray(np.linspace(1000, 4000, 16 * 24, dtype=np.uint16).reshape(16, 24)).save("mm.png")
    save_video("clip.mp4", torch.rand(4, 16, 24, 3, generator=torch.Generator().manual_seed(0)), 24)
    np.save("short.npy", np.full((3, 16, 24), 2, np.float32))
    return tmp_path


@pytest.mark.parametrize(("unit", "nearest"), [("mm", 1), ("m", 1000), ("levels", 1000 / 65535)])
def test_sixteen_bits_come_in_the_unit_that_is_named(folder, capsys, unit, nearest):
    words = ["geometry", "photo.png", "g.safetensors", "--depth", "mm.png", "--scale", "as_is", "--unit", unit]
    assert not main(words)
    assert float(load_geometry("g.safetensors").depth.min()) == pytest.approx(nearest, rel=1e-5)
    assert "16-bit levels" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.png", "g.st", "--depth", "mm.png", "--meaning", "near-far", "--unit", "mm"], "no lengths in mm"),
        (["photo.png", "g.st", "--depth", "mm.png", "--meaning", "disparity", "--unit", "m"], "has no unit m"),
        (["clip.mp4", "g.st", "--depth", "short.npy"], "short.npy: 3 depth pictures for 4 frames of clip.mp4"),
        (["clip.mp4", "g.st", "--depth", "short.npy", "--start", "9"], "clip.mp4: holds no frame 9; it has 4"),
        (["photo.png", "g.st", "--depth", "."], "holds numbered files, such as 00000.exr"),
    ],
)
def test_what_does_not_fit_is_one_sentence(folder, capsys, words, message):
    assert main(["geometry", *words]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in told and not (folder / "g.st").exists()


@pytest.mark.parametrize(("unit", "median"), [("mm", 2.5), (None, 1 / (2500 / 65535 * 0.8 + 0.2))])
def test_the_demo_reads_grey_pictures_as_levels_unless_they_have_a_unit(folder, capsys, unit, median):
    options = argparse.Namespace(
        image=folder / "photo.png", depth=folder / "mm.png", meaning=None, near=1.0, far=5.0, fov=40.0, unit=unit
    )
    assert own_picture(options).scale == pytest.approx(median, rel=0.01)
    assert ("read as depth" if unit else "read as near-far") in capsys.readouterr().out

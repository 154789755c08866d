"""The main job with tiny models in place of the shipped ones."""

import json

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra import demo
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.files.media.images import load_image
from lyra_pack.comfyui_lyra.files.media.video import load_video, save_video
from lyra_pack.comfyui_lyra.files.scenes.sample import shipped_sample
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply
from lyra_pack.comfyui_lyra.weights import shipped
from PIL import Image

CPU = ["--device", "cpu", "--refine", "1"]


@pytest.mark.slow
def test_picture_and_clip_become_scenes_and_again(mini, tmp_path, capsys):
    for _ in range(2):  # the second time over the first one's files
        assert main(["demo", "--out", str(tmp_path / "out"), *CPU]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "\nRefined: " in told and "steps for 3 bullet times in" in told
    out = tmp_path / "out"
    for name in ("scene.ply", "paths.mp4", "contact_sheet.png", "camera_paths.png"):
        assert str(out / "picture" / name) in told
    splats = load_ply(out / "picture" / "scene.ply")
    assert 0 < len(splats) < 6 * 9 * 4 * 6
    frames, fps = load_video(out / "picture" / "paths.mp4")
    assert (tuple(frames.shape), fps) == ((6 * 8, 64, 2 * 96, 3), 12)  # 5 cameras a path, and 3 of them back
    assert load_image(out / "picture" / "contact_sheet.png").std() > 0.05

    moments = json.loads((out / "clip" / "splats" / "manifest.json").read_text())["frames"]
    assert [moment["time"] for moment in moments] == [0, 4, 8]
    frames, _ = load_video(out / "clip" / "bullet_times.mp4")
    assert tuple(frames.shape) == (3 * 5, 64, 2 * 96, 3)
    rows = load_image(out / "clip" / "contact_sheet.png").shape[0] // (64 + 26)
    assert rows == 1 + 3 * 2


@pytest.mark.slow
def test_a_picture_of_one_s_own_is_turned_laid_on_white_and_cropped(mini, tmp_path, capsys):
    image = Image.new("RGBA", (60, 90), (200, 30, 30, 128))
    image.getexif()[0x0112] = 6  # to be turned by a quarter: 90 x 60
    image.save(tmp_path / "my photo.png", exif=image.getexif())
    Image.fromarray(np.linspace(255, 0, 30, dtype=np.uint8)[:, None].repeat(45, 1)).save(tmp_path / "depth.png")
    words = ["demo", "--out", str(tmp_path / "out"), "--image", str(tmp_path / "my photo.png"), *CPU]
    assert main([*words, "--depth", str(tmp_path / "depth.png")]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "read as near-far: white is near, black 5 times as far" in told
    assert "The result will be rough" in told
    assert len(load_ply(tmp_path / "out" / "my-photo" / "scene.ply")) > 0
    assert not (tmp_path / "out" / "clip").exists()


def test_a_clip_of_one_s_own_lies_beside_its_splats_whatever_its_size(mini, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "draw", lambda splats, path, on_step: torch.zeros(len(path), 64, 96, 3))  # takes longest
    save_video(tmp_path / "own.mp4", torch.rand(9, 60, 90, 3), 12)
    np.savez(tmp_path / "depth.npz", depth=np.full((9, 60, 90), 2.0, np.float32))
    words = [
        "demo",
        "--out",
        str(tmp_path),
        "--image",
        str(tmp_path / "own.mp4"),
        "--depth",
        str(tmp_path / "depth.npz"),
    ]
    assert main([*words, "--device", "cpu", "--refine", "0"]) == 0, capsys.readouterr().err
    frames, _ = load_video(tmp_path / "own" / "bullet_times.mp4")
    assert tuple(frames.shape) == (3 * 5, 64, 2 * 96, 3)


def test_refining_suits_the_device_and_may_be_left_out(mini, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(demo, "clip_scene", lambda *_: None)
    monkeypatch.setattr(demo, "refine", lambda *_, settings, **__: asked.append(settings) or exit("far enough"))
    demo.run(tmp_path, torch.device("cpu"), lambda label: lambda *_: None, print, refining=0.0)
    assert asked == [] and "Refined" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="far enough"):
        demo.run(tmp_path, torch.device("cpu"), lambda label: lambda *_: None, print)
    assert asked[0].seconds == 40
    with pytest.raises(SystemExit):
        main(["demo", "--refine", "-1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "photo.jpg"], "--image needs its depth too"),
        (["--depth", "depth.exr"], "name it with --image"),
        ([], "mini_teacher.safetensors is not there"),
    ],
)
def test_what_is_missing_is_said(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "MINI", tmp_path)
    assert main(["demo", "--out", str(tmp_path), *words, *CPU]) == 1
    assert message in capsys.readouterr().err


def test_the_shipped_samples_fit_the_mini_models():
    if not shipped.MINI.is_dir():
        pytest.skip("no mini models yet")
    for kind, frames in (("picture", 1), ("clip", 17)):
        geometry = shipped_sample(kind)
        assert geometry.frames.shape == (frames, 96, 160, 3)
        assert geometry.center_depth == pytest.approx(1, abs=0.1)
        assert torch.equal(geometry.valid, geometry.depth.isfinite())

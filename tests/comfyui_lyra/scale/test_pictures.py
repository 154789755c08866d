"""A folder of pictures becomes splats and a page; what was made is not made again, and what cannot be is told."""

import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra import demo
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.files.media.images import save_image
from lyra_pack.comfyui_lyra.files.scenes.geometry import load_geometry
from lyra_pack.comfyui_lyra.files.scenes.sample import save_sample
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply
from lyra_pack.comfyui_lyra.gen3c.modes import MODES
from lyra_pack.comfyui_lyra.scale.pictures import NOT_HOW, PicturesJob, find_pictures
from lyra_pack.comfyui_lyra.versions import RESULTS


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ("a.jpg a.exr b.jpg b.png c.png", {"a": ("a.jpg", "a.exr"), "b": ("b.jpg", "b.png"), "c": ("c.png", None)}),
        ("a.jpg a_depth.png a.npz", {"a": ("a.jpg", "a_depth.png")}),
        ("a.mp4 a_depth.mp4 notes.txt .a.jpg", {"a": ("a.mp4", "a_depth.mp4")}),
        ("A.JPG a b.webp", {"A": ("A.JPG", None), "b": ("b.webp", None)}),
    ],
)
def test_depth_is_found_beside_its_picture(files, found, tmp_path):
    for name in files.split():
        (tmp_path / name).touch()
    seen = {item.name: (item.picture.name, item.depth and item.depth.name) for item in find_pictures(tmp_path)}
    assert seen == found


def test_a_folder_of_frames_is_the_depth_of_a_clip(tmp_path):
    (tmp_path / "walk.mp4").touch()
    (tmp_path / "walk_depth").mkdir()
    (item,) = find_pictures(tmp_path)
    assert item.depth == tmp_path / "walk_depth"


def test_two_pictures_of_one_name_are_refused(tmp_path):
    for name in ("a.jpg", "a.webp"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"a\.jpg and a\.webp have one name"):
        find_pictures(tmp_path)


@pytest.fixture
def photos(tmp_path, picture, clip):
    """A picture and a clip with depth, and a picture without."""
    folder = tmp_path / "photos"
    save_sample(folder, picture)
    save_sample(folder, clip)
    save_image(folder / "alone & far.png", picture.frames[0])
    return folder


def batch(photos, *more) -> int:
    return main(["batch", str(photos), str(photos.with_name("out")), "--device", "cpu", "--steps", "2", *more])


@pytest.mark.slow
def test_a_folder_becomes_splats_and_a_page(photos, mini, capsys):
    out = photos.with_name("out")
    assert batch(photos, "--refine", "0.1", "--shard", "0/2") == 1  # two of three
    said = capsys.readouterr().out
    assert "alone-far could not be made: ValueError: alone & far.png: no depth beside it" in said
    assert batch(photos, "--refine", "0.1", "--format", "html") == 1
    assert len(load_ply(out / "picture.ply")) == json.loads((out / "picture.json").read_text())["splats"][0] > 0
    assert len(json.loads((out / "clip" / "manifest.json").read_text())["frames"]) == 3
    page = (out / "index.html").read_text()
    for link in re.findall(r'(?:href|src)="([^"]+)"', page):
        assert (out / link).is_file(), link
    assert page.count("<figure>") == page.count('.html">html<') == 2
    assert (photos.with_name("out.lyra") / "failed" / "alone-far.txt").is_file()

    before = (out / "picture.ply").stat().st_mtime_ns
    capsys.readouterr()
    assert batch(photos, "--refine", "0.1", "--missing") == 1 and capsys.readouterr().out == "alone-far\n"
    os.utime(photos / "picture.png", ns=(1, 1))
    assert batch(photos, "--refine", "0.1", "--missing") == 1
    assert capsys.readouterr().out == "alone-far\npicture\n"
    assert batch(photos, "--refine", "0.1") == 1
    assert (out / "picture.ply").stat().st_mtime_ns > before
    assert (out / "clip.html").is_file() and not (out / "picture.html").exists()  # it showed the splats before


def test_a_mode_counts_by_what_it_decides_and_without_one_keys_are_as_they_were(photos):
    job, item = PicturesJob(folder=str(photos), out="out", steps=2), find_pictures(photos)[0]
    before = {name: value for name, value in asdict(job).items() if name not in (*NOT_HOW, "mode")}
    assert job.key(item) == item.key(before | {"results": RESULTS})
    keys = {mode: replace(job, mode=mode).key(item) for mode in MODES}
    assert len(set(keys.values())) == len(MODES) and keys["as set"] == job.key(item)
    assert replace(job, mode="fast", steps=3, guidance=2.0).key(item) == keys["fast"]
    assert replace(job, mode="fast", fov=40.0).key(item) != keys["fast"]


@pytest.mark.slow
def test_splats_are_made_in_a_mode_and_their_record_tells_how(photos, mini, capsys):
    (photos / "alone & far.png").unlink()
    for name in ("clip.mp4", "clip_depth.npz"):
        (photos / name).unlink()
    assert batch(photos, "--refine", "0", "--mode", "fast") == 0
    told = "10 steps of dpmpp_2m; no guidance; step cache 0.1; attention auto"
    assert told in capsys.readouterr().out
    assert json.loads((photos.with_name("out") / "picture.json").read_text())["filmed"] == told
    assert batch(photos, "--refine", "0", "--mode", "fast", "--missing") == 0
    for other in ((), ("--mode", "balanced")):
        assert batch(photos, "--refine", "0", "--missing", *other) == 1 and capsys.readouterr().out == "picture\n"


@pytest.fixture
def guess(tmp_path) -> Path:
    """A folder of all weights with a tiny Depth Anything in it."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=8,
    )  # fmt: skip
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path / "weights" / "depth_anything" / "v2_small")
    return tmp_path / "weights"


@pytest.mark.slow
def test_depth_is_guessed_where_there_is_none_once_the_licence_is_accepted(photos, mini, guess, capsys):
    words = ["--depth", "auto", "--refine", "0", "--weights"]
    assert batch(photos, *words, str(guess.with_name("none"))) == 1
    told = capsys.readouterr().err
    assert "Apache License 2.0" in told and "--accept-licence" in told and not guess.with_name("none").exists()
    for name in ("clip.mp4", "clip_depth.npz", "picture.png", "picture_depth.npz"):
        (photos / name).unlink()
    assert batch(photos, *words, str(guess)) == 0
    assert len(load_ply(photos.with_name("out") / "alone-far.ply")) > 0


def test_geometry_and_demo_guess_depth_as_batch_does(photos, guess, capsys, monkeypatch):
    picture, scene, shown = photos / "alone & far.png", photos.with_name("scene.safetensors"), []
    calls = ["geometry", str(picture), str(scene), "--fov", "41"], ["demo", "--image", str(picture), "--fov", "41"]
    monkeypatch.setattr(demo, "run", lambda *given: shown.append(given[4]))  # the picture's geometry
    for call in calls:
        words = [*call, "--depth", "auto", "--device", "cpu", "--weights"]
        assert main([*words, str(guess.with_name("none"))]) == 1
        assert "--depth auto needs" in (told := capsys.readouterr().err) and "--accept-licence" in told
        assert main([*words, str(guess)]) == 0
    depth = load_geometry(scene).depth
    assert depth.isfinite().all() and depth.std() > 0 and torch.equal(shown[0].depth, depth)

import gzip
import io
import zipfile
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.files.cameras.load import save_cameras
from lyra_pack.comfyui_lyra.files.scenes.geometry import save_geometry
from lyra_pack.comfyui_lyra.files.scenes.latents import save_latents
from lyra_pack.comfyui_lyra.files.scenes.sample import save_sample
from lyra_pack.comfyui_lyra.files.scenes.scene import save_scene
from lyra_pack.comfyui_lyra.files.splats.ply import save_ply
from lyra_pack.comfyui_lyra.files.splats.sequence import save_sequence
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.released.sniff import sniff
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene
from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture
def scene(two_moves):
    """Latents of two paths; what they stand for does not matter."""
    values = torch.zeros(2, 16, 2, two_moves[0].height // 8, two_moves[0].width // 8)
    latents = VideoLatents(values=values)
    return MultiViewLatents(latents=latents, cameras=two_moves, family="small", dynamic=False, provenance={"from": "a"})


def told(path, capsys) -> str:
    capsys.readouterr()
    assert main(["info", str(path)]) == 0
    return capsys.readouterr().out


def test_our_own_files_are_known_whatever_their_ending(tmp_path, picture, clip, scene, capsys):
    save_geometry(tmp_path / "one.SAFETENSORS", picture)
    save_geometry(tmp_path / "clip.safetensors", clip)
    save_latents(tmp_path / "latents.bin", scene)
    assert "a geometry of this pack: a picture of 48x32 with depth and cameras, depth divided by 2.5" in told(
        tmp_path / "one.SAFETENSORS", capsys
    )
    assert "a clip of 9 frames of 48x32" in told(tmp_path / "clip.safetensors", capsys)
    names = ", ".join(path.name for path in scene.cameras)
    assert f"latents of this pack: 2 views of 16x2x4x6 along the paths {names}" in told(
        tmp_path / "latents.bin", capsys
    )


def test_a_damaged_file_of_ours_is_said_to_be_one(tmp_path):
    save_file({"frames": torch.zeros(1)}, tmp_path / "bad.safetensors", {"format": "lyra-geometry"})
    assert "a damaged lyra-geometry file of this pack: no 'depth'" in sniff(tmp_path / "bad.safetensors").text


def test_folders_are_known_by_what_lies_in_them(tmp_path, picture, scene, capsys):
    splats = demo_scene()[::50]
    save_sequence(tmp_path / "moments", GaussianSequence(frames=(splats, splats), times=(0, 8)), scene.cameras)
    save_scene(tmp_path / "made", "night", scene)
    save_cameras(tmp_path / "colmap", scene.cameras, kind="colmap")
    save_cameras(tmp_path / "paths" / "transforms.json", scene.cameras)
    save_sample(tmp_path / "sample", picture)
    save_ply(tmp_path / "plys" / "a.ply", splats)
    (tmp_path / "none").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step-00000100.json").write_text("{}")
    expected = {
        "moments": ("sequence", "a splat sequence of this pack: 2 PLY files"),
        "made": ("generated", "generated paths in the reference's layout: 2 views of 1 clip (night.npz)"),
        "made.lyra": ("manifest", "1 manifest (night.json)"),
        "made/0": ("view", "(night.npz)"),
        "colmap": ("cameras", "a COLMAP model"),
        "paths": ("cameras", "a folder of cameras (transforms.json)"),
        "sample": ("sample", "1 sample with its depth (picture_depth.npz)"),
        "plys": ("splats", "1 PLY file (a.ply)"),
        "none": ("folder", "an empty folder"),
        "run": ("training", "1 checkpoint (step-00000100.json)"),
    }
    for name, (kind, words) in expected.items():
        facts = sniff(tmp_path / name)
        assert (facts.kind, words in facts.text) == (kind, True), facts
    for name in ("colmap", "paths"):
        assert f"{scene.cameras[1].name}: 9 cameras of 48x32" in told(tmp_path / name, capsys)


def test_other_files_are_named_by_content(tmp_path, capsys):
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "GIF")
    sog = io.BytesIO()
    with zipfile.ZipFile(sog, "w") as archive:
        archive.writestr("meta.json", "{}")
        archive.writestr("means_l.webp", "")
    files = {
        "anim.GIF": (picture.getvalue(), "is a GIF"),
        "clip.mts": (b"".join(bytes(4) + b"\x47" + bytes(187) for _ in range(9)), "is a video"),
        "clip.ts": (b"".join(b"\x47" + bytes(187) for _ in range(9)), "is a video"),
        "photo.heic": (bytes(4) + b"ftypheic" + bytes(40), "is a picture"),
        "scene.splat": (b"\1" * 64, "splats as antimatter15's .splat"),
        "scene.SPZ": (b"\1" * 64, "splats as Niantic's SPZ"),
        "renamed.bin": (gzip.compress(b"NGSP" + bytes(20)), "splats as Niantic's SPZ"),
        "scene.sog": (sog.getvalue(), "splats as PlayCanvas' SOG"),
        "renamed.zip": (sog.getvalue(), "splats as PlayCanvas' SOG"),
        "archive.gz": (gzip.compress(b"words"), "a gzip archive"),
    }
    for name, (data, words) in files.items():
        (tmp_path / name).write_bytes(data)
        assert words in sniff(tmp_path / name).text, name
        if "splats" not in words:
            assert words in told(tmp_path / name, capsys), name


def test_endings_may_be_upper_case(tmp_path, two_moves, capsys):
    save_ply(tmp_path / "SCENE.PLY", demo_scene()[::50])
    assert " splats, harmonics" in told(tmp_path / "SCENE.PLY", capsys)
    assert main(["convert", str(tmp_path / "SCENE.PLY"), str(tmp_path / "OUT.PLY")]) == 0
    save_cameras(tmp_path / "PATHS.JSON", [replace(two_moves[0], name="one")])
    assert "one: 9 cameras" in told(tmp_path / "PATHS.JSON", capsys)
    assert main(["convert", str(tmp_path / "PATHS.JSON"), str(tmp_path / "TRANSFORMS.JSON")]) == 0
    assert (tmp_path / "TRANSFORMS.JSON").read_text().startswith('{"camera_model"')


def test_other_splats_are_read_or_refused_where_they_should_be(tmp_path, capsys):
    (tmp_path / "scene.splat").write_bytes(b"\1" * 64)
    assert " splats, harmonics to band 0" in told(tmp_path / "scene.splat", capsys)
    assert main(["convert", str(tmp_path / "scene.splat"), str(tmp_path / "out.ply")]) == 0
    (tmp_path / "scene.ksplat").write_bytes(b"\1" * 64)
    assert "splats as mkkellogg's .ksplat; open it in SuperSplat" in told(tmp_path / "scene.ksplat", capsys)
    for out in ("out.ply", "out.json"):
        assert main(["convert", str(tmp_path / "scene.ksplat"), str(tmp_path / out)]) == 1
    assert "splats are written as .ply" in capsys.readouterr().err

"""The shell verbs, called as the shell calls them."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.cli.scene import metres_told
from lyra_pack.comfyui_lyra.cli.verbs import usable_device
from lyra_pack.comfyui_lyra.files.cameras.load import load_cameras, save_cameras
from lyra_pack.comfyui_lyra.files.cameras.lyra_json import save_cameras_json
from lyra_pack.comfyui_lyra.files.media.images import load_image, save_image
from lyra_pack.comfyui_lyra.files.media.video import load_video, save_video
from lyra_pack.comfyui_lyra.files.scenes.geometry import load_geometry, save_geometry
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg
from lyra_pack.comfyui_lyra.files.splats.formats import WRITTEN
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply, save_ply
from lyra_pack.comfyui_lyra.gen3c.load import save_teacher
from lyra_pack.comfyui_lyra.recon.load import save_recon
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene
from lyra_pack.comfyui_lyra.tokenizer.model import save_tokenizer

VIPE = Path(__file__).parents[1] / "data" / "goldens" / "teacher" / "vipe_sample"
SMALL = ["--frames", "4", "--width", "48", "--height", "32"]


@pytest.fixture
def scene(tmp_path):
    save_ply(tmp_path / "scene.ply", demo_scene()[::10])
    return tmp_path / "scene.ply"


def test_path_writes_cameras_and_their_picture(tmp_path, capsys):
    cameras, picture = tmp_path / "paths.json", tmp_path / "paths.png"
    assert main(["path", str(cameras), "--picture", str(picture), *SMALL]) == 0
    paths = load_cameras(cameras)
    assert [path.name for path in paths] == ["left", "right", "up", "zoom_out", "zoom_in", "clockwise"]
    assert {(len(path), path.width, path.height) for path in paths} == {(4, 48, 32)}
    assert load_image(picture).std() > 0.02
    assert "6 paths of 4 cameras" in capsys.readouterr().out


def test_render_writes_one_video_a_path(tmp_path, scene):
    assert main(["render", str(scene), str(tmp_path), "--preset", "left", "--every", "2", *SMALL]) == 0
    frames, fps = load_video(tmp_path / "left.mp4")
    assert (tuple(frames.shape), fps) == ((2, 32, 48, 3), 12)
    assert frames.std() > 0.05


def test_convert_rewrites_splats_and_cameras(tmp_path, scene):
    out = tmp_path / "twice.ply"
    assert main(["convert", str(scene), str(out), "--scale", "2"]) == 0
    assert torch.allclose(load_ply(out).means, 2 * load_ply(scene).means)
    main(["path", str(tmp_path / "paths.json"), "--preset", "up", *SMALL])
    assert main(["convert", str(tmp_path / "paths.json"), str(tmp_path / "transforms.json")]) == 0
    (path,) = load_cameras(tmp_path / "transforms.json")
    assert torch.allclose(path.c2w, load_cameras(tmp_path / "paths.json")[0].c2w, atol=1e-6)


@pytest.mark.parametrize("kind", ["json", "transforms", "colmap", "npz"])
def test_cameras_convert_to_any_format_by_its_name(tmp_path, kind):
    main(["path", str(tmp_path / "paths.json"), "--preset", "up", *SMALL])
    save_video(tmp_path / "cameras" / "0" / "rgb" / "clip.mp4", torch.zeros(4, 32, 48, 3), fps=24)  # npz lack the size
    out = tmp_path / "cameras" / ("" if kind in ("colmap", "npz") else f"{kind}.json")
    assert main(["convert", str(tmp_path / "paths.json"), str(out), "--format", kind]) == 0
    (found,), (path,) = load_cameras(out), load_cameras(tmp_path / "paths.json")
    assert torch.allclose(found.c2w, path.c2w, atol=1e-6)
    assert torch.allclose(found.K, path.K)


def convert(*words: object) -> int:
    return main(["convert", *map(str, words)])


@pytest.mark.parametrize("name", WRITTEN)
def test_convert_writes_every_form_of_splats(tmp_path, scene, name, capsys):
    pytest.importorskip({"gaussforge": "gaussforge", "usd-core": "pxr"}.get(WRITTEN[name].needs, "torch"))
    given = load_ply(scene)
    assert convert(scene, tmp_path / f"out.{name}", "--scale", "2") == 0
    assert f"{len(given)} splats as {WRITTEN[name].title}: " in capsys.readouterr().out
    if WRITTEN[name].reads:
        assert convert(tmp_path / f"out.{name}", tmp_path / "back.ply") == 0
        back = load_ply(tmp_path / "back.ply")
        assert len(back) == len(given)
        assert torch.allclose(back.means.mean(0), 2 * given.means.mean(0), atol=1e-3)
        capsys.readouterr()
        assert main(["info", str(tmp_path / f"out.{name}")]) == 0
        assert f"{len(given)} splats, harmonics to band 0" in capsys.readouterr().out


def test_metres_come_from_the_cameras_beside_or_are_said(tmp_path, scene, capsys):
    assert convert(scene, tmp_path / "out.usda", "--metres") == 1
    assert "say it yourself, such as --metres 2.5" in capsys.readouterr().err
    assert convert(scene, tmp_path / "out.ply", "--metres", "3") == 0
    assert torch.allclose(load_ply(tmp_path / "out.ply").means, 3 * load_ply(scene).means)
    save_cameras_json(tmp_path / "cameras.json", [pinhole_camera(48, 32, 50)], 2.5)
    assert convert(scene, tmp_path / "units.usda") == 0
    assert convert(scene, tmp_path / "metres.usda", "--metres", "--up", "z_up") == 0
    units, metres = ((tmp_path / f"{name}.usda").read_text() for name in ("units", "metres"))
    assert "metersPerUnit = 2.5" in units and 'upAxis = "Y"' in units
    assert "metersPerUnit = 1.0" in metres and 'upAxis = "Z"' in metres
    assert convert(scene, tmp_path / "metres.ply", "--metres") == 0
    assert torch.allclose(load_ply(tmp_path / "metres.ply").means, 2.5 * load_ply(scene).means)
    assert convert(tmp_path / "metres.ply", tmp_path / "again.usda", "--scale", "2") == 0
    assert "metersPerUnit = 0.5" in (tmp_path / "again.usda").read_text()  # its comment says metres, before the scale


def test_a_folder_of_moments_becomes_one_file_or_another_folder(tmp_path, capsys):
    for time in (0, 8):
        save_ply(tmp_path / "in" / f"splats_{time:04}.ply", demo_scene()[:: 100 + time])
    assert convert(tmp_path / "in", tmp_path / "out.usda") == 0
    assert "2 moments" in capsys.readouterr().out
    assert "endTimeCode = 8" in (tmp_path / "out.usda").read_text()
    assert convert(tmp_path / "in", tmp_path / "out.html") == 0
    assert (tmp_path / "out.html").read_bytes().count(b'id="moment-') == 2
    assert convert(tmp_path / "in", tmp_path / "folder", "--format", "glb") == 0
    assert sorted(file.name for file in (tmp_path / "folder").iterdir()) == ["00000.glb", "00001.glb", "manifest.json"]
    assert convert(tmp_path / "in", tmp_path / "out.glb") == 1
    assert "holds one moment; write a folder of numbered files" in capsys.readouterr().err
    save_cameras_json(tmp_path / "in" / "cameras.json", [pinhole_camera(48, 32, 50)])  # as 'lyra reconstruct' has it
    assert convert(tmp_path / "in", tmp_path / "cameras.json") == 0
    assert len(load_cameras(tmp_path / "cameras.json")) == 1
    assert convert(tmp_path / "in", tmp_path / "out.html") == 0
    assert re.search('"name": ?"camera"', (tmp_path / "out.html").read_text(encoding="utf-8"))


def test_info_describes_splats_cameras_and_this_machine(tmp_path, scene, capsys):
    main(["path", str(tmp_path / "paths.json"), "--preset", "up", *SMALL])
    capsys.readouterr()
    assert [main(["info", *words]) for words in ([str(scene)], [str(tmp_path / "paths.json")], [])] == [0, 0, 0]
    told = capsys.readouterr().out
    assert f"{len(demo_scene()[::10])} splats" in told
    assert "up: 4 cameras of 48x32 at 24 fps" in told
    assert "rasterize: torch ready; gsplat" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "nowhere.ply"], "nowhere.ply"),
        (["render", "SCENE", "OUT", "--backend", "quick", *SMALL], "unknown backend 'quick'"),
        (["render", "SCENE", "OUT", "--frames", "0"], "at least one frame"),
        (["path", "OUT/paths.json", "--fov", "200"], "200.0 degrees"),
        (["path", "OUT/paths", *SMALL], "unknown camera format; use a .json name, or say json, transforms, colmap or"),
        (["convert", "SCENE", "OUT/scene.splat"], "scene.splat: splats are written as .ply, .spz"),
        (
            ["convert", "SCENE", "OUT/scene.spz", "--up", "z_up"],
            "Niantic's SPZ is y_up, not z_up; ply, usda, usdc",
        ),
        (["render", "SCENE", "OUT", "--every", "0", *SMALL], "every 0 frames"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_status_1(words, message, tmp_path, scene, capsys):
    words = [word.replace("SCENE", str(scene)).replace("OUT", str(tmp_path)) for word in words]
    assert main(words) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"lyra {words[0]}: ")
    assert message in told


def test_a_path_s_name_never_leads_out_of_the_folder(tmp_path, scene, capsys):
    main(["path", str(tmp_path / "paths.json"), "--preset", "up", *SMALL])
    (path,) = load_cameras(tmp_path / "paths.json")
    save_cameras(tmp_path / "paths.json", [replace(path, name="up/../../up")])
    assert main(["render", str(scene), str(tmp_path / "out"), "--cameras", str(tmp_path / "paths.json")]) == 1
    assert "camera path 'up/../../up': names become file names" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.mp4"))


def test_relative_depth_tells_no_metres():
    assert metres_told({"scale": "2.5"}) == 2.5
    assert metres_told({"scale": "2.5", "metric": "0"}) is None and metres_told({}) is None


def test_a_device_that_is_not_there_is_named(tmp_path, scene, capsys):
    with pytest.raises(SystemExit):
        main(["render", str(scene), str(tmp_path), "--device", "abacus"])
    assert "argument --device: 'abacus' cannot be used here" in capsys.readouterr().err


def test_a_card_that_is_named_is_the_current_one(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    names = ("cuda:1", "cuda", "cpu")
    assert [usable_device(name) for name in names] == [torch.device(name) for name in names]
    assert chosen == [torch.device("cuda:1")]


@pytest.fixture
def models(tmp_path, small_teacher, small_tokenizer, small_recon):
    """Files of a family of tiny models."""
    save_teacher(small_teacher, tmp_path / "teacher.safetensors")
    save_tokenizer(small_tokenizer, tmp_path / "tokenizer.safetensors")
    save_recon(small_recon, tmp_path / "recon.safetensors")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("source", ["picture", "clip"])
def test_a_picture_or_clip_becomes_splats_verb_by_verb(source, models, picture, capsys, monkeypatch):
    save_image(models / "picture.png", picture.frames[0])
    np.save(models / "depth.npy", picture.depth[0].clamp(max=50).numpy())
    monkeypatch.chdir(models)
    sources = {"picture": ["picture.png", "--depth", "depth.npy", "--fov", "50"], "clip": [str(VIPE), "--frames", "9"]}
    precise = ["--dtype", "float32", "--tokenizer", "tokenizer.safetensors"]
    generate = [
        "generate",
        "scene.safetensors",
        "latents",
        "--teacher",
        "teacher.safetensors",
        *precise,
        "--steps",
        "2",
    ]
    steps = (
        ["geometry", *sources[source], "scene.safetensors"],
        generate,
        ["decode", "latents", "view.mp4", *precise, "--view", "5"],
        ["reconstruct", "latents", "splats", "--recon", "recon.safetensors", *precise, "--times", "0,4"],
        ["render", "splats/splats_0004.ply", "frames", "--cameras", "splats/cameras.json"],
    )
    for words in steps:
        assert main(words) == 0, capsys.readouterr().err
    assert len(load_video(models / "view.mp4")[0]) == 9
    scale = load_geometry("scene.safetensors").scale
    assert json.loads(Path("splats/cameras.json").read_text())["metres_per_unit"] == scale
    for name, *words in (("films", "--every", "4"), ("drawn", "--splats", "splats/splats_0000.ply", "--metres")):
        given = ["dataset", "latents", name, "--geometry", "scene.safetensors", "--points", "50", *precise, *words]
        assert main(given) == 0, capsys.readouterr().err
        assert len(Path(name, "sparse", "0", "points3D.txt").read_text().splitlines()) == 51
    films, drawn = (load_cameras(models / name)[5] for name in ("films", "drawn"))
    assert (len(films), len(drawn)) == (3, 9)
    torch.testing.assert_close(drawn[::4].c2w[:, :3, 3], scale * films.c2w[:, :3, 3], atol=1e-4, rtol=0)
    made = ["cameras.json", "splats_0000.ply", "splats_0004.ply"]
    assert sorted(path.name for path in (models / "splats").iterdir()) == made
    assert load_video(models / "frames" / "left.mp4")[0].shape == (9, 32, 48, 3)
    finished, videos = load_sdg(models / "latents"), sorted((models / "latents").rglob("*.mp4"))
    seen = [file.read_bytes() for file in videos]
    for file in (models / "latents" / "3").rglob("scene.*"):
        file.unlink()  # as a run that was stopped leaves it
    assert main([*generate, "--memory", "stream"]) == 0, capsys.readouterr().err
    assert "the teacher's weights stay in RAM" in capsys.readouterr().out
    assert torch.equal(load_sdg(models / "latents").latents.values, finished.latents.values)
    assert [file.read_bytes() for file in videos] == seen


@pytest.mark.slow
def test_without_other_words_the_shipped_models_do_it(mini, tmp_path, clip, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_geometry("scene.safetensors", clip)
    for words in (
        ["generate", "scene.safetensors", "latents", "--steps", "2", "--preset", "left", "--dtype", "float32"],
        ["decode", "latents", "view.mp4", "--dtype", "float32"],
        ["reconstruct", "latents", "splats", "--times", "0,4", "--dtype", "float32"],
        [
            "reconstruct",
            "latents",
            "sharp",
            "--times",
            "0,4",
            "--dtype",
            "float32",
            "--refine",
            "1",
            "--geometry",
            "scene.safetensors",
            "--device",
            "cpu",
        ],
    ):
        assert main(words) == 0, capsys.readouterr().err
    assert len(load_video("view.mp4")[0]) == 9
    assert len(list(Path("splats").glob("*.ply"))) == 2  # by the dynamic one: the source is a clip
    assert len(list(Path("sharp").glob("*.ply"))) == 2 and "steps for 2 bullet times" in capsys.readouterr().out


def test_info_tells_of_the_shipped_models_and_of_weights(mini, capsys):
    assert [main(["info"]), main(["info", str(mini / "mini_teacher.safetensors")])] == [0, 0]
    *_, teacher, tokenizer, what, whose, count = capsys.readouterr().out.splitlines()
    assert "weights of family 'small', for pictures of 48x32" in teacher
    assert "mini_tokenizer.safetensors: 0." in tokenizer
    assert what == "mini_teacher.safetensors is a safetensors file with the teacher (Load Teacher)"
    assert whose == "of family 'small', for pictures of 48x32" and "tensors (float32 0.1 million)" in count


def test_weights_convert_with_their_hash(models, capsys):
    assert main(["convert-weights", str(models / "recon.safetensors"), str(models / "again.safetensors")]) == 0
    written = (models / "again.safetensors").read_bytes()
    assert sha256(written).hexdigest() in capsys.readouterr().out


def test_plan_tells_each_stage_beforehand(capsys):
    assert main(["plan", "--dtype", "float32"]) == 0
    told = capsys.readouterr().out
    assert all(stage in told for stage in ("generate latents", "encode cameras", "reconstruct splats"))
    assert main(["plan", "--dtype", "float32", "--guidance", "0"]) == 0
    guided, alone = (
        float(text.split(" TFLOP")[0].rpartition(" ")[2].replace(",", "")) for text in (told, capsys.readouterr().out)
    )
    assert alone == pytest.approx(guided / 2, rel=0.01)


def test_nothing_is_fetched_before_the_licence_is_accepted(tmp_path, capsys):
    assert main(["fetch", "lyra", str(tmp_path)]) == 1
    assert "NVIDIA Open Model License" in capsys.readouterr().err


STARTED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lyra_pack", sys.argv[1])
sys.modules["lyra_pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
from lyra_pack.comfyui_lyra.cli import parser
parser()
print([name for name in ("diffusers", "transformers", "accelerate", "ray", "pxr") if name in sys.modules])
"""


def test_the_shell_starts_without_what_only_some_verbs_need():
    pack = Path(__file__).resolve().parents[2] / "__init__.py"
    started = subprocess.run([sys.executable, "-c", STARTED, str(pack)], capture_output=True, text=True, check=True)
    assert started.stdout.strip() == "[]"

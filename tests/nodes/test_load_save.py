import json
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch

pytest.importorskip("comfy_api")

from comfy_api.latest import Types  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.files.cameras.load import save_cameras  # noqa: E402
from lyra_pack.comfyui_lyra.files.splats.formats import WRITTEN  # noqa: E402
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply, save_ply  # noqa: E402
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry  # noqa: E402
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets  # noqa: E402
from lyra_pack.nodes.splats.load import DEMO, LoadCameraPaths, LoadSplats  # noqa: E402
from lyra_pack.nodes.splats.save import FILES, SHOWN, SaveCameraPaths, SaveSplats  # noqa: E402
from lyra_pack.nodes.splats.save_sequence import SaveSplatSequence  # noqa: E402


@pytest.fixture
def scene():
    return demo_scene()[::100]


def test_the_demo_scene_needs_no_file(folders):
    (splat,) = LoadSplats.execute(DEMO).args
    assert splat.positions.shape == (1, len(demo_scene()), 3)
    (file,) = (i for i in LoadSplats.define_schema().inputs if i.id == "file")
    assert file.options == [DEMO]


def test_saved_splats_load_again_from_the_folder_and_from_cores_file(folders, scene):
    result = SaveSplats.execute(sockets.to_splat([scene]), "3d/scene", 1.0)
    (file,) = result.args
    assert isinstance(file, Types.File3D) and file.is_disk_backed and file.format == "ply"
    (saved,) = result.ui["3d"]
    assert folders / "output" / saved["subfolder"] / saved["filename"] == folders / "output" / "3d" / "scene_00001_.ply"

    (folders / "input" / "3d").mkdir()
    (folders / "input" / "3d" / "copy.ply").write_bytes(file.get_bytes())
    sources = [{"file": "3d/copy.ply"}, {"file": DEMO, "model_3d": file}]
    sources += [{"file": DEMO, "model_3d": Types.File3D(BytesIO(file.get_bytes()), file_format="ply")}]
    for source in sources:
        (loaded,) = sockets.from_splat(LoadSplats.execute(**source).args[0])
        assert torch.allclose(loaded.means, scene.means)
        assert torch.allclose(loaded.colors, scene.colors, atol=1e-5)


def test_scale_goes_back_to_the_geometrys_unit(folders, scene):
    cameras = pinhole_camera(4, 2, 50)
    frame = torch.ones(1, 2, 4)
    geometry = Geometry(frames=torch.zeros(1, 2, 4, 3), depth=frame, valid=frame.bool(), cameras=cameras, scale=2.5)
    (file,) = SaveSplats.execute(sockets.to_splat([scene]), "scene", 2.0, geometry).args
    saved = load_ply(file.get_source())
    assert torch.allclose(saved.means, scene.means * 5, atol=1e-5)
    assert torch.allclose(saved.scales, scene.scales * 5, atol=1e-5)


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_is_saved_and_those_that_are_read_load_again(folders, scene, name):
    pytest.importorskip({"gaussforge": "gaussforge", "usd-core": "pxr"}.get(WRITTEN[name].needs, "torch"))
    result = SaveSplats.execute(sockets.to_splat([scene]), "3d/scene", 1.0, format=name)
    (file,) = result.args
    assert file.format == name and (result.ui is None) == (name not in SHOWN)
    if WRITTEN[name].reads:
        for source in ({"file": f"3d/scene_00001_.{name}"}, {"file": DEMO, "model_3d": file}):
            (loaded,) = sockets.from_splat(LoadSplats.execute(**source).args[0])
            assert len(loaded) == len(scene)
            assert torch.allclose(loaded.means.mean(0), scene.means.mean(0), atol=1e-3)


@pytest.mark.parametrize(("name", "files"), [("spz", ["00000.spz", "00001.spz"]), ("usda", ["splats.usda"])])
def test_a_sequence_is_saved_as_numbered_files_or_as_one(folders, scene, name, files):
    pytest.importorskip("gaussforge")
    SaveSplatSequence.execute(sockets.to_splat([scene, scene[:50]]), "0, 8", "3d/moments", 2.0, format=name)
    (folder,) = (folders / "output" / "3d").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == sorted([*files, "manifest.json"])
    about = json.loads((folder / "manifest.json").read_text())
    assert [(entry["file"], entry["time"]) for entry in about["frames"]] == [(files[0], 0), (files[-1], 8)]
    assert (about["axes"], about["scale"]) == ("y_up", 2.0)


def test_core_s_readers_see_the_numbers_of_ply_and_spz(folders, scene, monkeypatch):
    pytest.importorskip("gaussforge")
    root = Path(__file__).resolve().parents[2]  # whose folder nodes must not be taken for core's module
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry or ".").resolve() != root])
    from comfy_extras.nodes_gaussian_splat import File3DToSplat

    for name, turn in (("ply", (1, 1, 1)), ("spz", (1, -1, -1))):  # which core's reader does not turn back
        (file,) = SaveSplats.execute(sockets.to_splat([scene]), "3d/scene", 1.0, format=name).args
        (found,) = sockets.from_splat(File3DToSplat.execute(file).args[0])
        torch.testing.assert_close(found.means * torch.tensor(turn), scene.means, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.colors, scene.colors, atol=0.005, rtol=0)


def test_up_and_metres_go_into_the_file(folders, scene):
    frame = torch.ones(1, 2, 4)
    geometry = Geometry(
        frames=torch.zeros(1, 2, 4, 3), depth=frame, valid=frame.bool(), cameras=pinhole_camera(4, 2, 50), scale=2.5
    )
    (file,) = SaveSplats.execute(sockets.to_splat([scene]), "scene", 1.0, geometry, "usda", "z_up").args
    text = Path(file.get_source()).read_text()
    assert 'upAxis = "Z"' in text and "metersPerUnit = 1.0" in text
    for metric in (True, False):  # relative depth says nothing of metres
        known = replace(geometry, metric=metric)
        (file,) = SaveSplats.execute(sockets.to_splat([scene]), "scene", 1.0, known, "ply", "usual").args
        assert (b"metres_per_unit=1.0" in Path(file.get_source()).read_bytes()[:400]) == metric
    with pytest.raises(ValueError, match="Niantic's SPZ is y_up, not z_up"):
        SaveSplats.execute(sockets.to_splat([scene]), "scene", 1.0, None, "spz", "z_up")


def test_what_cannot_be_saved_or_loaded_says_what_to_do(folders, scene):
    with pytest.raises(ValueError, match="2 bullet times .* Save Splat Sequence"):
        SaveSplats.execute(sockets.to_splat([scene, scene]), "scene", 1.0)
    with pytest.raises(ValueError, match="expected splats as .ply, .*, got .ksplat; core's Get Splat reads"):
        LoadSplats.execute(DEMO, Types.File3D(BytesIO(b""), file_format="ksplat"))
    with pytest.raises(FileNotFoundError, match="3d/gone.ply"):
        LoadSplats.execute("3d/gone.ply")


def test_a_changed_file_is_read_again(folders, scene):
    (folders / "input" / "3d").mkdir()
    save_ply(folders / "input" / "3d" / "a.ply", scene)
    before = LoadSplats.fingerprint_inputs("3d/a.ply")
    save_ply(folders / "input" / "3d" / "a.ply", scene[:5])
    assert LoadSplats.fingerprint_inputs("3d/a.ply") != before


def test_camera_files_load_from_the_input_folder(folders):
    paths = camera_paths(pinhole_camera(64, 48, 50), PathSettings("six_paths", frames=3))
    save_cameras(folders / "input" / "six.json", paths)
    (loaded,) = LoadCameraPaths.execute("six.json", 0, 0, "").args
    assert [path.name for path in loaded] == [path.name for path in paths]
    assert torch.allclose(loaded[5].c2w, paths[5].c2w)
    assert LoadCameraPaths.validate_inputs("six.json") is True
    assert "is neither in" in LoadCameraPaths.validate_inputs("seven.json")


@pytest.mark.parametrize("kind", FILES)
def test_saved_camera_paths_load_again(folders, kind):
    paths = camera_paths(pinhole_camera(64, 32, 40), PathSettings("six_paths", frames=5))
    shown = SaveCameraPaths.execute(paths, kind, "3d/run", 2.0).ui["text"][0]
    (folder,) = (folders / "output" / "3d").iterdir()
    assert shown == f"6 paths of 5 cameras: 3d/{folder.name}"
    place = folder / FILES[kind]
    (again,) = LoadCameraPaths.execute(str(place), 64 if kind == "npz" else 0, 32 if kind == "npz" else 0, "").args
    assert len(again) == 6
    by_name = {path.name.split("/")[-1]: path for path in again} if kind != "npz" else dict(enumerate(again))
    for number, path in enumerate(paths):
        found = by_name[number if kind == "npz" else path.name]
        torch.testing.assert_close(found.c2w[:, :3, 3], 2 * path.c2w[:, :3, 3], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.K, path.K)


def test_npz_poses_without_a_video_take_the_size_of_the_widgets(folders):
    paths = camera_paths(pinhole_camera(64, 48, 50), PathSettings("left", frames=3))
    save_cameras(folders / "input" / "poses", paths, kind="npz", clip="shot")
    (loaded,) = LoadCameraPaths.execute("poses", 64, 48, "shot").args
    assert (loaded[0].width, loaded[0].height) == (64, 48)
    assert torch.allclose(loaded[0].K, paths[0].K)


def test_names_as_save_shows_them_load_again(folders, scene):
    shown = SaveSplats.execute(sockets.to_splat([scene]), "3d/scene", 1.0)
    (file,) = (i for i in LoadSplats.define_schema().inputs if i.id == "file")
    assert file.options == [DEMO, "3d/scene_00001_.ply"]
    assert LoadSplats.validate_inputs("3d/scene_00001_.ply") is True
    (loaded,) = sockets.from_splat(LoadSplats.execute("3d/scene_00001_.ply").args[0])
    assert len(loaded) == len(scene) and shown.ui["3d"][0]["filename"] == "scene_00001_.ply"

    paths = camera_paths(pinhole_camera(64, 32, 40), PathSettings("six_paths", frames=5))
    for kind in ("json", "transforms", "colmap"):
        (folder,) = SaveCameraPaths.execute(paths, kind, f"3d/{kind}", 1.0).args
        assert folder == f"3d/{kind}_00001_" and LoadCameraPaths.validate_inputs(folder) is True
        (again,) = LoadCameraPaths.execute(folder, 0, 0, "").args
        assert len(again) == 6


def test_a_name_that_input_and_output_both_have_says_whose_it_is(folders, scene):
    save_ply(folders / "input" / "3d" / "scene_00001_.ply", scene[:5])
    SaveSplats.execute(sockets.to_splat([scene]), "3d/scene", 1.0)
    (file,) = (i for i in LoadSplats.define_schema().inputs if i.id == "file")
    assert file.options == [DEMO, "3d/scene_00001_.ply", "3d/scene_00001_.ply [output]"]
    counts = [len(sockets.from_splat(LoadSplats.execute(name).args[0])[0]) for name in file.options[1:]]
    assert counts == [5, len(scene)]


def test_nothing_is_written_under_an_empty_name(folders, scene):
    paths = camera_paths(pinhole_camera(64, 32, 40), PathSettings("left", frames=3))
    for name in ("", "  "):
        with pytest.raises(ValueError, match="no name is given"):
            SaveSplats.execute(sockets.to_splat([scene]), name, 1.0)
        with pytest.raises(ValueError, match="no name is given"):
            SaveCameraPaths.execute(paths, "json", name, 1.0)
        with pytest.raises(ValueError, match="no name is given"):
            LoadCameraPaths.execute(name, 0, 0, "")
    assert not list((folders / "output").iterdir())

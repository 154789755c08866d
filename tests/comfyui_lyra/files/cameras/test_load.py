import json
from dataclasses import replace

import pytest
from lyra_pack.comfyui_lyra.files.cameras.load import load_cameras, save_cameras


@pytest.mark.parametrize(
    ("place", "kind", "exact"),
    [
        ("set.json", None, True),
        ("set.txt", "json", True),
        ("transforms.json", None, True),
        ("other.json", "transforms", True),
        ("colmap", "colmap", False),
        ("sdg", "npz", True),
    ],
)
def test_each_format_is_recognised(tmp_path, two_paths, same_path, place, kind, exact):
    path = tmp_path / place
    save_cameras(path, two_paths, kind=kind)
    if path.suffix == ".txt":
        path = path.rename(tmp_path / "renamed.json")
    found = load_cameras(path, size=(16, 32) if kind == "npz" else None)
    names = ["0", "1"] if kind == "npz" else ["right", "left"]
    for one, expected, name in zip(found, two_paths, names, strict=True):
        same_path(one, replace(expected, name=name), atol=0 if exact else 2e-6)


def test_a_folder_with_transforms_json_and_a_single_npz_are_read(tmp_path, two_paths, same_path):
    save_cameras(tmp_path / "scene" / "transforms.json", two_paths)
    same_path(load_cameras(tmp_path / "scene")[1], two_paths[1])
    save_cameras(tmp_path / "sdg", two_paths, kind="npz", clip="a.b")
    (found,) = load_cameras(tmp_path / "sdg" / "1" / "pose" / "a.b.npz", size=(16, 32))
    same_path(found, replace(two_paths[1], name="1"))


def test_what_is_not_known_is_one_sentence(tmp_path, two_paths):
    with pytest.raises(FileNotFoundError, match="gone.json: no such file or folder"):
        load_cameras(tmp_path / "gone.json")
    for name in ("scene.abc", "lonely.npz"):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=f"{name}: no camera format we know; expected a JSON path set"):
            load_cameras(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="expected folders <view>/pose"):
        load_cameras(tmp_path)
    (tmp_path / "other.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="expected 'format' 'lyra-cameras', got 'other'"):
        load_cameras(tmp_path / "other.json")
    with pytest.raises(ValueError, match="unknown camera format; use a .json name, or say json"):
        save_cameras(tmp_path / "folder", two_paths)
    with pytest.raises(ValueError, match="no camera paths to save"):
        save_cameras(tmp_path / "set.json", ())

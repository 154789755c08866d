import json

import pytest
import torch
from lyra_pack.comfyui_lyra.files.transforms_json import load_transforms, save_transforms

# right, up and back of a camera that looks along +x from (1, 2, 3), z up, as columns
ALONG_X = [[0, 0, -1, 1], [-1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]]
SHARED = {"camera_model": "OPENCV", "w": 32, "h": 16, "fl_x": 30.0, "fl_y": 31.0, "cx": 16.0, "cy": 8.0, "k1": 0}


def write(folder, **document):
    (folder / "transforms.json").write_text(json.dumps(document))
    return folder / "transforms.json"


def test_a_camera_computed_by_hand(tmp_path, looking_along_x, same_path):
    frame = {"file_path": "images/along_x/0.png", "transform_matrix": ALONG_X}
    same_path(load_transforms(write(tmp_path, **SHARED, frames=[frame]))[0], looking_along_x)
    save_transforms(tmp_path / "saved.json", [looking_along_x])
    saved = json.loads((tmp_path / "saved.json").read_text())["frames"][0]
    assert saved["transform_matrix"] == ALONG_X
    assert [saved[key] for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")] == [30, 31, 16, 8, 32, 16]


def test_a_path_set_survives_bit_for_bit_and_in_order(tmp_path, two_paths, same_path):
    save_transforms(tmp_path / "transforms.json", two_paths)
    for found, expected in zip(load_transforms(tmp_path / "transforms.json"), two_paths, strict=True):
        same_path(found, expected)


def test_frames_go_by_the_numbers_in_their_names_and_may_have_their_own_intrinsics(tmp_path):
    frames = [{"file_path": f"./images/f{i}.png", "transform_matrix": ALONG_X[:3], "fl_x": 30 + i} for i in (10, 9, 2)]
    (found,) = load_transforms(write(tmp_path, **SHARED, frames=frames))
    assert found.name == "images"
    assert found.K[:, 0, 0].tolist() == [32, 39, 40]
    assert found.K[:, 1, 1].tolist() == [31, 31, 31]


def test_a_file_without_names_is_one_path(tmp_path):
    (found,) = load_transforms(write(tmp_path, **SHARED, frames=[{"transform_matrix": ALONG_X}] * 2))
    assert (found.name, len(found)) == ("path", 2)
    assert torch.equal(found.c2w[0], found.c2w[1])


FRAME = {"file_path": "a.png", "transform_matrix": ALONG_X}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (SHARED, "expected a list of objects named 'frames'"),
        (SHARED | {"frames": [1]}, "expected a list of objects"),
        ({"frames": [FRAME], "w": 32, "h": 16}, "frame 'a.png' lacks fl_x fl_y cx cy"),
        (SHARED | {"frames": [{"file_path": "a.png"}]}, "lacks transform_matrix"),
        (SHARED | {"frames": [FRAME | {"k1": 0.1, "p2": 0.2}]}, "has distortion k1 p2; only pinhole cameras are read"),
        (SHARED | {"frames": [FRAME], "camera_model": "OPENCV_FISHEYE"}, "has camera model OPENCV_FISHEYE"),
        (SHARED | {"frames": [FRAME | {"transform_matrix": [1, 2]}]}, "'a.png' is not rows of 4 numbers"),
        (SHARED | {"frames": [FRAME | {"transform_matrix": [[0] * 4] * 5}]}, "expected 4x4 matrices"),
        (
            SHARED | {"frames": [FRAME, FRAME | {"w": 33}]},
            r"pictures of one size, got sizes \[\(16, 32\), \(16, 33\)\]",
        ),
        (SHARED | {"frames": [FRAME | {"fl_x": "wide"}]}, "is not rows of 4 numbers"),
        (SHARED | {"frames": [FRAME | {"w": None}]}, "'a.png': 16 rows and None columns; a picture has whole numbers"),
        (SHARED | {"frames": [FRAME | {"transform_matrix": [[2, 0, 0, 0]] * 4}]}, "frame 0 has a pose whose last row"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, document, message):
    with pytest.raises(ValueError, match=rf"transforms.json: .*{message}"):
        load_transforms(write(tmp_path, **document))


def test_names_must_work_as_folders(tmp_path, two_paths):
    with pytest.raises(ValueError, match="camera path 'right': names become file names"):
        save_transforms(tmp_path / "transforms.json", [two_paths[0], two_paths[0]])

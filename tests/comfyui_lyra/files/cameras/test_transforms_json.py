import json
import math

import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.transforms_json import load_transforms, save_transforms
from PIL import Image

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


def test_frames_whose_camera_was_lost_are_left_out_with_a_word(tmp_path, caplog):
    lost = [[math.nan] * 4] * 3, [*ALONG_X[:2], [0, 1, math.inf, 3]], [[None] * 4] * 4
    poses = [ALONG_X, lost[0], ALONG_X, *lost[1:]]
    frames = [{"file_path": f"images/{i}.png", "transform_matrix": pose} for i, pose in enumerate(poses)]
    (found,) = load_transforms(write(tmp_path, **SHARED, frames=frames))
    assert len(found) == 2 and found.c2w.isfinite().all()
    assert "3 of 5 frames are left out" in caplog.text and "(first: 'images/1.png')" in caplog.text
    with pytest.raises(ValueError, match="transforms.json: every transform_matrix holds NaN or infinity"):
        load_transforms(write(tmp_path, **SHARED, frames=frames[3:]))


FRAME = {"file_path": "a.png", "transform_matrix": ALONG_X}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (SHARED, "expected a list of objects named 'frames'"),
        (SHARED | {"frames": [1]}, "expected a list of objects"),
        ({"frames": [FRAME], "w": 32, "h": 16}, "frame 'a.png' lacks fl_x .pixels. or camera_angle_x .radians."),
        ({"frames": [FRAME], "camera_angle_x": 0.7}, "frame 'a.png' lacks w h .pixels., and its picture is not there"),
        ({"frames": [FRAME], "w": 32, "h": 16, "camera_angle_x": 40}, "camera_angle_x is 40; expected radians"),
        (SHARED | {"frames": [FRAME], "is_fisheye": True}, "has is_fisheye True; only pinhole cameras are read"),
        (SHARED | {"frames": [FRAME], "k5": -0.1}, "has k5 -0.1; only"),
        (
            SHARED | {"frames": [FRAME | {"distortion_params": [0, 0, 1e-3]}]},
            "has distortion_params .0, 0, 0.001.; only",
        ),
        (SHARED | {"frames": [FRAME], "rolling_shutter": [0, 0, 1]}, "has rolling_shutter"),
        (SHARED | {"frames": [FRAME], "camera_type": "equirectangular"}, "has camera_type equirectangular"),
        (SHARED | {"frames": [{"file_path": "a.png"}]}, "lacks transform_matrix"),
        (SHARED | {"frames": [FRAME | {"k1": 0.1, "p2": 0.2}]}, "has k1 0.1, p2 0.2; only pinhole cameras are read"),
        (SHARED | {"frames": [FRAME], "camera_model": "OPENCV_FISHEYE"}, "has camera_model OPENCV_FISHEYE"),
        (SHARED | {"frames": [FRAME | {"transform_matrix": [1, 2]}]}, "'a.png' is not rows of 4 numbers"),
        (SHARED | {"frames": [FRAME | {"transform_matrix": [[0] * 4] * 5}]}, "has 5 rows; expected 4, or 3"),
        (
            SHARED | {"frames": [FRAME, FRAME | {"w": 33}]},
            r"'path' has pictures of several sizes \(32x16, 33x16\)",
        ),
        (SHARED | {"frames": [FRAME | {"fl_x": "wide"}]}, "is not rows of 4 numbers"),
        (SHARED | {"frames": [FRAME | {"w": 31.5}]}, "'a.png': 16 rows and 31.5 columns; a picture has whole numbers"),
        (SHARED | {"frames": [FRAME | {"transform_matrix": [[2, 0, 0, 0]] * 4}]}, "frame 0 has a pose whose last row"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, document, message):
    with pytest.raises(ValueError, match=rf"transforms.json: .*{message}"):
        load_transforms(write(tmp_path, **document))


def test_names_must_work_as_folders(tmp_path, two_paths):
    with pytest.raises(ValueError, match="camera path 'right': names become file names"):
        save_transforms(tmp_path / "transforms.json", [two_paths[0], two_paths[0]])


def test_lens_keys_that_are_zero_say_nothing(tmp_path):
    zeros = {"k3": 0.0, "p1": 0, "is_fisheye": False, "distortion_params": [0, 0.0], "rolling_shutter": [0, 0, 0, 0]}
    others = {"aabb_scale": 16, "camera_type": "perspective", "applied_transform": [[1, 0, 0, 0]], "sharpness": 30}
    (found,) = load_transforms(write(tmp_path, **SHARED, **zeros, **others, frames=[FRAME]))
    assert len(found) == 1


def test_one_focal_length_or_angle_means_square_pixels_and_the_centre_is_the_middle(tmp_path):
    for lens in ({"fl_x": 16}, {"fl_y": 16}, {"camera_angle_x": math.pi / 2}, {"camera_angle_y": 2 * math.atan(0.5)}):
        (found,) = load_transforms(write(tmp_path, w=32, h=16, **lens, frames=[FRAME]))
        assert torch.allclose(found.K[0], torch.tensor([[16, 0, 16], [0, 16, 8], [0, 0, 1.0]]), atol=1e-5)


def test_a_size_that_is_not_said_is_that_of_the_pictures_beside(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (32, 16)).save(tmp_path / "train" / "r_0.png")
    frames = [FRAME | {"file_path": f"./train/r_{i}"} for i in range(2)]
    (found,) = load_transforms(write(tmp_path, camera_angle_x=math.pi / 2, frames=frames))
    assert (found.width, found.height, found.K[1, 0, 0].item()) == (32, 16, pytest.approx(16))


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["images\\left", "images\\right"], ["left", "right"]),
        (["left/images", "right/images"], ["left", "right"]),
        (["C:\\data\\left\\images\\", "C:/data/right/images"], ["left", "right"]),
        (["a/x/1", "a/y/1", "b/x/1"], ["a_x_1", "a_y_1", "b_x_1"]),
        (["images", "images/b"], ["images", "b"]),
        (["x/a", "a"], ["x_a", "a"]),
        (["", "left"], ["path", "left"]),
    ],
)
def test_folders_are_paths_named_by_what_tells_them_apart(tmp_path, folders, names):
    frames = [FRAME | {"file_path": f"{folder}/{i}.png".lstrip("/")} for i in range(2) for folder in folders]
    found = load_transforms(write(tmp_path, **SHARED, frames=frames))
    assert [(path.name, len(path)) for path in found] == [(name, 2) for name in names]

from dataclasses import replace

import pytest
from lyra_pack.comfyui_lyra.files.cameras.colmap import load_colmap, save_colmap

CAMERAS = "# comment\n1 PINHOLE 32 16 30 31 16 8\n7 SIMPLE_PINHOLE 32 16 30 16 8\n"
# looks along +x from (1, 2, 3), z up: world-to-camera rows are right, down, forward; the translation is -R (1, 2, 3)
ALONG_X = "0.5 0.5 -0.5 0.5 2 3 -1"


def write(folder, images, cameras=CAMERAS):
    (folder / "cameras.txt").write_text(cameras)
    (folder / "images.txt").write_text(images)
    return folder


def test_a_camera_computed_by_hand(tmp_path, looking_along_x, same_path):
    same_path(load_colmap(write(tmp_path, f"3 {ALONG_X} 1 along_x/0.png\n\n"))[0], looking_along_x, atol=1e-6)
    save_colmap(tmp_path / "saved", [looking_along_x])
    model = tmp_path / "saved" / "sparse" / "0"
    line = (model / "images.txt").read_text().splitlines()[1].split()
    sign = 1 if float(line[1]) > 0 else -1
    assert [sign * float(word) for word in line[1:5]] == pytest.approx([0.5, 0.5, -0.5, 0.5])
    assert [float(word) for word in line[5:8]] == pytest.approx([2, 3, -1])
    assert line[8:] == ["1", "along_x/00000.png"]
    assert (model / "cameras.txt").read_text().splitlines()[1] == "1 PINHOLE 32 16 30.0 31.0 16.0 8.0"


def test_a_path_set_survives_in_order(tmp_path, two_paths, same_path):
    save_colmap(tmp_path, two_paths)
    for place in (tmp_path, tmp_path / "sparse", tmp_path / "sparse" / "0"):
        for found, expected in zip(load_colmap(place), two_paths, strict=True):
            same_path(found, expected, atol=2e-6)


def test_each_picture_has_a_dummy_point_and_equal_cameras_are_one(tmp_path, two_paths):
    path = replace(two_paths[0], K=two_paths[0].K[:1].repeat(12, 1, 1))
    save_colmap(tmp_path, [path])
    model = tmp_path / "sparse" / "0"
    lines = [line for line in (model / "images.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[1::2] == ["0.0 0.0 -1"] * 12
    assert [line.split()[0] for line in lines[::2]] == [str(i) for i in range(1, 13)]
    assert len((model / "cameras.txt").read_text().splitlines()) == 2
    assert all(line.startswith("#") for line in (model / "points3D.txt").read_text().splitlines())


def test_pictures_go_by_name_and_may_lack_points_and_a_folder(tmp_path):
    images = f"# c\n5 {ALONG_X} 7 im age 10.png\n1.0 2.0 -1 3.0 4.0 8\n\n2 {ALONG_X} 1 im age 9.png\n\n"
    (found,) = load_colmap(write(tmp_path, images))
    assert found.name == "path"
    assert found.K[:, 1, 1].tolist() == [31, 30]  # the second picture's camera has one focal length


@pytest.mark.parametrize(
    ("images", "cameras", "message"),
    [
        ("", CAMERAS, "images.txt: holds no images"),
        (f"1 {ALONG_X} 2 a.png\n\n", CAMERAS, "images.txt: line 1 is no image"),
        (f"1 {ALONG_X} 1 a.png\n1 2\n", CAMERAS, "line 2 is neither an image of a known camera nor 2-D points"),
        ("1 0 0 0 0 2 3 -1 1 a.png\n\n", CAMERAS, "images.txt: none of its 1 images has a pose"),
        ("1 a b c d 2 3 -1 1 a.png\n\n", CAMERAS, "images.txt: could not convert"),
        (
            f"1 {ALONG_X} 1 a.png\n",
            "1 OPENCV 32 16 30 31 16 8 0 0 0 0.01\n",
            "cameras.txt: camera 1 is OPENCV, with distortion; only pinholes are read: undistort first",
        ),
        (
            f"1 {ALONG_X} 1 a.png\n",
            "1 FOV 32 16 30 31 16 8 0.5\n",
            "cameras.txt: camera 1 is FOV; only pinhole cameras are read: undistort first",
        ),
        (f"1 {ALONG_X} 1 a.png\n", "1 PINHOLE 32 16 30\n", "camera 1: expected width, height and 4 numbers"),
        (
            f"1 {ALONG_X} 1 a.png\n\n2 {ALONG_X} 2 b.png\n",
            CAMERAS + "2 SIMPLE_PINHOLE 9 9 1 1 1",
            "pictures of one size",
        ),
    ],
)
def test_bad_models_are_one_sentence(tmp_path, images, cameras, message):
    with pytest.raises(ValueError, match=message):
        load_colmap(write(tmp_path, images, cameras))


def test_missing_and_binary_models_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no COLMAP model"):
        load_colmap(tmp_path)
    (tmp_path / "images.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="a binary model; make it text with 'colmap model_converter"):
        load_colmap(tmp_path)


def test_cameras_whose_distortion_is_zero_are_pinholes(tmp_path):
    cameras = "1 SIMPLE_RADIAL 32 16 30 16 8 0\n2 RADIAL 32 16 31 16 8 0 0\n3 OPENCV 32 16 32 33 16 8 0 0 0 0\n"
    images = "".join(f"{i} {ALONG_X} {i} {i}.png\n\n" for i in (1, 2, 3))
    (found,) = load_colmap(write(tmp_path, images, cameras))
    assert found.K[:, 1, 1].tolist() == [30, 31, 33]


@pytest.mark.parametrize("points", ["", "\n", "1.0 2.0 -1\n"])
def test_every_image_is_read_with_points_without_and_without_their_lines(tmp_path, points):
    images = "".join(f"{i} {ALONG_X} 1 my photo {i}.png\n{points}" for i in range(1, 7))
    (found,) = load_colmap(write(tmp_path, images))
    assert len(found) == 6


def test_windows_files_are_read(tmp_path):
    images = "".join(f"{i} {ALONG_X} 1 {side}\\{i}.png\r\n\r\n" for side in ("left", "right") for i in (1, 2))
    (tmp_path / "cameras.txt").write_bytes(b"\xef\xbb\xbf" + CAMERAS.replace("\n", "\r\n").encode())
    (tmp_path / "images.txt").write_bytes(images.encode("utf-16"))
    assert [(path.name, len(path)) for path in load_colmap(tmp_path)] == [("left", 2), ("right", 2)]


def test_images_without_a_pose_do_not_stop_the_others(tmp_path, caplog):
    poses = {1: ALONG_X, 2: "0 0 0 0 2 3 -1", 3: "nan 0 0 0 2 3 -1", 4: ALONG_X}
    (found,) = load_colmap(write(tmp_path, "".join(f"{i} {pose} 1 {i}.png\n\n" for i, pose in poses.items())))
    assert len(found) == 2
    assert "images.txt: 2 of 4 images have no pose" in caplog.text

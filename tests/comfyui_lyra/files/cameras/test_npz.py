import io

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.npz import load_cameras_npz, read_intrinsics, read_poses, save_cameras_npz


@pytest.fixture
def saved(tmp_path, two_paths):
    """The folder of pose.npz and intrinsics.npz of the first path."""
    save_cameras_npz(tmp_path / "pose.npz", tmp_path / "intrinsics.npz", two_paths[0])
    return tmp_path


def load(folder, **options):
    return load_cameras_npz(folder / "pose.npz", folder / "intrinsics.npz", 16, 32, **options)


def change(path, **arrays):
    with np.load(path) as old:
        np.savez(path, **{key: value for key, value in (dict(old) | arrays).items() if value is not None})


def test_a_path_survives_its_files_bit_for_bit(saved, two_paths, same_path):
    same_path(load(saved, name="right"), two_paths[0])
    assert (load(saved, fps=30.0).fps, load(saved).name) == (30, "path")


def test_the_files_are_laid_out_as_the_reference_s(saved, two_paths):
    with np.load(saved / "pose.npz") as pose, np.load(saved / "intrinsics.npz") as intrinsics:
        assert set(pose) == set(intrinsics) == {"data", "inds"}
        assert pose["data"].dtype == intrinsics["data"].dtype == np.float32
        assert pose["inds"].dtype == np.int64
        assert pose["inds"].tolist() == intrinsics["inds"].tolist() == list(range(12))
        K = two_paths[0].K[3]
        assert intrinsics["data"][3].tolist() == [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]


def test_frames_are_found_by_their_numbers(saved, two_paths, same_path):
    order = np.random.default_rng(0).permutation(12)
    for kind in ("pose", "intrinsics"):
        with np.load(saved / f"{kind}.npz") as arrays:
            data = arrays["data"]
        change(saved / f"{kind}.npz", data=data[order], inds=order)
        order = np.arange(12)[::-1]  # each file has an order of its own
    same_path(load(saved, name="right"), two_paths[0])


def test_poses_may_be_flat_and_intrinsics_matrices_and_numbers_missing(saved, two_paths, same_path):
    c2w, K = two_paths[0].c2w.numpy(), two_paths[0].K.numpy()
    for poses in (c2w.reshape(12, 16), c2w[:, :3], c2w[:, :3].reshape(12, 12).astype(np.float64)):
        change(saved / "pose.npz", data=poses, inds=None)
        change(saved / "intrinsics.npz", data=K)
        same_path(load(saved, name="right"), two_paths[0])


def test_nan_poses_are_the_callers_to_judge(saved, two_paths):
    poses = two_paths[0].c2w.clone()
    poses[5] = float("nan")
    change(saved / "pose.npz", data=poses.numpy())
    assert np.isnan(read_poses(saved / "pose.npz")[0]).any((1, 2)).nonzero()[0].tolist() == [5]
    with pytest.raises(ValueError, match="pose.npz: camera path 'path': frame 5 holds NaN or infinity"):
        load(saved)


@pytest.mark.parametrize(
    ("file", "arrays", "message"),
    [
        ("pose", {"data": np.zeros((12, 5))}, r"pose.npz: expected poses \[F 4 4\], got \(12, 5\)"),
        ("pose", {"data": np.zeros((12, 4, 4))}, "frame 0 has a pose whose last row"),
        ("pose", {"data": np.tile(np.diag([1, 1, -1, 1]), (12, 1, 1))}, "frame 0 has a pose that is no rotation"),
        ("pose", {"inds": np.arange(11)}, r"expected one frame number in 'inds' a row, got \(11,\)"),
        ("pose", {"inds": np.arange(12) / 2}, "expected one frame number"),
        ("pose", {"inds": np.minimum(np.arange(12), 10)}, "'inds' names a frame twice"),
        ("pose", {"inds": np.array([*range(6), *range(7, 13)])}, "pose.npz: frame 6 of 0..12 is missing"),
        ("pose", {"inds": np.array([*range(11), 2**40])}, "pose.npz: frame 11 of 0..1099511627776 is missing"),
        ("pose", {"data": np.array([{}] * 12)}, "pose.npz: array 'data' holds object, no numbers"),
        ("pose", {"data": None}, "expected numbers named 'data' and 'inds', found inds"),
        ("pose", {"data": np.array(["a"] * 12)}, "'data' holds <U1, no numbers"),
        ("pose", {"data": np.array(3.0)}, "expected one frame number"),
        ("intrinsics", {"distortion_params": np.array([0.1, 0])}, "distortion_params .0.1, 0.0.; only pinhole"),
        ("intrinsics", {"camera_model": np.array("FISHEYE")}, "intrinsics.npz: camera_model FISHEYE; only pinhole"),
        ("intrinsics", {"inds": np.arange(1, 13)}, "intrinsics.npz: frame 0 of 0..11 is missing"),
        ("intrinsics", {"data": np.ones((12, 5))}, r"got \(12, 5\); only pinhole cameras are read"),
        ("intrinsics", {"data": np.zeros((12, 4))}, "frame 0 has a focal length that is not positive"),
    ],
)
def test_bad_arrays_are_one_sentence(saved, file, arrays, message):
    change(saved / f"{file}.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(saved)


def newer_zip() -> bytes:
    """An npz that asks for a version of the zip format nobody knows."""
    archive = io.BytesIO()
    np.savez(archive, data=np.zeros(3))
    data = bytearray(archive.getvalue())
    data[data.index(b"PK\x01\x02") + 6] = 255
    return bytes(data)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut", b"\x80\x04pickle", b"nonsense", newer_zip()])
def test_other_files_are_one_sentence(tmp_path, data):
    (tmp_path / "pose.npz").write_bytes(data)
    with pytest.raises(ValueError, match="pose.npz: damaged, or not of the kind that its name says"):
        read_poses(tmp_path / "pose.npz")
    with pytest.raises(FileNotFoundError, match="intrinsics.npz: no such file"):
        read_intrinsics(tmp_path / "intrinsics.npz")


def test_skew_has_no_place_in_the_file(tmp_path, two_paths):
    path = two_paths[0]
    path.K[2, 0, 1] = 0.5
    with pytest.raises(ValueError, match="camera path 'right': K has skew"):
        save_cameras_npz(tmp_path / "pose.npz", tmp_path / "intrinsics.npz", path)
    assert torch.count_nonzero(path.K[:, 0, 1]) == 1

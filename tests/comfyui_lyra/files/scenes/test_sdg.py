import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.load import load_cameras
from lyra_pack.comfyui_lyra.files.cameras.npz import load_cameras_npz
from lyra_pack.comfyui_lyra.files.media.video import load_video, save_video
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import load_latent_pkl, save_latent_pkl
from lyra_pack.comfyui_lyra.files.scenes.sdg import find_clips, find_views, load_sdg, load_sdg_cameras, save_sdg_cameras


@pytest.mark.golden("teacher/sdg_expected")
def test_reference_data_loads_as_in_the_reference(golden):
    meta = golden.meta
    root = golden.path.parent / "sdg_output_sample"
    assert find_clips(root) == (meta["stem"],)
    loaded = load_sdg(root, meta["stem"])
    assert torch.equal(loaded.latents.values, golden["latents_by_view"])
    assert loaded.latents.space == "diffusion"
    assert [cameras.name for cameras in loaded.cameras] == [str(view) for view in range(meta["views"])]
    _, _, _, h, w = meta["latent_shape"]
    for cameras, alone in zip(loaded.cameras, load_sdg_cameras(root), strict=True):
        assert (len(cameras), cameras.height, cameras.width, cameras.fps) == (meta["frames"], 8 * h, 8 * w, 24)
        assert torch.equal(cameras.c2w[0], loaded.cameras[0].c2w[0])  # every path starts at the picture's camera
        assert (alone.height, alone.width) == (8 * h, 8 * w)  # as the video says


@pytest.mark.golden("teacher/sdg_output_sample/*")
def test_each_reference_file_is_read(golden):
    meta = golden.other("sdg_expected").meta
    path = golden.path
    kind, view = path.parent.name, path.parent.parent
    assert path.stem == meta["stem"]
    if kind == "latent":
        expected = golden.other("sdg_expected")["latents_by_view"]
        assert torch.equal(load_latent_pkl(path), expected[find_views(view.parent).index(view)])
    elif kind == "rgb":
        frames, fps = load_video(path)
        _, _, _, h, w = meta["latent_shape"]
        assert (frames.shape, fps) == ((meta["frames"], 8 * h, 8 * w, 3), 24)
    else:
        cameras = load_cameras_npz(*(view / k / path.name for k in ("pose", "intrinsics")), 8, 8)
        with np.load(path) as arrays:
            K = cameras.K.numpy()
            numbers = np.stack((K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]), axis=1)
            assert np.array_equal(cameras.c2w.numpy() if kind == "pose" else numbers, arrays["data"])
            assert arrays["inds"].tolist() == list(range(meta["frames"]))


@pytest.fixture
def root(tmp_path, two_paths):
    """Two views of a clip "night sky 1.5" with latents, and the reference's stray file."""
    for view, cameras in enumerate(two_paths):
        values = torch.randn(16, 2, 2, 4, generator=torch.Generator().manual_seed(view))
        save_latent_pkl(tmp_path / str(view) / "latent" / "night sky 1.5.pkl", values)
        frames = torch.rand(len(cameras), 16, 32, 3, generator=torch.Generator().manual_seed(view))
        save_video(tmp_path / str(view) / "rgb" / "night sky 1.5.mp4", frames, fps=12)
    save_sdg_cameras(tmp_path, "night sky 1.5", two_paths)
    (tmp_path / "flag").write_text("")
    return tmp_path


def test_views_come_in_the_order_of_their_numbers(tmp_path, two_paths, same_path):
    paths = [replace(two_paths[0], name=str(i)) for i in range(12)]
    save_sdg_cameras(tmp_path, "clip", paths)
    for found, expected in zip(load_sdg_cameras(tmp_path, size=(16, 32)), paths, strict=True):
        same_path(found, expected)


@pytest.fixture
def dynamic_example(tmp_path, two_paths):
    """A moving source as the reference releases it: views 6 to 11 are time-flipped, with latents of their own."""
    for view in range(12):
        save_latent_pkl(tmp_path / str(view) / "latent" / "clip.pkl", torch.full((16, 2, 2, 4), float(view)))
        save_video(tmp_path / str(view) / "rgb" / "clip.mp4", torch.zeros(3, 16, 32, 3), fps=12)
    save_sdg_cameras(tmp_path, "clip", [two_paths[1]] * 12)
    return tmp_path


def test_the_time_flipped_half_of_twelve_views_is_left_out_and_said(dynamic_example, caplog):
    loaded = load_sdg(dynamic_example, dynamic=True)
    assert loaded.latents.values[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert [path.name for path in loaded.cameras] == ["0", "1", "2", "3", "4", "5"]
    assert "views 0, 1, 2, 3, 4, 5 of 'clip' are taken; 6, 7, 8, 9, 10, 11 are its time-flipped twins" in caplog.text
    caplog.clear()
    assert [path.name for path in load_sdg_cameras(dynamic_example)] == ["0", "1", "2", "3", "4", "5"]
    assert [path.name for path in load_cameras(dynamic_example)] == ["0", "1", "2", "3", "4", "5"]
    assert caplog.text.count("time-flipped twins, left out") == 2
    single = load_sdg_cameras(dynamic_example / "7")
    assert [path.name for path in single] == ["7"]  # asked for by itself


def test_other_numbers_of_views_are_all_paths(dynamic_example, caplog):
    shutil.rmtree(dynamic_example / "11")
    assert len(load_sdg(dynamic_example).cameras) == 11
    assert not caplog.text


def test_a_clip_brings_its_latents_cameras_size_and_rate(root, two_paths):
    loaded = load_sdg(root, dynamic=True, family="mini")
    assert (loaded.dynamic, loaded.family, loaded.latents.values.shape) == (True, "mini", (2, 16, 2, 2, 4))
    assert [(c.name, len(c), c.height, c.width, c.fps) for c in loaded.cameras] == [
        ("0", 12, 16, 32, 12),
        ("1", 3, 16, 32, 12),
    ]


def test_a_single_path_needs_no_view_level(root, two_paths, same_path):
    same_path(load_sdg_cameras(root / "1")[0], replace(two_paths[1], name="1", fps=12.0))


def test_the_size_is_the_latents_where_the_video_shows_more(root):
    save_video(root / "0" / "rgb" / "night sky 1.5.mp4", torch.zeros(12, 16, 64, 3), fps=12)  # warps side by side
    assert load_sdg(root).cameras[0].width == 32


def test_a_missing_video_is_no_loss_for_latents_but_leaves_cameras_without_a_size(root):
    (root / "1" / "rgb" / "night sky 1.5.mp4").unlink()
    assert load_sdg(root).cameras[1].fps == 24
    with pytest.raises(ValueError, match="no such file to take the picture size from; give the size"):
        load_sdg_cameras(root)


def test_what_is_missing_is_named(root, tmp_path_factory, two_paths):
    (root / "1" / "latent" / "night sky 1.5.pkl").unlink()
    with pytest.raises(FileNotFoundError, match="night sky 1.5.pkl: no such file"):
        load_sdg(root)
    with pytest.raises(FileNotFoundError, match="other.npz: no such file"):
        load_sdg_cameras(root, "other", size=(16, 32))
    save_sdg_cameras(root, "second", two_paths)
    with pytest.raises(ValueError, match=r"the name of one, found 2 \(night sky 1.5, second\)"):
        load_sdg(root)
    with pytest.raises(FileNotFoundError, match="expected folders <view>/pose"):
        load_sdg(tmp_path_factory.mktemp("empty"))


def test_views_of_different_shapes_are_refused(root):
    save_latent_pkl(root / "1" / "latent" / "night sky 1.5.pkl", torch.zeros(16, 3, 2, 4))
    with pytest.raises(ValueError, match="latents of .night sky 1.5. differ between views"):
        load_sdg(root)

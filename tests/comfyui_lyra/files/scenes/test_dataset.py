import json

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.colmap import load_colmap
from lyra_pack.comfyui_lyra.files.cameras.transforms_json import load_transforms
from lyra_pack.comfyui_lyra.files.media.images import load_image
from lyra_pack.comfyui_lyra.files.scenes.dataset import save_dataset, thinned
from lyra_pack.comfyui_lyra.files.splats.ply_elements import read_elements

POINTS = torch.tensor([[0.5, -1.0, 2.0], [1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.0, 0.2], [0.0, 1.2, 0.4]])


@pytest.fixture
def films(two_moves):
    gen = torch.Generator().manual_seed(0)
    return [torch.rand(len(path), path.height, path.width, 3, generator=gen) for path in two_moves]


def test_a_dataset_holds_pictures_cameras_and_points(tmp_path, two_moves, films):
    seen = []
    save_dataset(tmp_path / "set", two_moves, films, POINTS, on_step=lambda *step: seen.append(step))
    assert seen[-1] == (18, 18)
    for read in (lambda: load_colmap(tmp_path / "set"), lambda: load_transforms(tmp_path / "set" / "transforms.json")):
        for found, path in zip(read(), two_moves, strict=True):
            torch.testing.assert_close(found.c2w, path.c2w, atol=1e-5, rtol=0)
            torch.testing.assert_close(found.K, path.K)
    document = json.loads((tmp_path / "set" / "transforms.json").read_text())
    for frame, picture in zip(document["frames"], [p for film in films for p in film], strict=True):
        torch.testing.assert_close(load_image(tmp_path / "set" / frame["file_path"]), picture, atol=1 / 254, rtol=0)
        assert "time" not in frame
    lines = (tmp_path / "set" / "sparse" / "0" / "points3D.txt").read_text().splitlines()
    assert lines[1:] == ["1 0.5 -1 2 255 0 51 0", "2 1 2 3 0 255 102 0"]
    vertex = read_elements((tmp_path / "set" / document["ply_file_path"]).read_bytes(), ("vertex",))["vertex"]
    np.testing.assert_array_equal(np.stack([vertex[name] for name in "xyz"], 1), POINTS[0])
    assert vertex["red"].tolist() == [255, 0] and vertex["green"].tolist() == [0, 255]


def test_pictures_of_a_moving_scene_have_a_time(tmp_path, two_moves, films):
    save_dataset(tmp_path / "set", two_moves, films, moving=True)
    document = json.loads((tmp_path / "set" / "transforms.json").read_text())
    assert [frame["time"] for frame in document["frames"]] == [i / 8 for i in range(9)] * 2
    assert "ply_file_path" not in document and not (tmp_path / "set" / "points.ply").exists()


def test_nothing_is_left_of_a_dataset_that_does_not_fit(tmp_path, two_moves, films):
    with pytest.raises(ValueError, match="has 9 cameras and 8 pictures"):
        save_dataset(tmp_path / "set", two_moves, [films[0], films[1][:-1]])
    assert not list(tmp_path.iterdir())
    (tmp_path / "set").mkdir()
    with pytest.raises(ValueError, match="is there already"):
        save_dataset(tmp_path / "set", two_moves, films)


def test_points_are_thinned_evenly():
    places = torch.arange(100.0)[:, None].expand(-1, 3)
    assert thinned((places, places), 3)[0][:, 0].tolist() == [0, 50, 99]
    assert len(thinned((places, places), 1000)[0]) == 100


def test_colmap_s_own_reader_opens_it(tmp_path, two_moves, films):
    pycolmap = pytest.importorskip("pycolmap")
    save_dataset(tmp_path / "set", two_moves, films, POINTS)
    model = pycolmap.Reconstruction(str(tmp_path / "set" / "sparse" / "0"))
    assert len(model.images) == 18 and len(model.points3D) == 2
    names = {image.name: image for image in model.images.values()}
    for path in two_moves:
        w2c = names[f"{path.name}/00008.png"].cam_from_world().matrix()
        np.testing.assert_allclose(w2c, path.viewmats[8, :3].numpy(), atol=1e-5)

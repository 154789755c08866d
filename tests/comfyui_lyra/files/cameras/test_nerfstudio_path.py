import json

import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.load import load_cameras

# a camera at (1, 2, 3) that looks along +x, z up: right, up and back are the columns, written by rows
ALONG_X = [0, 0, -1, 1, -1, 0, 0, 2, 0, 1, 0, 3, 0, 0, 0, 1]
CAMERA = {"camera_to_world": ALONG_X, "fov": 90, "aspect": 2}
DOCUMENT = {"camera_type": "perspective", "render_height": 16, "render_width": 32, "fps": 12, "seconds": 1}


def write(folder, **document):
    (folder / "my_path.json").write_text(json.dumps(document))
    return folder / "my_path.json"


def test_a_nerfstudio_camera_path_is_read_with_its_lens(tmp_path, looking_along_x):
    (found,) = load_cameras(write(tmp_path, **DOCUMENT, camera_path=[CAMERA, CAMERA | {"fov": 53.13010235415598}]))
    assert torch.allclose(found.c2w[0], looking_along_x.c2w[0])
    assert torch.allclose(found.K[0], torch.tensor([[8, 0, 16], [0, 8, 8], [0, 0, 1.0]]))
    assert found.K[1, 0, 0].item() == pytest.approx(16)
    assert (found.width, found.height, found.fps) == (32, 16, 12)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (DOCUMENT | {"camera_path": []}, "a nerfstudio camera path: expected a list of objects named 'camera_path'"),
        (DOCUMENT | {"camera_path": [{"fov": 50}]}, "camera 0 lacks camera_to_world"),
        (DOCUMENT | {"camera_path": [CAMERA | {"camera_to_world": [1, 2]}]}, "camera_to_world is not 16 numbers"),
        (DOCUMENT | {"camera_path": [CAMERA | {"fov": 0}]}, "camera 0: fov is 0.0; expected"),
        (DOCUMENT | {"camera_path": [CAMERA | {"fov": "wide"}]}, "camera 0: fov is 'wide'; expected"),
        (DOCUMENT | {"camera_path": [CAMERA], "camera_type": "fisheye"}, "camera_type fisheye; only pinhole"),
        (DOCUMENT | {"camera_path": [CAMERA], "render_width": None}, "16 rows and None columns"),
        (DOCUMENT | {"camera_path": [CAMERA], "fps": "fast"}, "fps is 'fast'"),
        ({"frame": []}, "JSON without 'frames' or 'camera_path'"),
    ],
)
def test_bad_paths_are_one_sentence(tmp_path, document, message):
    with pytest.raises(ValueError, match=f"my_path.json: .*{message}"):
        load_cameras(write(tmp_path, **document))

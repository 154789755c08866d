import json
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.lyra_json import load_cameras_json, save_cameras_json


def test_a_path_set_survives_bit_for_bit(tmp_path, two_paths, same_path):
    paths = (replace(two_paths[0], fps=23.976, name="éa/b", width=33), two_paths[1])
    save_cameras_json(tmp_path / "set.json", paths)
    for found, expected in zip(load_cameras_json(tmp_path / "set.json"), paths, strict=True):
        same_path(found, expected)


def test_the_documented_file_is_read(tmp_path):
    frame = {"c2w": [[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1]], "K": [30, 31, 16, 8], "note": "kept"}
    path = {"name": "mine", "fps": 24, "width": 32, "height": 16, "frames": [frame]}
    document = {"format": "lyra-cameras", "version": 1, "axes": "opencv", "paths": [path]}
    (tmp_path / "mine.json").write_text(json.dumps(document))
    (found,) = load_cameras_json(tmp_path / "mine.json")
    assert (found.name, found.fps, found.width, found.height) == ("mine", 24, 32, 16)
    assert found.c2w[0, :3, 3].tolist() == [1, 2, 3]
    assert torch.equal(found.K[0], torch.tensor([[30.0, 0, 16], [0, 31, 8], [0, 0, 1]]))


FRAME = {"c2w": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "K": [30, 31, 16, 8]}
PATH = {"name": "mine", "fps": 24, "width": 32, "height": 16, "frames": [FRAME]}
SET = {"format": "lyra-cameras", "version": 1, "axes": "opencv", "paths": [PATH]}


def without(key: str) -> dict:
    return {name: value for name, value in PATH.items() if name != key}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "set.json: not JSON"),
        ("[]", "expected a JSON object, got a list"),
        ("\udcff", "not JSON"),
        (SET | {"version": 2}, "expected 'version' 1, got 2"),
        (SET | {"axes": "opengl"}, "expected 'axes' 'opencv', got 'opengl'"),
        (SET | {"paths": []}, "holds no camera paths"),
        (SET | {"paths": 3}, "must be lists of objects"),
        (SET | {"paths": [3]}, "must be lists of objects"),
        (SET | {"paths": [without("width")]}, "lacks 'width'"),
        (SET | {"paths": [PATH | {"frames": []}]}, "'mine' holds no frames"),
        (SET | {"paths": [PATH | {"frames": [FRAME, {"K": [1] * 4}]}]}, "lacks 'c2w'"),
        (SET | {"paths": [PATH | {"frames": [FRAME | {"c2w": [[1], [2, 3]]}]}]}, "c2w of frame 0 is not rows of 4"),
        (SET | {"paths": [PATH | {"frames": [FRAME | {"c2w": [[1] * 4] * 3}]}]}, "a c2w has 3 rows; expected 4"),
        (SET | {"paths": [PATH | {"frames": [FRAME | {"K": [1] * 3}]}]}, "K of its frames is not rows of 4 numbers"),
        (SET | {"paths": [PATH | {"frames": [FRAME, FRAME | {"K": [float("nan")] * 4}]}]}, "frame 1 holds NaN"),
        (SET | {"paths": [PATH | {"height": 0}]}, "all must be positive"),
        (SET | {"paths": [PATH | {"height": float("inf")}]}, "'mine': inf rows and 32 columns; a picture has whole"),
        (SET | {"paths": [PATH | {"width": 4.5}]}, "'mine': 16 rows and 4.5 columns"),
        (SET | {"paths": [PATH | {"width": "4"}]}, "'mine': 16 rows and '4' columns"),
        (SET | {"paths": [PATH | {"fps": float("inf")}]}, "inf fps; all must be positive"),
    ],
)  # fmt: skip
def test_bad_files_are_one_sentence(tmp_path, document, message):
    text = document if isinstance(document, str) else json.dumps(document)
    (tmp_path / "set.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message) as raised:
        load_cameras_json(tmp_path / "set.json")
    assert "set.json: " in str(raised.value)
    assert "\n" not in str(raised.value)

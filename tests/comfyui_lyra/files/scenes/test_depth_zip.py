from zipfile import ZipFile

import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes.depth_zip import load_depth_zip, save_depth_zip


@pytest.fixture
def depth() -> torch.Tensor:
    depth = torch.rand(4, 6, 10, generator=torch.Generator().manual_seed(0)) * 5 + 0.5
    depth[1, 2, 3], depth[2, 0, 0], depth[3, 5, 9] = torch.inf, torch.nan, -1
    return depth


def test_depth_comes_back_in_half_precision_and_unknown_as_zero(tmp_path, depth):
    save_depth_zip(tmp_path / "new" / "clip.zip", depth)
    found = load_depth_zip(tmp_path / "new" / "clip.zip", range(4))
    known = depth.isfinite() & (depth > 0)
    assert found.dtype == torch.float32 and torch.equal(found == 0, ~known)
    assert torch.allclose(found[known], depth[known], rtol=1e-3)


def test_frames_are_found_by_their_number(tmp_path, depth):
    save_depth_zip(tmp_path / "clip.zip", depth)
    everything = load_depth_zip(tmp_path / "clip.zip", range(4))
    assert torch.equal(load_depth_zip(tmp_path / "clip.zip", [3, 1, 3]), everything[[3, 1, 3]])


def test_a_missing_map_is_unknown_and_ends_nothing(tmp_path, depth):
    save_depth_zip(tmp_path / "whole.zip", depth)
    whole = load_depth_zip(tmp_path / "whole.zip", range(4))
    with ZipFile(tmp_path / "whole.zip") as source, ZipFile(tmp_path / "clip.zip", "w") as target:
        for name in ("00000.exr", "00003.exr"):
            target.writestr(name, source.read(name))
    found = load_depth_zip(tmp_path / "clip.zip", range(5))
    assert torch.equal(found[[0, 3]], whole[[0, 3]]) and (found[[1, 2, 4]] == 0).all()
    assert torch.equal(load_depth_zip(tmp_path / "clip.zip", [2]), torch.zeros(1, 6, 10))
    with ZipFile(tmp_path / "empty.zip", "w") as target:
        target.writestr("other.txt", "")
    with pytest.raises(ValueError, match="empty.zip: holds no depth maps 00000.exr"):
        load_depth_zip(tmp_path / "empty.zip", [0])


def test_damaged_archives_are_named(tmp_path, depth):
    save_depth_zip(tmp_path / "clip.zip", depth)
    data = (tmp_path / "clip.zip").read_bytes()
    for name, spoiled in (("short", data[:-40]), ("empty", b""), ("flipped", data[:120] + b"\0\0\0\0" + data[124:])):
        path = tmp_path / f"{name}.zip"
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match=f"{name}.zip: a damaged depth archive"):
            load_depth_zip(path, range(4))
    with ZipFile(tmp_path / "mixed.zip", "w") as mixed, ZipFile(tmp_path / "clip.zip") as clip:
        save_depth_zip(tmp_path / "other.zip", depth[:, :4])
        mixed.writestr("00000.exr", clip.read("00000.exr"))
        with ZipFile(tmp_path / "other.zip") as other:
            mixed.writestr("00001.exr", other.read("00001.exr"))
    with pytest.raises(ValueError, match="mixed.zip: its depth maps differ in size"):
        load_depth_zip(tmp_path / "mixed.zip", [0, 1])

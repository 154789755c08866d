import numpy as np
import OpenEXR
import pytest
import torch
from lyra_pack.comfyui_lyra.files.depth import load_depth
from lyra_pack.comfyui_lyra.files.video import save_video
from PIL import Image

DEPTH = np.array([[0.5, 1.25, 30.0], [np.inf, 2.0, 1000.0]], np.float32)


def write_exr(path, channels) -> None:
    OpenEXR.File({"type": OpenEXR.scanlineimage}, channels).write(str(path))


@pytest.mark.parametrize("name", ["Z", "depth.Z", "Y", "R"])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exr_holds_lengths_in_any_usual_channel(tmp_path, name, kind):
    write_exr(tmp_path / "d.exr", {name: DEPTH.astype(kind), "A": np.ones_like(DEPTH)})
    assert torch.equal(load_depth(tmp_path / "d.exr"), torch.from_numpy(DEPTH)[None])


def test_numpy_files_hold_lengths_with_or_without_a_name(tmp_path):
    np.savez(tmp_path / "named.npz", depth=DEPTH, mask=DEPTH)
    np.savez(tmp_path / "alone.npz", DEPTH.astype(np.float64)[None])
    np.save(tmp_path / "plain.npy", DEPTH[..., None])
    for name in ("named.npz", "alone.npz", "plain.npy"):
        found = load_depth(tmp_path / name)
        assert found.dtype == torch.float32 and torch.equal(found, torch.from_numpy(DEPTH)[None])
    np.save(tmp_path / "clip.npy", np.stack([DEPTH, DEPTH + 1]))
    assert load_depth(tmp_path / "clip.npy").shape == (2, 2, 3)


def test_pictures_hold_levels(tmp_path):
    levels = np.array([[0, 1000, 65535], [2, 3, 4]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "d16.png")
    (found,) = load_depth(tmp_path / "d16.png")
    torch.testing.assert_close(found, torch.from_numpy(levels.astype(np.float32) / 65535))
    Image.fromarray(levels.astype(np.uint8)).convert("RGB").save(tmp_path / "grey.png")
    assert load_depth(tmp_path / "grey.png").shape == (1, 2, 3)
    save_video(tmp_path / "grey.mp4", torch.linspace(0, 1, 3)[:, None, None, None].expand(-1, 16, 32, 3), 24)
    clip = load_depth(tmp_path / "grey.mp4")
    assert clip.shape == (3, 16, 32) and torch.allclose(clip.mean((1, 2)), torch.linspace(0, 1, 3), atol=0.02)


def test_what_holds_no_depth_is_named(tmp_path):
    Image.new("RGB", (4, 4), (200, 30, 60)).save(tmp_path / "viridis.png")
    with pytest.raises(ValueError, match="viridis.png: a coloured picture holds no depth"):
        load_depth(tmp_path / "viridis.png")
    write_exr(tmp_path / "n.exr", {"X": DEPTH})
    with pytest.raises(ValueError, match=r"n.exr: expected a depth channel named Z, .*, found X"):
        load_depth(tmp_path / "n.exr")
    np.savez(tmp_path / "two.npz", a=DEPTH, b=DEPTH)
    with pytest.raises(ValueError, match="two.npz: expected an array 'depth', found a, b"):
        load_depth(tmp_path / "two.npz")
    np.save(tmp_path / "many.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(ValueError, match=r"many.npy: expected depth pictures \[H W\] or \[F H W\], got \(2, 3, 4, 5\)"):
        load_depth(tmp_path / "many.npy")
    for name in ("broken.exr", "broken.npz", "broken.npy", "broken.png"):
        (tmp_path / name).write_bytes(b"half a file")
        with pytest.raises(ValueError, match=name):
            load_depth(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_depth(tmp_path / "none.exr")

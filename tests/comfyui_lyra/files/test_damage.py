"""Every reader, shown damaged files: what it cannot read is one sentence that starts with the file's name."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.load import load_cameras, save_cameras
from lyra_pack.comfyui_lyra.files.cameras.npz import read_poses, save_cameras_npz
from lyra_pack.comfyui_lyra.files.media.depth import load_depth
from lyra_pack.comfyui_lyra.files.media.images import load_image, save_image
from lyra_pack.comfyui_lyra.files.media.video import load_video, save_video
from lyra_pack.comfyui_lyra.files.scenes.depth_zip import load_depth_zip, save_depth_zip
from lyra_pack.comfyui_lyra.files.scenes.geometry import load_geometry, save_geometry
from lyra_pack.comfyui_lyra.files.scenes.latents import load_latents, save_latents
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import load_latent_pkl, save_latent_pkl
from lyra_pack.comfyui_lyra.files.scenes.sdg_manifest import Manifest
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply, save_ply
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.released.sniff import description, sniff
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene

MUTATIONS = 50


def write_exr(path: Path) -> None:
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": np.ones((8, 8), np.float32)}).write(str(path))


def write_latents(path: Path, paths: tuple) -> None:
    latents = VideoLatents(values=torch.zeros(2, 16, 2, 4, 6))
    save_latents(path, MultiViewLatents(latents=latents, cameras=paths, family="a", dynamic=False, provenance={}))


def write_colmap(path: Path, paths: tuple) -> None:
    save_cameras(path.parent, paths, kind="colmap")
    for file in (path.parent / "sparse" / "0").iterdir():
        file.replace(path.parent / file.name)


# file name -> (its writer, its reader)
READERS: dict[str, tuple[Callable, Callable]] = {
    "scene.ply": (lambda path, g, paths: save_ply(path, demo_scene()[::200]), load_ply),
    "paths.json": (lambda path, g, paths: save_cameras(path, paths), load_cameras),
    "transforms.json": (lambda path, g, paths: save_cameras(path, paths), load_cameras),
    "images.txt": (lambda path, g, paths: write_colmap(path, paths), lambda path: load_cameras(path.parent)),
    "cameras.txt": (lambda path, g, paths: write_colmap(path, paths), lambda path: load_cameras(path.parent)),
    "pose.npz": (lambda path, g, paths: save_cameras_npz(path, path.with_name("k.npz"), paths[0]), read_poses),
    "depth.npz": (lambda path, g, paths: np.savez_compressed(path, depth=g.depth.numpy()), load_depth),
    "depth.npy": (lambda path, g, paths: np.save(path, g.depth.numpy()), load_depth),
    "depth.exr": (lambda path, g, paths: write_exr(path), load_depth),
    "depth.zip": (lambda path, g, paths: save_depth_zip(path, g.depth), lambda path: load_depth_zip(path, [0])),
    "depth.png": (lambda path, g, paths: save_image(path, torch.rand(8, 8, 1).expand(-1, -1, 3)), load_depth),
    "photo.png": (lambda path, g, paths: save_image(path, g.frames[0]), load_image),
    "photo.webp": (lambda path, g, paths: save_image(path, g.frames[0]), load_image),
    "clip.mp4": (lambda path, g, paths: save_video(path, g.frames.expand(3, -1, -1, -1), 24), load_video),
    "geometry.safetensors": (lambda path, g, paths: save_geometry(path, g), load_geometry),
    "latents.safetensors": (lambda path, g, paths: write_latents(path, paths), load_latents),
    "latents.pkl": (lambda path, g, paths: save_latent_pkl(path, torch.zeros(16, 2, 4, 6)), load_latent_pkl),
    "night.json": (lambda path, g, paths: Manifest.of({"seed": "1"}, paths).write(path), Manifest.read),
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, doubled, or with another number at one place."""
    at = rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[at : at + 64] + data[at:]
    if kind == 3:
        return data[:at] + rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"999999"]) + data[at + 4 :]
    return data[:at] + data[at + rng.randrange(1, 32) :]


def check(read: Callable[[Path], object], path: Path) -> None:
    try:
        read(path)
    except (ValueError, FileNotFoundError) as error:
        assert str(path.parent) in str(error)
        assert "\n" not in str(error)
    assert description(sniff(path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("seed", [0])
def test_any_damage_is_read_or_one_sentence(name, seed, tmp_path, picture, two_moves):
    write, read = READERS[name]
    write(tmp_path / name, picture, two_moves)
    read(tmp_path / name)  # as it is
    data, rng = (tmp_path / name).read_bytes(), random.Random(f"{name} {seed}")
    for _ in range(MUTATIONS):
        (tmp_path / name).write_bytes(mutated(data, rng))
        check(read, tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_such_file_at_all_is_one_sentence(name, tmp_path, picture, two_moves):
    write, read = READERS[name]
    write(tmp_path / name, picture, two_moves)
    for data in (b"", b"\0" * 100, b"PK\x03\x04", b"<html>", b"{}", b"[" * 100_000, b'{"frames": 1}', b"\xff\xfe" * 9):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: .") as raised:
            read(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert description(sniff(tmp_path / name))
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises((ValueError, FileNotFoundError)):
        read(tmp_path / name)

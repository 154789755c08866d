"""Every reader of files x every way to be wrong: the answer is one sentence that names the file, or the file is read.

The table READERS is the one list of what reads files from elsewhere; a new reader comes into it. ``--long`` makes 1500
mutations of each file instead of 50.
"""

import gzip
import io
import json
import os
import random
import shutil
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from lyra_pack.comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.files.cameras.load import load_cameras, save_cameras
from lyra_pack.comfyui_lyra.files.cameras.npz import read_intrinsics, read_poses, save_cameras_npz
from lyra_pack.comfyui_lyra.files.media.depth import load_depth
from lyra_pack.comfyui_lyra.files.media.images import load_image, save_image
from lyra_pack.comfyui_lyra.files.media.video import load_video, save_video
from lyra_pack.comfyui_lyra.files.scenes.depth_zip import load_depth_zip, save_depth_zip
from lyra_pack.comfyui_lyra.files.scenes.geometry import load_geometry, save_geometry
from lyra_pack.comfyui_lyra.files.scenes.latents import load_latents, load_provenance, save_latents
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import load_latent_pkl, save_latent_pkl
from lyra_pack.comfyui_lyra.files.scenes.sdg_manifest import Manifest
from lyra_pack.comfyui_lyra.files.scenes.vipe import load_vipe
from lyra_pack.comfyui_lyra.files.splats.load import load_splats
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply, save_ply
from lyra_pack.comfyui_lyra.files.splats.sequence import load_sequence
from lyra_pack.comfyui_lyra.gen3c.text import TextEmbeddings, load_text, save_text
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.recon.load import load_recon, save_recon
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.released.sniff import description, sniff
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene
from lyra_pack.comfyui_lyra.tokenizer.files import read_weights
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder, save_tokenizer
from lyra_pack.comfyui_lyra.training.data.members import find_members
from lyra_pack.comfyui_lyra.training.run.checkpoint import Snapshot, load_snapshot, save_snapshot
from lyra_pack.comfyui_lyra.training.run.log import read_log
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_state
from lyra_pack.comfyui_lyra.weights.load import stored_config
from PIL import Image

VIPE = Path(__file__).parents[1] / "data" / "goldens" / "teacher" / "vipe_sample"
TEXT = TeacherConfig(heads=2, head_dim=8, blocks=1, text_dim=12, text_rows=5)


def write_exr(path: Path) -> None:
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": np.ones((8, 8), np.float32)}).write(str(path))


def write_pfm(path: Path) -> None:
    path.write_bytes(b"Pf\n8 8\n-1.0\n" + np.ones((8, 8), "<f4").tobytes())


def write_packed_ply(path: Path) -> None:
    """SuperSplat's form of three splats, the packed numbers of which do not matter."""
    names = [f"{side}_{kind}{axis}" for kind in ("", "scale_") for side in ("min", "max") for axis in "xyz"]
    lines = ["ply", "format binary_little_endian 1.0", "element chunk 1", *(f"property float {n}" for n in names)]
    lines += ["element vertex 3"]
    lines += [f"property uint packed_{n}" for n in ("position", "rotation", "scale", "color")]
    chunk = np.array([-1, -1, -1, 1, 1, 1, -3, -3, -3, -2, -2, -2], "<f4")
    words = np.arange(12, dtype="<u4") * 99991
    path.write_bytes("\n".join([*lines, "end_header\n"]).encode() + chunk.tobytes() + words.tobytes())


def write_spz(path: Path) -> None:
    """Version 3, of four splats at whole numbers."""
    head = struct.pack("<4sIIBBBB", b"NGSP", 3, 4, 1, 0, 0, 0)
    places = b"".join(x.to_bytes(3, "little") for x in range(12))
    path.write_bytes(gzip.compress(head + places + bytes(range(100, 144)) + bytes(4 * 9), mtime=0))


def write_sog(path: Path) -> None:
    """Four splats, their harmonics in a palette of two."""
    files = ("means_l", "means_u", "scales", "quats", "sh0", "shN_centroids", "shN_labels")
    book, named = list(range(256)), [f"{name}.png" for name in files]
    meta = {
        "version": 2, "count": 4, "means": {"mins": [-1, -1, -1], "maxs": [1, 1, 1], "files": named[:2]},
        "scales": {"codebook": [-level / 64 for level in book], "files": named[2:3]}, "quats": {"files": named[3:4]},
        "sh0": {"codebook": book, "files": named[4:5]},
        "shN": {"count": 2, "bands": 1, "codebook": book, "files": named[5:]},
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        for name in named:
            size = (64 * 3, 1) if "centroids" in name else (2, 2)
            levels = np.full((size[1], size[0], 4), 253, np.uint8)
            levels[..., :2] = 0 if "labels" in name else 99
            content = io.BytesIO()
            Image.fromarray(levels).save(content, "PNG")
            archive.writestr(name, content.getvalue())
        archive.writestr("meta.json", json.dumps(meta))


def write_splat(path: Path) -> None:
    path.write_bytes((np.ones((5, 6), "<f4").view(np.uint8).tobytes()[:24] + bytes(range(200, 208))) * 5)


def write_moments(path: Path) -> None:
    save_ply(path.with_name("00000.ply"), demo_scene()[::500])
    frame = {"file": "00000.ply", "time": 0, "splats": 28}
    path.write_text(json.dumps({"format": "lyra-splat-sequence", "version": 1, "fps": 24.0, "frames": [frame]}))


def write_camera_path(path: Path) -> None:
    camera = {"camera_to_world": np.eye(4).flatten().tolist(), "fov": 50, "aspect": 1}
    path.write_text(json.dumps({"camera_path": [camera] * 2, "render_height": 48, "render_width": 64, "fps": 24}))


def write_latents(path: Path, paths: tuple) -> None:
    latents = VideoLatents(values=torch.zeros(2, 16, 2, 4, 6))
    save_latents(path, MultiViewLatents(latents=latents, cameras=paths, family="a", dynamic=False, provenance={}))


def write_colmap(path: Path, paths: tuple) -> None:
    save_cameras(path.parent, paths, kind="colmap")
    for file in (path.parent / "sparse" / "0").iterdir():
        file.replace(path.parent / file.name)


def write_checkpoint(path: Path, **form) -> None:
    torch.save({"model": {"a": torch.arange(6.0), "b": torch.ones(3).half()}, "o": slice(1, 2)}, path, **form)


def write_script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is old
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))


def write_index(path: Path) -> None:
    write_checkpoint(path.with_name("model-00001-of-00001.bin"))
    path.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.bin", "b": "model-00001-of-00001.bin"}}))


def write_tokenizer(path: Path) -> None:
    config = TokenizerConfig(family="toy", channels=8, multipliers=(1, 1, 1), layers=1)
    save_tokenizer(CosmosTokenizer(config, build_autoencoder(config), torch.zeros(16, 2), torch.ones(16, 2)), path)


def read_tokenizer(path: Path) -> object:
    """All that is read of the file; building a network of it each time would take longer than all else here."""
    return stored_config(path, TokenizerConfig), read_weights([path])


def write_recon(path: Path) -> None:
    config = ReconConfig(family="toy", width=32, blocks=2, attention_every=2, heads=2, head_size=16, state=8)
    save_recon(Recon(config), path)


def write_text(path: Path) -> None:
    save_text(path, TextEmbeddings(prompt=torch.ones(1, 5, 12), negative=torch.zeros(1, 5, 12)))


def write_snapshot(path: Path) -> None:
    save_snapshot(
        path.parent, Snapshot(step=1, stage="m1", weights={"w": torch.ones(4)}, optimizer={"m": torch.ones(4)})
    )


def write_tar(path: Path, paths: tuple) -> None:
    write_latents(path.with_name("bird.safetensors"), paths)
    with tarfile.open(path, "w") as tar:
        tar.add(path.with_name("bird.safetensors"), "0/latent/bird.safetensors")


def vipe(path: Path) -> None:
    for kind in ("rgb", "pose", "intrinsics", "depth", "mask"):
        shutil.copytree(VIPE / kind, path.parent.parent / kind, dirs_exist_ok=True)


def read_vipe(path: Path) -> object:
    return load_vipe(path.parent.parent, 0, 3, masks=True)


def as_is(write: Callable, *arguments: str) -> Callable:
    """A writer that is given the path, and of a picture and two camera paths what it names."""
    return lambda path, picture, paths: write(path, *({"picture": picture, "paths": paths}[a] for a in arguments))


def beside(read: Callable) -> Callable:
    return lambda path: read(path.parent)


# file name -> (its writer, its reader)
READERS: dict[str, tuple[Callable, Callable]] = {
    "scene.ply": (lambda path, g, paths: save_ply(path, demo_scene()[::200]), load_ply),
    "packed.ply": (as_is(write_packed_ply), load_ply),
    "scene.spz": (as_is(write_spz), load_splats),
    "scene.sog": (as_is(write_sog), load_splats),
    "scene.splat": (as_is(write_splat), load_splats),
    "manifest.json": (as_is(write_moments), beside(load_sequence)),
    "paths.json": (as_is(save_cameras, "paths"), load_cameras),
    "transforms.json": (as_is(save_cameras, "paths"), load_cameras),
    "camera_path.json": (as_is(write_camera_path), load_cameras),
    "images.txt": (as_is(write_colmap, "paths"), beside(load_cameras)),
    "cameras.txt": (as_is(write_colmap, "paths"), beside(load_cameras)),
    "pose.npz": (lambda path, g, paths: save_cameras_npz(path, path.with_name("k.npz"), paths[0]), read_poses),
    "k.npz": (lambda path, g, paths: save_cameras_npz(path.with_name("p.npz"), path, paths[0]), read_intrinsics),
    "depth.npz": (lambda path, g, paths: np.savez_compressed(path, depth=g.depth.numpy()), load_depth),
    "depth.npy": (lambda path, g, paths: np.save(path, g.depth.numpy()), load_depth),
    "depth.exr": (as_is(write_exr), load_depth),
    "depth.pfm": (as_is(write_pfm), load_depth),
    "depth.tif": (lambda path, g, paths: Image.fromarray(g.depth[0].numpy()).save(path), load_depth),
    "depth.zip": (lambda path, g, paths: save_depth_zip(path, g.depth), lambda path: load_depth_zip(path, [0])),
    "depth.png": (lambda path, g, paths: save_image(path, torch.rand(8, 8, 1).expand(-1, -1, 3)), load_depth),
    "depth.mp4": (lambda path, g, paths: save_video(path, torch.full((3, 32, 48, 3), 0.5), 24), load_depth),
    "photo.png": (lambda path, g, paths: save_image(path, g.frames[0]), load_image),
    "photo.webp": (lambda path, g, paths: save_image(path, g.frames[0]), load_image),
    "photo.jpg": (lambda path, g, paths: save_image(path, g.frames[0]), load_image),
    "clip.mp4": (lambda path, g, paths: save_video(path, g.frames.expand(3, -1, -1, -1), 24), load_video),
    "geometry.safetensors": (as_is(save_geometry, "picture"), load_geometry),
    "latents.safetensors": (as_is(write_latents, "paths"), load_latents),
    "provenance.safetensors": (as_is(write_latents, "paths"), load_provenance),
    "latents.pkl": (lambda path, g, paths: save_latent_pkl(path, torch.zeros(16, 2, 4, 6)), load_latent_pkl),
    "night.json": (lambda path, g, paths: Manifest.of({"seed": "1"}, paths).write(path), Manifest.read),
    "rgb/clip_a.mp4": (as_is(vipe), read_vipe),
    "pose/clip_a.npz": (as_is(vipe), read_vipe),
    "intrinsics/clip_a.npz": (as_is(vipe), read_vipe),
    "intrinsics/clip_a_camera.txt": (as_is(vipe), read_vipe),
    "depth/clip_a.zip": (as_is(vipe), read_vipe),
    "mask/clip_a.zip": (as_is(vipe), read_vipe),
    "model.pt": (as_is(write_checkpoint), read_state),
    "legacy.pt": (as_is(partial(write_checkpoint, _use_new_zipfile_serialization=False)), read_state),
    "model.jit": (as_is(write_script), read_state),
    "model.bin.index.json": (as_is(write_index), read_state),
    "tokenizer.safetensors": (as_is(write_tokenizer), read_tokenizer),
    "recon.safetensors": (as_is(write_recon), load_recon),
    "text.safetensors": (as_is(write_text), lambda path: load_text(path, TEXT)),
    "step-00000001.json": (as_is(write_snapshot), load_snapshot),
    "log.jsonl": (lambda path, g, paths: path.write_text('{"step": 1, "loss": 0.5}\n' * 9), read_log),
    "scenes.tar": (as_is(write_tar, "paths"), lambda path: find_members([path])),
}
# of a folder of several files, or read line by line: it is read without what is broken, or only looked at
FORGIVING = {
    "manifest.json",  # without one, files count by their numbers
    "scene.splat",  # which begins with nothing that says what it is
    "provenance.safetensors",
    "intrinsics/clip_a_camera.txt",
    "depth/clip_a.zip",
    "mask/clip_a.zip",
    "log.jsonl",
}

FOREIGN = {
    "empty": b"", "zeros": b"\0" * 100, "a zip's first bytes": b"PK\x03\x04", "an empty zip": b"PK\5\6" + b"\0" * 18,
    "a web page": b"<!doctype html><html>", "an object": b"{}", "brackets without end": b"[" * 100_000,
    "objects without end": b'{"a":' * 100_000, "a number": b"7", "null": b"null", "other JSON": b'{"frames": 1}',
    "UTF-16": b"\xff\xfe" * 9, "a program": b"\x7fELF" + b"\2" * 60, "compressed": b"\x1f\x8b\x08" + b"\0" * 20,
    "a safetensors header of 2**60 bytes": b"\0" * 7 + b"\x10{}",
    "a PLY without splats": b"ply\nformat ascii 1.0\nend_header\n",
    "a pickle that calls": b"cos\nsystem\n(S'touch ran'\ntR.",
    "an array's half header": b"\x93NUMPY\x01\0\x16\0{'descr': '|O', 'shape",
    "a pointer to elsewhere": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
}  # fmt: skip
CHANGED = {
    "half": lambda data: data[: len(data) // 2],
    "without its last byte": lambda data: data[:-1],
    "without its first byte": lambda data: data[1:],
    "twice": lambda data: data * 2,
    "followed by zeros": lambda data: data + bytes(1000),
    "after a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "sent as text": lambda data: data.replace(b"\n", b"\r\n"),
    "received as text": lambda data: data.decode("utf-8", "replace").encode(),
    "with its second half zero": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "backwards": lambda data: data[::-1],
    "upper case": bytes.upper,
    "ones for zeros": lambda data: data.replace(b"\0", b"\xff"),
    "no number": lambda data: data.replace(b"1", b"nan"),
    "numbers beyond all": lambda data: data.replace(b"1", b"1e999"),
    "numbers without end": lambda data: data.replace(b"1", b"1" * 5000, 3),
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


@pytest.fixture
def shown(tmp_path, picture, two_moves):
    """A whole file of a kind, its reader, and a check that what the reader says of it is nothing or one sentence."""

    def make(name: str) -> tuple[Path, Callable]:
        write, read = READERS[name]
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write(path, picture, two_moves)
        read(path)  # as it is

        def told() -> str:
            try:
                read(path)
                return ""
            except (ValueError, FileNotFoundError) as error:
                text = str(error)
            assert path.name in text or str(tmp_path) in text
            assert "\n" not in text and len(text) < 2000
            return text

        return path, told

    return make


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_any_mutation_is_read_or_one_sentence(name, shown, long):
    path, told = shown(name)
    data, rng = path.read_bytes(), random.Random(f"{name} 0")
    for _ in range(1500 if long else 50):
        path.write_bytes(mutated(data, rng))
        told()
        assert description(sniff(path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_what_travelled_badly_is_read_or_one_sentence(name, shown):
    path, told = shown(name)
    data = path.read_bytes()
    for change in CHANGED.values():
        path.write_bytes(change(data))
        told()
        assert description(sniff(path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_such_file_at_all_is_one_sentence(name, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, told = shown(name)
    for what, data in FOREIGN.items():
        path.write_bytes(data)
        assert told() or name in FORGIVING, what
        assert description(sniff(path)), what
    assert not (tmp_path / "ran").exists()


def absent(path: Path) -> None:
    pass


def to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


PLACES = [absent, Path.mkdir, to_itself, dangling]
if hasattr(os, "mkfifo"):
    PLACES.append(os.mkfifo)  # opening one would wait for ever


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_one_sentence(name, shown):
    path, told = shown(name)
    for place in PLACES:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        place(path)
        assert told() or name in FORGIVING, place.__name__

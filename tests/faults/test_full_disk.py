"""Every writer on a disk that is really full: one sentence, what was there stays, nothing is left lying about."""

import subprocess
from functools import partial

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.configs import TokenizerConfig
from lyra_pack.comfyui_lyra.files.cameras.load import save_cameras
from lyra_pack.comfyui_lyra.files.media.images import save_image
from lyra_pack.comfyui_lyra.files.media.video import save_video
from lyra_pack.comfyui_lyra.files.scenes.dataset import save_dataset
from lyra_pack.comfyui_lyra.files.scenes.depth_zip import save_depth_zip
from lyra_pack.comfyui_lyra.files.scenes.geometry import save_geometry
from lyra_pack.comfyui_lyra.files.scenes.latents import save_latents
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import save_latent_pkl
from lyra_pack.comfyui_lyra.files.scenes.scene import save_scene
from lyra_pack.comfyui_lyra.files.splats.formats import WRITTEN
from lyra_pack.comfyui_lyra.files.splats.ply import save_ply
from lyra_pack.comfyui_lyra.files.splats.save import save_splats
from lyra_pack.comfyui_lyra.files.splats.sequence import save_sequence
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene
from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence
from lyra_pack.comfyui_lyra.training.run.checkpoint import Snapshot, latest, save_snapshot
from lyra_pack.comfyui_lyra.training.run.log import RunLog, read_log
from lyra_pack.comfyui_lyra.weights.load import save_weights

SIZE, LEFT = 512 << 10, 8 << 10  # bytes of the disk, and of it free


@pytest.fixture
def disk(tmp_path):
    """A disk of half a megabyte with a few kilobytes free."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", tmp_path]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small disk")
    try:
        (tmp_path / "filler").write_bytes(bytes(SIZE - LEFT))
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


PATHS = camera_paths(pinhole_camera(64, 48, 50), PathSettings("six_paths", 121))
VALUES = noise(6, 16, 16, 6, 8)
SCENE = MultiViewLatents(latents=VideoLatents(values=VALUES), cameras=PATHS, family="mini", dynamic=False)
GEOMETRY = Geometry(
    frames=noise(1, 96, 160, 3), depth=noise(1, 96, 160) + 1, valid=torch.ones(1, 96, 160, dtype=torch.bool),
    cameras=pinhole_camera(160, 96, 50), scale=1.0,
)  # fmt: skip
SPLATS = demo_scene()


def save_in(name, path):
    pytest.importorskip({"gaussforge": "gaussforge", "usd-core": "pxr"}.get(WRITTEN[name].needs, "torch"))
    save_splats(path, SPLATS)


WRITERS = {
    "a.ply": lambda path: save_ply(path, SPLATS),
    **{f"a.{name}": partial(save_in, name) for name in WRITTEN if name not in ("ply", "html")},
    "latents.safetensors": lambda path: save_latents(path, SCENE),
    "a.pkl": lambda path: save_latent_pkl(path, VALUES[0]),
    "geometry.safetensors": lambda path: save_geometry(path, GEOMETRY),
    "weights.safetensors": lambda path: save_weights(path, {"w": noise(30_000)}, TokenizerConfig()),
    "cameras.json": lambda path: save_cameras(path, PATHS),
    "transforms.json": lambda path: save_cameras(path, PATHS),
    "depth.zip": lambda path: save_depth_zip(path, noise(9, 96, 160) + 1),
    "a.png": lambda path: save_image(path, noise(96, 160, 3)),
    "a.mp4": lambda path: save_video(path, noise(17, 96, 160, 3), 24.0),
}
FOLDERS = {
    "colmap": lambda path: save_cameras(path, PATHS, kind="colmap"),
    "npz": lambda path: save_cameras(path, PATHS, kind="npz"),
    "dataset": lambda path: save_dataset(path, PATHS[:1], [noise(121, 48, 64, 3)]),
    "sequence": lambda path: save_sequence(path, GaussianSequence(frames=(SPLATS,), times=(0,))),
    "scene": lambda path: save_scene(path, "clip", SCENE),
}


def temporaries(disk):
    return [path.name for path in disk.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit_leaves_the_one_before(disk, name):
    (disk / name).write_text("before")
    with pytest.raises(ValueError, match=r"No space left on device; free some space or choose another disk$") as error:
        WRITERS[name](disk / name)
    assert f"cannot write {disk / name}" in str(error.value) and "\n" not in str(error.value)
    assert (disk / name).read_text() == "before" and not temporaries(disk)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_does_not_fit_is_one_sentence(disk, name, monkeypatch):
    for writer in ("splats.sequence", "scenes.sdg_writer"):  # which look beforehand, and may be overtaken
        monkeypatch.setattr(f"lyra_pack.comfyui_lyra.files.{writer}.check_disk", lambda *_: None)
    with pytest.raises(ValueError, match=r"cannot write .*: No space left on device; free some space"):
        FOLDERS[name](disk / name)
    assert not temporaries(disk)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk):
    save_snapshot(disk / "run", Snapshot(step=1, stage="m1", weights={"w": torch.ones(4)}))
    with pytest.raises(ValueError, match=r"cannot write .*run: No space left on device; free some space"):
        save_snapshot(disk / "run", Snapshot(step=2, stage="m1", weights={"w": noise(30_000)}))
    assert latest(disk / "run").step == 1 and not temporaries(disk)
    (disk / "filler").unlink()
    save_snapshot(disk / "run", Snapshot(step=2, stage="m1", weights={"w": noise(30_000)}))
    assert latest(disk / "run").step == 2


def test_a_log_that_does_not_fit_is_one_sentence_and_keeps_its_lines(disk):
    def fill(log):
        for step in range(1000):
            log.numbers(step, {"loss": 1.0})

    message = r"cannot write .*log.jsonl: No space left on device; free some space"
    with RunLog(disk / "run", tensorboard=False) as log, pytest.raises(ValueError, match=message):
        fill(log)
    assert len(read_log(disk / "run" / "log.jsonl")) > 50

import io
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory
from lyra_pack.comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.gen3c.load import Teacher, save_teacher
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, save_tokenizer
from lyra_pack.comfyui_lyra.training.train_teacher import initial_teacher
from lyra_pack.comfyui_lyra.training.train_tokenizer import initial_autoencoder
from torch.nn import functional


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors: threads of several test runs on few cores would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rays_of(camera: CameraTrajectory) -> torch.Tensor:
    """Directions [H, W, 3] with z 1 through the centres of the pixels of a camera at the origin."""
    (fx, _, cx), (_, fy, cy), _ = camera.K[0]
    y, x = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    return torch.stack(((x - cx) / fx, (y - cy) / fy, torch.ones_like(x)), -1)


def error_of(from_rgb, from_depth, from_camera, to_rgb, to_depth, to_camera) -> tuple[float, float]:
    """Share of pixels of the first picture seen in the second too, and the median difference of their colours."""
    rays = rays_of(replace(from_camera, c2w=torch.eye(4)[None]))
    known = from_depth.isfinite() & (from_depth > 0)
    points = rays * torch.where(known, from_depth, 1)[..., None]
    points = points @ from_camera.c2w[0, :3, :3].T + from_camera.c2w[0, :3, 3]
    w2c = to_camera.viewmats[0]
    x, y, z = (points @ w2c[:3, :3].T + w2c[:3, 3]).unbind(-1)
    (fx, _, cx), (_, fy, cy), _ = to_camera.K[0]
    grid = torch.stack(((fx * x / z + cx) / to_camera.width, (fy * y / z + cy) / to_camera.height), -1) * 2 - 1
    near = torch.where(to_depth > 0, to_depth, 1e4).clamp_max(1e4)[None, None]
    found = functional.grid_sample(near, grid[None], align_corners=False, mode="nearest")[0, 0]
    seen = known & (z > 0) & (grid.abs() < 1).all(-1) & ((found - z).abs() < 0.03 * z)
    colors = functional.grid_sample(to_rgb.movedim(-1, 0)[None], grid[None], align_corners=False)[0].movedim(0, -1)
    return seen.float().mean().item(), (colors - from_rgb).abs().mean(-1)[seen].median().item()


@pytest.fixture(scope="session")
def pixel_rays():
    return rays_of


@pytest.fixture(scope="session")
def warp_error():
    return error_of


@pytest.fixture(scope="session")
def nano_size() -> tuple[int, int]:
    return 32, 48


@pytest.fixture(scope="session")
def nano_tokenizer() -> CosmosTokenizer:
    """Untrained; what comes back still resembles what went in."""
    config = TokenizerConfig(family="mini", channels=8, multipliers=(1, 1, 1), layers=1)
    autoencoder = initial_autoencoder(config, 0).requires_grad_(False)
    return CosmosTokenizer(config, autoencoder, torch.zeros(16, 2), torch.full((16, 2), 0.5))


@pytest.fixture(scope="session")
def nano_teacher(nano_size) -> Teacher:
    """Untrained, but not without effect."""
    config = TeacherConfig(
        family="mini", trained_size=nano_size, trained_frames=9, heads=2, head_dim=16, blocks=1, adaln_rank=4,
        text_dim=8, text_rows=2, max_grid=(2, 4, 6), bf16_angles=False,
    )  # fmt: skip
    network = initial_teacher(config, 0).requires_grad_(False)
    torch.nn.init.normal_(network.proj_out.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return Teacher(network=network, config=config, fingerprint="nano", dtype=torch.float32)


@pytest.fixture(scope="session")
def nano_recon(nano_size) -> ReconConfig:
    return ReconConfig(
        family="mini", trained_size=nano_size, trained_frames=9, width=32, blocks=2, attention_every=2, heads=2,
        head_size=16, state=16, near=0.06, far=20.0, distance_shift=-3.0, bf16_plucker=False, bf16_rays=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def nano_files(tmp_path_factory, nano_tokenizer, nano_teacher):
    """The tokenizer's and the teacher's files."""
    folder = tmp_path_factory.mktemp("nano")
    save_tokenizer(nano_tokenizer, folder / "tokenizer.safetensors")
    save_teacher(nano_teacher, folder / "teacher.safetensors")
    return folder / "tokenizer.safetensors", folder / "teacher.safetensors"


def spoil(member: str, change):
    """Change the bytes of one file of the scene ``bird``."""
    return lambda root: (root / member).write_bytes(change((root / member).read_bytes()))


def rewritten(change):
    def again(data: bytes) -> bytes:
        with np.load(io.BytesIO(data)) as arrays:
            arrays = dict(arrays)
        out = io.BytesIO()
        np.savez(out, **change(arrays))
        return out.getvalue()

    return again


def with_nan(arrays):
    arrays["data"][3, 0, 3] = np.nan
    return arrays


def sheared(arrays):
    arrays["data"][2, 0, 0] = 3
    return arrays


def without_frame(data: bytes) -> bytes:
    out = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as old, ZipFile(out, "w") as new:
        names = old.namelist()
        for name in names[: len(names) // 2] + names[len(names) // 2 + 1 :]:
            new.writestr(name, old.read(name))
    return out.getvalue()


def bad_exr(data: bytes) -> bytes:
    out = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as old, ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:100])
    return out.getvalue()


def packed_noise(data: bytes) -> bytes:
    """The arrays compressed, and then overwritten in the middle of the first."""
    out = io.BytesIO()
    with np.load(io.BytesIO(data)) as arrays:
        np.savez_compressed(out, **arrays)
    return out.getvalue()[:60] + b"\xff" * 20 + out.getvalue()[80:]


MALICE = b"cos\nsystem\n(S'touch stolen'\ntR."


def malicious(root: Path) -> None:
    (root / "0/latent/bird.safetensors").unlink()
    (root / "0/latent/bird.pkl").write_bytes(MALICE)


def cut_short(root: Path) -> None:
    (root / "0/latent/bird.safetensors").unlink()
    spoil("0/latent/bird.pkl", lambda data: data[: len(data) // 2])(root)


def wrong_length(root: Path) -> None:
    for suffix in ("safetensors", "pkl"):
        (root / f"0/latent/bird.{suffix}").unlink()
    torch.save(np.zeros((1, 16, 3, 4, 6), np.float32), root / "0/latent/bird.pkl")


def not_finite(root: Path) -> None:
    (root / "0/latent/bird.safetensors").unlink()
    torch.save(np.full((1, 16, 2, 4, 6), np.inf, np.float32), root / "0/latent/bird.pkl")


DAMAGES = {
    "truncated mp4": ("0/rgb/bird.mp4", spoil("0/rgb/bird.mp4", lambda data: data[: len(data) // 2])),
    "mp4 of noise": ("0/rgb/bird.mp4", spoil("0/rgb/bird.mp4", lambda data: data[::-1])),
    "truncated npz": ("1/pose/bird.npz", spoil("1/pose/bird.npz", lambda data: data[: len(data) // 2])),
    "noise in a packed npz": ("1/intrinsics/bird.npz", spoil("1/intrinsics/bird.npz", packed_noise)),
    "zero-byte npz": ("1/pose/bird.npz", spoil("1/pose/bird.npz", lambda _: b"")),
    "npz without inds": (
        "1/pose/bird.npz",
        spoil("1/pose/bird.npz", rewritten(lambda arrays: {"data": arrays["data"]})),
    ),
    "NaN pose": ("0/pose/bird.npz", spoil("0/pose/bird.npz", rewritten(with_nan))),
    "pose that is no rotation": ("0/pose/bird.npz", spoil("0/pose/bird.npz", rewritten(sheared))),
    "negative focal length": (
        "0/pose/bird.npz",  # found where both are put together
        spoil("0/intrinsics/bird.npz", rewritten(lambda a: a | {"data": -a["data"]})),
    ),
    "frame numbers that start at 1": (
        "1/pose/bird.npz",
        spoil("1/pose/bird.npz", rewritten(lambda a: a | {"inds": a["inds"] + 1})),
    ),
    "latent with wrong T'": ("0/latent/bird.pkl", wrong_length),
    "latent of infinities": ("0/latent/bird.pkl", not_finite),
    "malicious pickle": ("0/latent/bird.pkl", malicious),
    "truncated pickle": ("0/latent/bird.pkl", cut_short),
    "truncated safetensors": (
        "0/latent/bird.safetensors",
        spoil("0/latent/bird.safetensors", lambda data: data[:-40]),
    ),
    "corrupt zip directory": ("0/depth/bird.zip", spoil("0/depth/bird.zip", lambda data: data[:-30])),
    "corrupt EXR": ("0/depth/bird.zip", spoil("0/depth/bird.zip", bad_exr)),
}


@pytest.fixture(params=DAMAGES.values(), ids=DAMAGES.keys())
def damaged(request):
    """A file of the scene ``bird``, and what spoils it in a folder."""
    return request.param


@pytest.fixture
def change_arrays():
    """Rewrites the arrays of an npz below a folder."""
    return lambda root, member, change: spoil(member, rewritten(change))(root)


@pytest.fixture
def lose_depth():
    """Takes one depth map out of the middle of a clip of the scene ``bird``."""
    return spoil("0/depth/bird.zip", without_frame)

"""Node tests run in this process under the real comfy_api, on the CPU, with folders of their own.

``PYTHONPATH=/path/to/ComfyUI python -m pytest tests/nodes``, with an interpreter that has ComfyUI's requirements.
"""

import importlib.util

import pytest
import torch
from torch.overrides import TorchFunctionMode

if importlib.util.find_spec("comfy_api"):
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()  # before anything asks for a device


class Card(TorchFunctionMode):
    """Meta tensors stand for a GPU's, which must not meet the CPU's: what is brought to the CPU is zeros, and true."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        own = isinstance(args[0] if args else None, torch.Tensor) and args[0].is_meta
        if own and (func is torch.Tensor.cpu or (func is torch.Tensor.to and args[1] == "cpu")):
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if own and func is torch.Tensor.__bool__:
            return True
        return func(*args, **(kwargs or {}))


@pytest.fixture
def card():
    """A device of a GPU, where there is none."""
    with Card():
        yield torch.device("meta")


@pytest.fixture
def folders(tmp_path):
    """ComfyUI's input, output and temporary folders, empty."""
    import folder_paths

    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        getattr(folder_paths, f"set_{kind}_directory")(str(tmp_path / kind))
    return tmp_path


@pytest.fixture
def models(folders, monkeypatch):
    """ComfyUI's models folder, empty, and none of ours that come with the pack."""
    import folder_paths
    from lyra_pack.nodes.comfy import folders as places
    from lyra_pack.nodes.comfy import shelf

    root = folders / "models"
    monkeypatch.setattr(folder_paths, "models_dir", str(root))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for key in ("vae", "diffusion_models"):
        found = [str(root / key)], folder_paths.folder_names_and_paths[key][1]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, key, found)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, places.OURS, ([], set()))
    for module in (places, shelf):
        monkeypatch.setattr(module, "MINI", folders / "mini")
    for name in ("mini", "models/vae", "models/diffusion_models", "models/lyra"):
        (folders / name).mkdir(parents=True)
    return root


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A tokenizer of random weights for clips of 9 frames."""
    from lyra_pack.comfyui_lyra.configs import TokenizerConfig
    from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder

    torch.manual_seed(1)
    config = TokenizerConfig(family="tiny", channels=8, multipliers=(1, 2, 2), layers=1)
    return CosmosTokenizer(config, build_autoencoder(config), torch.zeros(16, 2), torch.ones(16, 2))


@pytest.fixture(scope="session")
def tiny_teacher():
    """A teacher of random weights, two blocks, for clips of 9 frames of 32x48."""
    from lyra_pack.comfyui_lyra.bench.teacher import random_teacher
    from lyra_pack.comfyui_lyra.configs import TeacherConfig
    from lyra_pack.comfyui_lyra.gen3c.load import Teacher

    config = TeacherConfig(
        family="tiny", trained_size=(32, 48), trained_frames=9, heads=2, head_dim=16, blocks=2, adaln_rank=8,
        text_dim=12, text_rows=5, max_grid=(8, 16, 16), bf16_angles=False,
    )  # fmt: skip
    network = random_teacher(config, torch.device("cpu")).float()
    return Teacher(network=network, config=config, fingerprint="random", dtype=torch.float32, licence="Apache-2.0")


@pytest.fixture(scope="session")
def tiny_recon():
    """A dynamic splat decoder of random weights, two blocks, for clips of 9 frames of 32x48."""
    from lyra_pack.comfyui_lyra.configs import ReconConfig
    from lyra_pack.comfyui_lyra.recon.model import Recon

    config = ReconConfig(
        family="tiny", dynamic=True, trained_size=(32, 48), trained_frames=9, width=32, blocks=2, attention_every=2,
        heads=2, head_size=16, state=8, keep=0.3,
    )  # fmt: skip
    torch.manual_seed(2)
    model, generator = Recon(config).eval(), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():  # some begin at zero
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture
def tiny_scene():
    """Latents of two paths of 9 frames of 32x48, for the tiny models."""
    from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
    from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
    from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents

    paths = camera_paths(pinhole_camera(48, 32, 50), PathSettings("six_paths", 9))[:2]
    values = torch.randn(2, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    return MultiViewLatents(latents=VideoLatents(values=values), cameras=paths, family="tiny", dynamic=True)

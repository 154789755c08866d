import math

import pytest
import torch
from lyra_pack.comfyui_lyra.training.perceptual import CONVOLUTIONS, WIDTHS, load_lpips


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors: threads of several test runs on few cores would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def wave(shape, rate: float, phase: float) -> torch.Tensor:
    """sin(rate * i + phase) over the flat index i, in float64."""
    return torch.sin(rate * torch.arange(math.prod(shape), dtype=torch.float64) + phase).view(shape)


def formula_vgg() -> dict[str, torch.Tensor]:
    """VGG16 as torchvision names it, with the weights of losses.json: vgg_formula, and a classifier to pass over."""
    state, channels, number = {"classifier.0.weight": torch.zeros(4, 4)}, 3, 0
    order = [width for width, count in zip(WIDTHS, CONVOLUTIONS, strict=True) for _ in range(count)]
    places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    for width, place in zip(order, places, strict=True):
        scale = math.sqrt(6 / (9 * channels))
        weight = scale * wave((width, channels, 3, 3), 0.7 + 0.013 * number, 0.3 * number)
        state[f"features.{place}.weight"] = weight.float()
        state[f"features.{place}.bias"] = (0.05 * wave((width,), 0.31, 0.2 * number)).float()
        channels, number = width, number + 1
    return state


def formula_heads() -> dict[str, torch.Tensor]:
    """The heads of losses.json: vgg_formula, as the lpips package names them."""
    return {
        f"lin{k}.model.1.weight": ((0.05 * wave((1, width, 1, 1), 0.9, 0.5 * k)).abs() + 0.01).float()
        for k, width in enumerate(WIDTHS)
    }


@pytest.fixture(scope="session")
def lpips_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpips")
    torch.save(formula_vgg(), folder / "vgg16.pth")
    torch.save(formula_heads(), folder / "vgg.pth")
    return folder / "vgg16.pth", folder / "vgg.pth"


@pytest.fixture(scope="session")
def lpips(lpips_files):
    return load_lpips(*lpips_files)

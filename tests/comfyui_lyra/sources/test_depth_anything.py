import pytest
import torch
from lyra_pack.comfyui_lyra.sources.depth_anything import DepthAnything


class Brightness(torch.nn.Module):
    """As if bright were near; remembers the pictures' sizes."""

    def __init__(self):
        super().__init__()
        self.place, self.sizes = torch.nn.Parameter(torch.zeros(1)), []

    def forward(self, pixel_values):
        self.sizes.append(tuple(pixel_values.shape[2:]))
        return type("Depth", (), {"predicted_depth": 7 + 3 * pixel_values.mean(1)})


def test_levels_are_one_where_it_is_nearest_and_zero_where_farthest_of_all_frames():
    frames = torch.full((2, 20, 30, 3), 0.5)
    frames[0, :10], frames[1, 10:] = 0.0, 1.0
    network = Brightness()
    levels = DepthAnything(network, short=28)(frames)
    assert network.sizes == [(28, 42)] * 2  # whole patches, the shorter side as it was trained
    assert levels.shape == (2, 20, 30) and levels.min() == 0 and levels.max() == 1
    assert levels[0, :8].max() < 0.1 and levels[1, 13:].min() > 0.9
    assert (levels[0, 15] - levels[1, 3]).abs().max() < 0.05  # one scale for both


def test_a_picture_without_any_depth_is_told():
    with pytest.raises(ValueError, match="bring its depth"):
        DepthAnything(Brightness(), short=28)(torch.zeros(1, 20, 30, 3))


def test_a_folder_without_the_model_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no Depth Anything here"):
        DepthAnything.load(tmp_path)

import pytest
import torch
from lyra_pack.comfyui_lyra.visualise import depth_in_jet, wave


@pytest.mark.golden("decoder/visualisation")
def test_golden_wave(golden):
    picture, depth = golden["images"][0, 0].movedim(0, -1), golden["depths"][0, 0, 0]
    frames = torch.stack(list(wave(picture, depth)))
    truth = golden["wave"][0].movedim(1, -1)
    assert frames.shape == truth.shape
    torch.testing.assert_close(frames, truth, rtol=0, atol=1.01 / 255)
    assert (frames != truth).float().mean() < 0.01  # rounding of the last bit only


@pytest.mark.golden("decoder/visualisation")
def test_golden_depth_colours(golden):
    found = depth_in_jet(golden["depths"][0, :, 0])
    torch.testing.assert_close(found, golden["depth_visu"][0].movedim(1, -1), rtol=0, atol=1.01 / 255)


def test_near_is_red_and_far_blue():
    colors = depth_in_jet(torch.linspace(1, 9, 100).view(1, 10, 10)).view(100, 3)
    assert colors[0, 0] > 0.4 > colors[0, 2] and colors[-1, 2] > 0.4 > colors[-1, 0]


def test_flat_depth_has_one_colour_and_a_wave():
    flat = torch.full((4, 6), 2.0)
    assert len(depth_in_jet(flat[None]).view(-1, 3).unique(dim=0)) == 1
    frames = list(wave(torch.full((4, 6, 3), 0.3), flat))
    assert frames[0].max() < 0.3 < frames[24].min() and torch.equal(frames[-1], frames[0])


def test_percentiles_of_a_long_clip_come_from_a_sample(monkeypatch):
    depth = torch.linspace(1, 9, 10_000).view(1, 100, 100)
    exact = depth_in_jet(depth)
    monkeypatch.setattr("lyra_pack.comfyui_lyra.visualise.MAX_SAMPLE", 999)
    torch.testing.assert_close(depth_in_jet(depth), exact, rtol=0, atol=0.05)

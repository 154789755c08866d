import zlib
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.viewer.pack import CHUNK, CHUNK_BYTES, SPLAT_BYTES, along_a_curve, pack
from unpacking import unpacked

EYE = torch.tensor([1.0, -2.0, 3.0])


@pytest.fixture(scope="module")
def pair(splats):
    """The splats in the order of the file, and as they come back."""
    away = splats.means - EYE
    return splats[along_a_curve(away)], unpacked(pack(splats, EYE))


def test_places_come_back_finely_whatever_lies_far_out(pair):
    before, after = pair
    distance = (before.means - EYE).norm(dim=1)
    error = (after.means - before.means).norm(dim=1) / (distance + distance.median() / 4)
    assert error.max() < 5e-4 and error.median() < 1e-4
    assert (after.means - before.means).abs().max() > 0  # they are rounded, so the bound above can fail


def test_scales_colours_and_opacities_come_back_within_their_steps(pair):
    before, after = pair
    assert (after.scales / before.scales - 1).abs().max() < 0.018
    assert (after.colors - before.colors).abs().max() < 0.5001 / 255
    assert (after.opacities - before.opacities).abs().max() < 0.5001 / 255


def test_turns_come_back_within_about_a_degree(pair):
    before, after = pair
    cosine = (before.quats * after.quats).sum(1).abs().clamp_max(1)
    assert torch.rad2deg(2 * cosine.acos()).max() < 1.1


def test_a_moment_takes_less_than_20_bytes_a_splat(splats):
    raw = len(zlib.decompress(pack(splats, EYE)))
    assert raw == 32 + CHUNK_BYTES * -(-len(splats) // CHUNK) + SPLAT_BYTES * len(splats)
    assert raw < 20 * len(splats)


def test_what_is_too_faint_to_be_drawn_is_left_out(splats):
    faint = replace(splats, opacities=torch.where(torch.arange(len(splats)) < 100, 1 / 256, splats.opacities))
    assert len(unpacked(pack(faint, EYE))) == int((faint.opacities >= 1 / 255).sum()) <= len(splats) - 100


@pytest.mark.parametrize("count", [0, 1, 256, 257])
def test_any_number_of_splats_is_packed(splats, count):
    assert len(unpacked(pack(replace(splats, opacities=torch.ones(len(splats)))[:count], EYE))) == count


def test_splats_without_numbers_are_refused(splats):
    with pytest.raises(ValueError, match="NaN or infinity"):
        pack(replace(splats, means=splats.means * torch.nan), EYE)


def test_colours_beyond_what_a_picture_shows_are_cut(splats):
    bright = replace(splats, colors=splats.colors * 3 - 1)
    assert unpacked(pack(bright, EYE)).colors.amax() == 1

import logging

import pytest
import torch
from lyra_pack.comfyui_lyra.files.media.depth_values import check_meaning, grey, in_metres, levels

LENGTHS = torch.linspace(2, 30, 12).reshape(1, 3, 4)
BYTES = torch.arange(12).reshape(1, 3, 4) / 255
SHORTS = (torch.arange(12).reshape(1, 3, 4) * 100 + 1000) / 65535


def test_grey_takes_the_tint_of_lossy_pictures_and_keeps_bytes_bytes():
    tinted = BYTES[..., None].repeat(1, 1, 1, 3) + 100 / 255
    tinted[..., 0] += 2 / 255
    tinted[..., 2] -= 3 / 255
    values = grey(tinted)
    assert ((values - BYTES - 100 / 255).abs() < 1.01 / 255).all() and levels(values) == 255
    exact = LENGTHS[..., None].expand(-1, -1, -1, 3)
    assert torch.equal(grey(exact), LENGTHS)
    with pytest.raises(ValueError, match="a coloured picture holds no depth"):
        grey(torch.tensor([[[0.2, 0.5, 0.9]]]))


def test_where_alpha_is_0_nothing_is_known_whatever_the_colour():
    found = grey(torch.tensor([[[0.5, 0.5, 0.5, 1.0], [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.1]]]))
    assert found[0].isnan().tolist() == [False, True, False]
    assert found[0, [0, 2]].tolist() == [0.5, 0.25]


def test_levels_are_told_from_lengths():
    assert levels(BYTES) == 255 and levels(SHORTS) == 65535
    for lengths in (LENGTHS, LENGTHS / 60, BYTES.round(), -BYTES):
        assert levels(lengths) is None


def test_levels_are_brought_back_to_the_numbers_of_their_file(caplog):
    expected = torch.arange(12).reshape(1, 3, 4) * 100.0 + 1000
    torch.testing.assert_close(in_metres(SHORTS, "mm"), expected / 1000)
    torch.testing.assert_close(in_metres(SHORTS, "m"), expected)
    torch.testing.assert_close(in_metres(torch.full((1, 2, 2), 1000 / 65535), "mm"), torch.ones(1, 2, 2))
    assert torch.equal(in_metres(LENGTHS, "mm"), LENGTHS / 1000) and torch.equal(in_metres(LENGTHS, "m"), LENGTHS)
    assert in_metres(SHORTS, None) is SHORTS and in_metres(SHORTS, "levels") is SHORTS
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "lyra"):
        torch.testing.assert_close(in_metres(BYTES, "m"), BYTES * 255)
    assert "8-bit levels, 256 lengths in all" in caplog.text


@pytest.mark.parametrize(
    ("values", "meaning", "unit", "message"),
    [
        (LENGTHS, "near-far", None, "levels from 0 to 1, these run from 2 to 30: lengths, so use meaning depth"),
        (BYTES.where(BYTES > 0, torch.inf), "near-far", None, "these run from .* to inf: lengths"),
        (-BYTES, "near-far", None, "these run from -0.04314 to"),
        (BYTES, "near-far", "mm", "near-far pictures hold levels .*, no lengths in mm"),
        (1 / LENGTHS, "disparity", "m", "disparity is 1 / depth and has no unit m"),
        (BYTES, "depth", None, "the depth picture holds 8-bit levels from 0 to 1, not lengths; use near-far"),
        (BYTES, "disparity", None, "the disparity picture holds 8-bit levels"),
        (-LENGTHS, "depth", None, "depth is negative, as along an axis that points to the eye"),
        (LENGTHS, "depth", "cm", "depth unit 'cm' is none of m, mm, levels"),
    ],
)
def test_numbers_that_cannot_be_what_is_said_are_refused(values, meaning, unit, message):
    with pytest.raises(ValueError, match=message):
        check_meaning(values, meaning, unit)


@pytest.mark.parametrize(
    ("values", "meaning", "unit", "message"),
    [
        (SHORTS, "depth", None, "16-bit levels, read as numbers / 65535 of an unknown unit"),
        (SHORTS, "depth", "levels", ""),
        (SHORTS, "near-far", None, ""),
        (SHORTS, "disparity", None, ""),
        (BYTES, "near-far", None, ""),
        (BYTES, "depth", "levels", ""),
        (LENGTHS / 30, "depth", None, "all depth lies between 0 and 1, .* if this is one, use near-far"),
        (LENGTHS / 30, "depth", "m", ""),
        (LENGTHS, "depth", None, ""),
        (LENGTHS - 3, "depth", None, "8.3 % of the depth picture is negative, so unknown"),
        (1 / (LENGTHS - 2), "disparity", None, "disparity is infinite in places"),
    ],
)
def test_numbers_that_hardly_are_what_is_said_are_warned_of(values, meaning, unit, message, caplog):
    import re

    with caplog.at_level(logging.WARNING, "lyra"):
        check_meaning(values, meaning, unit)
    assert re.search(message, caplog.text) if message else not caplog.text

import pytest
import torch
from lyra_pack.comfyui_lyra.files.media.contact_sheet import contact_sheet


def test_each_row_runs_from_the_first_frame_to_the_last():
    frames = torch.linspace(0, 1, 9)[:, None, None, None].expand(9, 8, 10, 3)
    sheet = contact_sheet([("one", frames), ("two", frames.flip(0))], columns=3)
    first, second = (sheet[:, column, 0] for column in (8, 8 + 2 * 16))
    assert (first == 0).sum() >= 8  # black first frame of row one
    assert (second == 1).sum() >= 8  # white last frame of row one
    assert (first == 1).sum() >= 8  # row two is reversed


def test_no_clips_is_an_error():
    with pytest.raises(ValueError, match="at least one clip"):
        contact_sheet([])

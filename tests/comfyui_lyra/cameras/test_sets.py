from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.cameras.sets import combine, end_to_end


@pytest.fixture
def six() -> tuple[CameraTrajectory, ...]:
    return camera_paths(pinhole_camera(64, 32, 50), PathSettings("six_paths", frames=5))


def test_repeated_names_get_a_number(six):
    twice = combine([six[:2], six[:1]])
    assert [path.name for path in twice] == ["left", "right", "left 2"]
    assert [path.name for path in combine([twice, six[:1]])] == ["left", "right", "left 2", "left 3"]


def test_paths_are_laid_end_to_end_and_thinned(six):
    whole = end_to_end(six, every=2)
    assert len(whole) == 6 * 3
    assert torch.equal(whole.c2w[3:6], six[1].c2w[::2])
    assert whole.fps == pytest.approx(six[0].fps / 2)
    assert (whole.width, whole.height) == (64, 32)


@pytest.mark.parametrize(("size", "expected"), [((32, 0), (32, 16)), ((0, 64), (128, 64)), ((48, 48), (48, 48))])
def test_a_size_of_zero_follows_the_aspect_ratio(six, size, expected):
    path = end_to_end(six, 1, *size)
    assert (path.width, path.height) == expected
    assert path.K[0, 1, 1] / six[0].K[0, 1, 1] == pytest.approx(expected[1] / 32)


@pytest.mark.parametrize(
    ("own", "size", "expected"),
    [
        ((65, 33), (0, 0), (64, 32)),
        ((64, 48), (50, 0), (50, 38)),  # 37.5
        ((64, 36), (0, 37), (66, 37)),  # 65.8; what is given stays
        ((64, 48), (1, 0), (1, 2)),
        ((64, 32), (0, 0), (64, 32)),
    ],
)
def test_sides_that_are_not_given_are_even(own, size, expected):
    whole = end_to_end([pinhole_camera(*own, 50.0)], 1, *size)
    assert (whole.width, whole.height) == expected


def test_different_sizes_need_one_that_is_given(six):
    mixed = (six[0], replace(six[1], width=32))
    with pytest.raises(ValueError, match="different sizes .32x32, 64x32.; give width and height"):
        end_to_end(mixed)
    assert len(end_to_end(mixed, width=32, height=32)) == 10
    with pytest.raises(ValueError, match="every 0 frames"):
        end_to_end(six, every=0)
    with pytest.raises(ValueError, match="no camera paths"):
        end_to_end(())


def test_paths_of_different_speeds_are_not_laid_end_to_end():
    path = pinhole_camera(48, 32, 50.0)
    with pytest.raises(ValueError, match="different speeds \\(12, 24 fps\\)"):
        end_to_end([path, replace(path, fps=12.0)])

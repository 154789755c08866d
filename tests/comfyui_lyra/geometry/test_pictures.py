import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.geometry.pictures import crop_resize


def test_a_picture_of_the_targets_size_stays():
    picture = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(crop_resize(picture, 6, 8), picture)


def test_the_centre_stays_and_the_sides_go():
    rows = torch.arange(10.0).view(1, 1, 1, 10).expand(1, 1, 4, 10)
    assert torch.equal(crop_resize(rows, 4, 6)[0, 0, 0], torch.arange(2.0, 8))
    assert torch.equal(crop_resize(rows, 2, 3, mode="nearest")[0, 0, 0], torch.tensor([2.0, 4, 6]))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"expected \[F C H W\], got \(4, 6, 3\)"):
        crop_resize(torch.zeros(4, 6, 3), 2, 3)


@pytest.mark.golden("decoder/preprocess_*")
def test_golden_first_picture(golden):
    height, width = golden.meta["img_size"]
    assert tuple(golden["in.rgb_first"].shape[2:]) == tuple(golden.meta["in_img_size"])
    found = crop_resize(golden["in.rgb_first"], height, width)
    torch.testing.assert_close(found, golden["out.images_output_view_of_first_traj_frame0"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(36, 61), (37, 60), (41, 59), (36, 60)])
def test_a_crop_shows_what_its_camera_sees(height, width):
    """Each pixel of the crop holds where it was; K of the crop says so too, whatever is odd."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    place = crop_resize(torch.stack((columns, rows))[None], 16, 24, mode="bilinear")[0]
    camera = pinhole_camera(width, height, 50)
    K, small = camera.K[0], camera.resized(16, 24).K[0]
    for axis, middle in ((0, place[0, 8, 12]), (1, place[1, 8, 12])):
        index = (12, 8)[axis] + 0.5
        seen = (index - small[axis, 2]) / small[axis, axis] * K[axis, axis] + K[axis, 2]
        assert abs(seen - middle) < 0.1  # antialiasing weights are no exact mean

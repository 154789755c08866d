from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.refine.corrections import PICTURE, Corrections
from lyra_pack.comfyui_lyra.refine.leaves import pixel_size
from lyra_pack.comfyui_lyra.refine.optimise import optimise
from lyra_pack.comfyui_lyra.refine.schedule import RefineSettings
from lyra_pack.comfyui_lyra.splats.render import draw_colors

CPU = torch.device("cpu")


@pytest.fixture
def corrections(true_splats, target) -> Corrections:
    """Of both kinds, with numbers of their own."""
    target = replace(target, views=2)
    made = Corrections(target, RefineSettings(poses=0.1, affine=0.1), pixel_size(true_splats, target.cameras[:1]), CPU)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.poses.copy_(2 * torch.randn(10, 6, generator=generator))  # pixels
        made.colors.copy_(0.2 * torch.randn(2, 3, 4, generator=generator))
    return made


def test_moved_splats_look_as_from_the_corrected_camera(corrections, true_splats, target):
    right = corrections.cameras(target.cameras)
    for row in (3, 9):
        moved = corrections.seen(true_splats, target.cameras.c2w[row], row)
        found = draw_colors(moved, target.cameras[row : row + 1])
        torch.testing.assert_close(found, draw_colors(true_splats, right[row : row + 1]), atol=2e-3, rtol=0)
        assert (found - draw_colors(true_splats, target.cameras[row : row + 1])).abs().max() > 0.05
    assert corrections.seen(true_splats, target.cameras.c2w[0], PICTURE) is true_splats


def test_a_view_has_its_own_colors_and_the_picture_none(corrections):
    drawn = torch.rand(3, 4, 4, 3, generator=torch.Generator().manual_seed(1))
    first, second, picture = corrections.shown(drawn, torch.tensor([4, 5, PICTURE]))
    torch.testing.assert_close(picture, drawn[2])
    for view, shown, plain in ((0, first, drawn[0]), (1, second, drawn[1])):
        matrix = torch.eye(3) + corrections.colors[view, :, :3]
        torch.testing.assert_close(shown, plain @ matrix.T + corrections.colors[view, :, 3])


def test_frames_that_are_not_looked_at_keep_their_numbers(corrections, true_splats, target):
    before = corrections.poses.detach().clone()
    for row in (2, 7):
        draw_colors(corrections.seen(true_splats, target.cameras.c2w[row], row), target.cameras[:1]).sum().backward()
        corrections.step(1.0)
    changed = (corrections.poses.detach() != before).any(1).nonzero().flatten().tolist()
    assert changed == [2, 7] and corrections.poses.grad is None


def test_cameras_that_were_disturbed_are_found_again(true_splats, target):
    generator = torch.Generator().manual_seed(2)
    pixel = pixel_size(true_splats, target.cameras[:1])
    wrong = Corrections(target, RefineSettings(poses=0.1), pixel, CPU)
    with torch.no_grad():
        wrong.poses[:, 3:] = 1.5 * torch.randn(10, 3, generator=generator) * torch.tensor([1, 1, 0.0])
    disturbed = replace(target, cameras=wrong.cameras(target.cameras))
    settings = RefineSettings(steps=20, batch=3, similarity=0.0, poses=0.3)
    _, run = optimise(true_splats, disturbed, settings)

    def away(cameras) -> float:
        """Pixels between where the splats fall and where they should: turns and shifts stand in for each other."""
        found, right = (seen(true_splats.means, path) for path in (cameras, target.cameras))
        return float((found - right).norm(dim=-1).mean())

    assert away(run.cameras) < 0.6 * away(disturbed.cameras)
    assert optimise(true_splats, disturbed, replace(settings, steps=1, poses=0.0))[1].cameras is None


def seen(means: torch.Tensor, path) -> torch.Tensor:
    """Where points [N, 3] fall in each picture of a path: [M, N, 2]."""
    points = means @ path.viewmats[:, :3, :3].mT + path.viewmats[:, None, :3, 3]
    return (points / points[..., 2:] @ path.K.mT)[..., :2]

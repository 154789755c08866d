import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.cache.align import SMOOTHNESS, STEPS, align, align_rigid
from lyra_pack.comfyui_lyra.geometry.geometry import unproject

SIZE = 20, 24


def bumpy(seed: int) -> torch.Tensor:
    return 1 + torch.rand(*SIZE, generator=torch.Generator().manual_seed(seed))


def test_rigid_alignment_finds_the_line_between_inverse_depths():
    depth, mask = bumpy(0), torch.rand(*SIZE, generator=torch.Generator().manual_seed(1)) > 0.3
    target = 1 / (0.7 / depth + 0.1)
    outliers = target.clone()
    outliers[:1] = 1e4  # beyond the quantiles
    aligned = align_rigid(depth, torch.where(mask, outliers, 0), mask)
    assert torch.allclose(aligned, target, rtol=1e-4)


def test_the_scale_map_pulls_points_onto_the_target():
    depth, mask = bumpy(0), torch.ones(SIZE, dtype=torch.bool)
    mask[:, 15:] = False
    target = depth * (1 + 0.05 * torch.sin(torch.arange(SIZE[1]) / 4))
    K, c2w = torch.tensor([[20.0, 0, 12], [0, 20, 10], [0, 0, 1]]), torch.eye(4)
    with torch.inference_mode():
        aligned = align(depth, target, mask, K, c2w)
    rigid = align_rigid(depth, target, mask)
    far = [(d - target).abs()[mask].mean() for d in (aligned, rigid)]
    assert far[0] < 0.2 * far[1]


def test_a_camera_that_sees_nothing_known_is_an_error():
    depth = bumpy(0)
    with pytest.raises(ValueError, match="sees almost nothing of the remembered points"):
        align_rigid(depth, torch.zeros(SIZE), torch.zeros(SIZE, dtype=torch.bool))


@pytest.mark.golden("teacher/cache")
def test_alignment_agrees_with_the_reference(golden):
    assert f"{STEPS} iters, lambda {SMOOTHNESS}" in golden.meta["update_alignment"]
    depth, w2c, K = golden["update.depth"][0, 0], golden["update.w2c"], golden["K"]
    target, mask = golden["update.target_depth"][0, 0, 0], golden["update.target_mask"][0, 0, 0, 0] > 0
    assert torch.allclose(align_rigid(depth, target, mask), golden["update.align_rigid"], rtol=2e-5, atol=2e-5)
    c2w = torch.linalg.inv(w2c)
    points = unproject(align(depth, target, mask, K, c2w)[None], K[None], c2w[None])
    assert torch.allclose(points, golden["update.points_after"][0, :, 0, 0], atol=2e-3)

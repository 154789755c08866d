import pytest
import torch
from lyra_pack.comfyui_lyra.quality.perceptual import Tpips
from lyra_pack.comfyui_lyra.training.losses import (
    LossWeights,
    depth_loss,
    normalise_depth,
    opacity_loss,
    sanitise_depth,
    total_loss,
)


def frames(pictures):
    """[..., 3, H, W] -> [..., H, W, 3]"""
    return pictures.movedim(-3, -1)


def close(found, expected, rtol=1e-5, atol=1e-6):
    return torch.allclose(found.double(), expected.double().reshape(found.shape), rtol=rtol, atol=atol)


@pytest.mark.golden("training/losses")
def test_depth_loss_and_its_gradient(golden):
    cases = [name for name in golden.meta["cases"] if name.startswith("depth.")]
    assert cases
    for case in cases:
        about = golden.meta["cases"][case]
        if case.endswith("_bf16"):
            source = case.removesuffix("_bf16")
            pair = [golden[f"{source}.{part}"].bfloat16() for part in ("pred", "gt")]
            assert depth_loss(*(t[:, :, 0] for t in pair)).item() == pytest.approx(about["loss"], abs=1e-6)
            continue
        depth, target = golden[f"{case}.pred"][:, :, 0].requires_grad_(), golden[f"{case}.gt"][:, :, 0]
        loss, valid = depth_loss(depth, target), sanitise_depth(target) > 0
        assert valid.float().mean().item() == pytest.approx(about["valid_fraction"])
        if case.endswith("unsanitised"):  # the reference turns NaN; ours sanitises, as the next case does
            raw, mask = target.flatten(-2), valid.flatten(-2)
            assert golden[f"{case}.loss"].isnan().all() and str(about["loss"]) == "nan"
            unsanitised = normalise_depth(raw, mask)
            assert torch.allclose(unsanitised, golden[f"{case}.gt_norm"], rtol=1e-5, atol=1e-6, equal_nan=True)
            assert unsanitised.isnan().any() and loss.isfinite()
            assert close(normalise_depth(depth.detach().flatten(-2), mask), golden[f"{case}.pred_norm"])
            continue
        loss.backward()
        assert close(loss.detach(), golden[f"{case}.loss"]) and loss.item() == pytest.approx(about["loss"], abs=1e-6)
        assert close(depth.grad, golden[f"{case}.grad_pred"])
        mask = valid.flatten(-2)
        for found, part in ((depth.detach(), "pred"), (sanitise_depth(target), "gt")):
            assert close(normalise_depth(found.flatten(-2), mask), golden[f"{case}.{part}_norm"])


@pytest.mark.golden("training/losses")
def test_total_loss_and_its_gradients(golden, lpips):
    cases = [name for name in golden.meta["cases"] if name.startswith("total.")]
    assert cases
    pictures, targets = (frames(golden[f"lpips.{part}"]) for part in ("pred", "gt"))
    for case in cases:
        about = golden.meta["cases"][case]
        given = {name.removeprefix("lambda_"): value for name, value in about["weights"].items()}
        assert given["ssim"] == 0  # a term that the reference has and never uses
        weights = LossWeights(perceptual=given["lpips"], depth=given["depth"], opacity=given["opacity"])
        leaves = [
            pictures.clone(), golden[f"{case}.pred_depth"][:, :, 0], golden[f"{case}.opacity"]
        ]  # fmt: skip
        image, depth, opacities = (leaf.requires_grad_() for leaf in leaves)
        parts = total_loss(
            image, targets, depth, golden[f"{case}.gt_depth"][:, :, 0], opacities, weights, lpips, chunk=8
        )
        parts["total"].backward()
        assert close(parts["total"].detach(), golden[f"{case}.loss"], rtol=1e-4)
        assert parts["total"].item() == pytest.approx(about["logged"], rel=1e-4)
        assert parts["mse"].item() == pytest.approx(about["mse"], rel=1e-5)
        assert opacity_loss(opacities).item() == pytest.approx(about["opacity_term"], rel=1e-5)
        grads = {"grad_img": frames_back(image.grad), "grad_depth": depth.grad, "grad_opacity": opacities.grad}
        for name, grad in grads.items():
            if f"{case}.{name}" in list(golden):
                expected = golden[f"{case}.{name}"].reshape(grad.shape)
                worst = (grad - expected).abs().flatten(1).amax(1) / expected.abs().max()
                if name == "grad_img" and weights.perceptual:
                    # a ReLU of LPIPS that rounding flips changes one picture's gradient by parts in a thousand
                    worst = (grad - expected).abs().flatten(2).amax(2) / expected.abs().max()
                    assert worst.median() < 2e-4 and worst.max() < 3e-2
                else:
                    assert worst.max() < 1e-5
            else:
                assert grad is None


def frames_back(pictures):
    return pictures.movedim(-1, -3)


def some_depth(seed=0, shape=(2, 3, 8, 12)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 5 + 1


def test_depth_loss_sees_neither_scale_nor_shift_of_a_map_with_few_holes():
    target = some_depth()
    target[..., :3] = 0
    depth = 0.3 * target + 7
    assert depth_loss(depth, target) < 1e-10
    assert depth_loss(depth.flip(-1), target) > 1e-2


def test_once_half_is_unknown_the_shift_is_seen_and_the_scale_is_not():
    target = some_depth()
    target[..., :8] = 0
    assert depth_loss(0.3 * target + 7, target) > 1e-3
    assert depth_loss(0.3 * target, target) < 1e-10


def test_without_any_known_depth_the_loss_and_its_gradient_are_zero():
    depth = some_depth().requires_grad_()
    loss = depth_loss(depth, torch.full_like(depth, torch.inf))
    loss.backward()
    assert loss == 0 and (depth.grad == 0).all()


def test_a_depth_that_is_no_number_shows_in_the_loss_even_where_nothing_is_known():
    target, depth = some_depth(), some_depth(1)
    target[0, 0, 0, 0], depth[0, 0, 0, 0] = 0, torch.nan
    assert depth_loss(depth, target).isnan()


def test_the_opacity_term_is_a_second_sigmoid():
    opacities = torch.tensor([0.0, 1.0])
    assert opacity_loss(opacities).item() == pytest.approx((0.5 + 0.7310586) / 2)


def test_a_term_of_weight_zero_is_absent_and_a_perceptual_one_needs_its_network():
    picture, depth = torch.rand(1, 1, 16, 16, 3), torch.rand(1, 1, 16, 16)
    arguments = (picture, picture, depth, depth, torch.rand(4))
    assert set(total_loss(*arguments, LossWeights(perceptual=0, depth=0))) == {"total", "mse"}
    every = LossWeights(opacity=0.1)
    named = Tpips(lambda pictures: [pictures])
    found = total_loss(*arguments, every, named)
    assert set(found) == {"total", "mse", "tpips", "depth", "opacity"}
    summed = found["mse"] + 0.5 * found["tpips"] + 0.05 * found["depth"] + 0.1 * found["opacity"]
    assert torch.allclose(found["total"], summed)
    with pytest.raises(ValueError, match="perceptual term has a weight but no network"):
        total_loss(*arguments, LossWeights())

import re

import pytest
import torch
from lyra_pack.comfyui_lyra.quality.perceptual import RULES, Lpips, Tpips, load_lpips, shrink, unit
from lyra_pack.comfyui_lyra.weights.load import rename


def frames(pictures):
    return pictures.movedim(-3, -1)


@pytest.mark.golden("training/losses")
def test_lpips_of_each_picture_whatever_the_chunk(golden, lpips):
    pictures, targets = (frames(golden[f"lpips.{part}"]) for part in ("pred", "gt"))
    cases = [key.removesuffix(".per_image") for key in golden if key.endswith(".per_image")]
    assert cases
    for case in cases:
        largest, chunk = map(int, re.fullmatch(r"lpips\.min(\d+)\.chunk(\d+)", case).groups())
        lpips.largest = largest
        with torch.no_grad():
            found = lpips(pictures, targets, chunk)
        # the reference lists chunk after chunk, scenes within each
        listed = torch.cat([found[:, i : i + chunk].flatten() for i in range(0, found.shape[1], chunk)])
        assert torch.allclose(listed, golden[f"{case}.per_image"].flatten(), rtol=1e-4)
        assert found.mean().item() == pytest.approx(golden.meta["cases"][case]["mean"], rel=1e-4)
        assert golden.meta["cases"][case]["shape"] == [found.numel(), 1]


@pytest.mark.golden("training/losses")
def test_lpips_gradient(golden, lpips):
    keys = [key for key in golden if key.startswith("lpips.") and key.endswith(".grad_pred")]
    assert keys
    for key in keys:
        lpips.largest = int(re.search(r"min(\d+)", key).group(1))
        pictures = frames(golden["lpips.pred"]).requires_grad_()
        lpips(pictures, frames(golden["lpips.gt"]), 2).mean().backward()
        expected = frames(golden[key])
        worst = (pictures.grad - expected).abs().flatten(2).amax(2) / expected.abs().max()
        # a ReLU that rounding flips changes one picture's gradient by parts in a thousand: float64 is as far away
        assert worst.median() < 2e-4 and worst.max() < 3e-2


@pytest.mark.golden("training/losses")
def test_lpips_equals_the_two_public_packages(golden, lpips):
    lpips.largest = None
    with torch.no_grad():
        found = lpips(frames(golden["lpips.pred"]), frames(golden["lpips.gt"]), 64).flatten()
    for key in ("lpips.kiui_minus1_1", "lpips.package_normalize_true"):
        assert torch.allclose(found, golden[key], rtol=1e-4)


@pytest.mark.golden("training/losses")
def test_vgg_activations(golden, lpips):
    with torch.no_grad():
        layers = lpips.activations(golden["lpips.gt"].flatten(0, 1)[:1] * 2 - 1)
    keys = [key for key in golden if re.fullmatch(r"lpips\.feat\d_first_image_mean_std", key)]
    assert len(keys) == len(layers)
    for key in keys:
        layer = layers[int(key[len("lpips.feat")])]
        assert torch.allclose(torch.stack((layer.mean(), layer.std())), golden[key], rtol=1e-4)


@pytest.mark.golden("training/losses")
def test_the_copy_that_lpips_looks_at(golden):
    for key in (key for key in golden if key.startswith("lpips_resize.min")):
        found = shrink(golden["lpips_resize.in"] * 2 - 1, int(key.removeprefix("lpips_resize.min")))
        about = golden.meta["cases"][key]
        assert list(found.shape[2:]) == about["out"]
        assert torch.allclose(found, golden[key], rtol=1e-5, atol=1e-6)
    for row in golden.meta["lpips_out_size_table"]:
        found = shrink(torch.zeros(1, 1, 1, 1).expand(1, 1, *row["img"]), row["min"])
        assert list(found.shape[2:]) == row["out"]


@pytest.mark.golden("training/losses")
def test_constant_pictures_have_a_finite_gradient(golden, lpips):
    lpips.largest = 704
    about = golden.meta["cases"]["lpips.identical_constant"]
    size = golden["lpips.gt"].shape[-2:]
    for value in (0.0, 1.0):
        pictures = torch.full((1, 1, *size, 3), value).requires_grad_()
        loss = lpips(pictures, pictures.detach()).mean()
        loss.backward()
        assert loss.item() == about["mean"] and pictures.grad.abs().max().item() == about["grad_absmax"]
    (name,) = (name for name in golden.meta["cases"] if name.startswith("lpips.constant_"))
    first, second = (float(value) for value in re.findall(r"[\d.]+\d", name))
    pair = [torch.full((1, 1, *size, 3), value) for value in (first, second)]
    assert lpips(*pair).item() == pytest.approx(golden.meta["cases"][name]["mean"], rel=1e-4)


def test_the_files_of_torchvision_and_of_the_lpips_package_fit():
    with torch.device("meta"):
        wanted = Lpips().state_dict().keys()
    places = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4, 24: 5, 26: 5, 28: 5}
    kinds = ("weight", "bias")
    hub = [f"features.{place}.{kind}" for place in places for kind in kinds]
    hub += [f"classifier.{i}.{kind}" for i in (0, 3, 6) for kind in kinds]
    package = [f"net.slice{part}.{place}.{kind}" for place, part in places.items() for kind in kinds]
    package += ["scaling_layer.shift", "scaling_layer.scale"] + [f"lins.{k}.model.1.weight" for k in range(5)]
    heads = [f"lin{k}.model.1.weight" for k in range(5)]
    for names in (hub + heads, package + heads, [f"module.{name}" for name in package + heads]):
        assert rename({name: torch.zeros(()) for name in names}, RULES).keys() == wanted


def test_a_file_without_heads_is_refused(lpips_files):
    with pytest.raises(ValueError, match=r"vgg16.pth does not fit Lpips: 5 missing \(first: \['heads.0'\]\)"):
        load_lpips(lpips_files[0])


def test_unit_length_over_channels_and_nothing_at_zero():
    x = torch.tensor([[3.0, 0.0], [4.0, 0.0]])[None].requires_grad_()  # [1, 2, 2]
    assert torch.allclose(unit(x)[0], torch.tensor([[0.6, 0.0], [0.8, 0.0]]))
    unit(x).sum().backward()
    assert x.grad.isfinite().all()


def test_tpips_has_its_own_name_and_lies_between_zero_and_four():
    pictures = torch.rand(2, 3, 8, 8, 3, generator=torch.Generator().manual_seed(0))

    def activations(x):
        return [x, x.mean((2, 3), keepdim=True) - 0.1]

    tpips = Tpips(activations)
    assert tpips.name == "tpips"
    assert torch.equal(tpips(pictures, pictures), torch.zeros(2, 3))
    assert torch.allclose(Tpips(lambda x: [x, -x])(pictures, 1 - pictures), torch.full((2, 3), 4.0), atol=1e-4)
    one_at_a_time, at_once = (tpips(pictures, pictures.flip(1), chunk) for chunk in (1, 3))
    assert torch.allclose(one_at_a_time, at_once, atol=1e-6) and (at_once[:, 0] > 0.01).all()

import copy
import math

import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.comfyui_lyra.quality.compare import GridTpips, compare_bytes, compare_frames, compare_splats  # noqa: E402
from lyra_pack.comfyui_lyra.quality.perceptual import Lpips  # noqa: E402
from lyra_pack.comfyui_lyra.recon.reconstruct import reconstruct  # noqa: E402
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene  # noqa: E402
from lyra_pack.nodes.comfy import devices  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets
from lyra_pack.nodes.comfy.patchers import Model, in_core  # noqa: E402
from lyra_pack.nodes.splats import evaluate as evaluate_module  # noqa: E402
from lyra_pack.nodes.splats.evaluate import Evaluate  # noqa: E402
from lyra_pack.nodes.splats.render import SPLAT_BYTES  # noqa: E402


@pytest.fixture
def tokenizer(tiny_tokenizer) -> Model:
    return Model(patcher=in_core(copy.deepcopy(tiny_tokenizer)), config=tiny_tokenizer.config, file="tiny")


def evaluate(**given):
    return Evaluate.execute(**{"times": "", "lpips_vgg": "", "lpips_heads": ""} | given)


@pytest.fixture(autouse=True)
def folder_for_the_picture_shown(folders):
    """Of the worst frame."""


def pictures(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 32, 48, 3, generator=torch.Generator().manual_seed(seed))


def test_two_batches_of_frames_are_scored():
    frames, truth = pictures(3, 0), pictures(3, 1)
    found = evaluate(every=4, gain=2.0, frames=frames, truth=truth)
    error, psnr, ssim, tpips, lpips, text = found.args
    expected = compare_frames(frames, truth)
    assert (psnr, ssim) == (expected.means["psnr"], expected.means["ssim"])
    assert math.isnan(tpips) and math.isnan(lpips)
    torch.testing.assert_close(error, ((frames - truth).abs() * 2).clamp(0, 1))
    assert len(found.ui["images"]) == 1 and found.ui["text"] == (text,)
    assert text == expected.report() and "TPIPS" not in text


def test_a_tokenizer_adds_tpips_under_its_own_name(tokenizer):
    frames, truth = pictures(2, 0), pictures(2, 1)
    _, _, _, tpips, lpips, text = evaluate(every=1, gain=1.0, frames=frames, truth=truth, tokenizer=tokenizer).args
    assert tpips == compare_frames(frames, truth, [GridTpips(tokenizer.network)]).means["tpips"] > 0
    assert math.isnan(lpips) and "TPIPS" in text and "LPIPS" not in text


def test_lpips_is_computed_with_files_that_the_user_names(models):
    torch.manual_seed(0)
    network = Lpips(largest=None)
    state = network.state_dict() | {f"heads.{i}": torch.rand(head.shape) for i, head in enumerate(network.heads)}
    network.load_state_dict(state)
    torch.save({name: weight for name, weight in state.items() if "features" in name}, models / "lyra" / "vgg16.pth")
    heads = {f"lin{i}.model.1.weight": state[f"heads.{i}"] for i in range(5)}
    torch.save(heads, models.parent / "vgg.pth")
    frames, truth = pictures(2, 0), pictures(2, 1)
    named = {"lpips_vgg": "vgg16.pth", "lpips_heads": f'"{models.parent / "vgg.pth"}"'}
    _, _, _, tpips, lpips, text = evaluate(every=1, gain=1.0, frames=frames, truth=truth, **named).args
    assert lpips == pytest.approx(compare_frames(frames, truth, [network]).means["lpips"]) and lpips > 0
    assert math.isnan(tpips) and ", LPIPS" in text
    with pytest.raises(FileNotFoundError, match="no file 'gone.pth' in models/lyra, and it is no absolute path"):
        evaluate(every=1, gain=1.0, frames=frames, truth=truth, lpips_vgg="gone.pth")


def test_splats_are_scored_against_their_latents(tokenizer, tiny_recon, tiny_scene):
    splats, cameras = reconstruct(tiny_recon, tokenizer.network, tiny_scene, (8, 0))
    given = {
        "splat": sockets.to_splat(splats.frames), "cameras": cameras, "latents": tiny_scene, "tokenizer": tokenizer,
        "times": "8, 0",
    }  # fmt: skip
    error, psnr, *_ = evaluate(every=4, gain=1.0, **given).args
    expected = compare_splats(splats.frames, cameras, tiny_scene, tokenizer.network, times=(8, 0))
    assert error.shape == (4, 32, 48, 3)
    assert psnr == pytest.approx(expected.means["psnr"], abs=1e-3)
    timed = given | {"times": "", "splat": sockets.to_splat(splats.frames, splats.times)}
    assert evaluate(every=4, gain=1.0, **timed).args[1] == psnr
    with pytest.raises(ValueError, match="the bullet times of the splats are needed too"):
        evaluate(every=4, gain=1.0, **given | {"times": ""})
    with pytest.raises(ValueError, match="to score splats, connect cameras, tokenizer too"):
        evaluate(every=4, gain=1.0, splat=given["splat"], latents=tiny_scene)


@pytest.mark.parametrize("given", [{}, {"frames": pictures(1, 0)}, {"latents": 1, "cameras": 2, "tokenizer": 3}])
def test_what_has_to_be_connected_is_said(given):
    with pytest.raises(ValueError, match="connect either frames and truth, or splat, cameras, latents and tokenizer"):
        evaluate(every=4, gain=1.0, **{k: v for k, v in given.items() if k != "tokenizer"})


def test_room_is_asked_for_whatever_is_scored(tokenizer, tiny_scene, monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "make_room", asked.append)
    monkeypatch.setattr(devices, "load", lambda *models, size: asked.append(size))
    frames = pictures(2, 0)
    evaluate(every=1, gain=1.0, frames=frames, truth=frames)
    evaluate(every=1, gain=1.0, frames=frames, truth=frames, tokenizer=tokenizer)
    assert asked[0] == compare_bytes(32, 48) > 2000 * 32 * 48 and asked[1] >= asked[0]
    assert compare_bytes(32, 48, lpips=True) > asked[0]
    splat = sockets.to_splat([demo_scene()[::100]])
    evaluate_module.make_ready(None, 1000, (32, 48), splat)
    assert asked[2] == 1000 + splat.positions.shape[1] * SPLAT_BYTES

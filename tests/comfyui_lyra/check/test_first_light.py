"""First light passes with the shipped models; for each convention that is broken, a check of the right name fails."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.check import first_light as module
from lyra_pack.comfyui_lyra.check.bounds import MINI, RELEASED, bounds_of
from lyra_pack.comfyui_lyra.check.first_light import (
    encoded_scene,
    moment_of,
    recon_checks,
    steps_recon,
    teacher_checks,
    tokenizer_checks,
)
from lyra_pack.comfyui_lyra.check.scene import Stage
from lyra_pack.comfyui_lyra.files.scenes.sample import shipped_sample
from lyra_pack.comfyui_lyra.gen3c import sampler
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import Cache3D
from lyra_pack.comfyui_lyra.gen3c.dit import GEN3C
from lyra_pack.comfyui_lyra.gen3c.load import load_teacher
from lyra_pack.comfyui_lyra.latents import VideoLatents
from lyra_pack.comfyui_lyra.quality.scores import psnr
from lyra_pack.comfyui_lyra.recon import inputs
from lyra_pack.comfyui_lyra.recon.load import load_recon
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder, load_tokenizer
from lyra_pack.comfyui_lyra.weights.shipped import shipped_model
from lyra_pack.kernels_glue import tokens
from lyra_pack.kernels_glue.tokens import rotate

pytestmark = pytest.mark.slow

STATISTICS, ROUND_TRIP = "tokenizer: latent statistics", "tokenizer: there and back"
NOISE, POINTS = "teacher: noise 1 is taken off", "teacher: the warped points are followed"
STANDING = "teacher: a standing camera shows the picture"
SPLATS = "splat decoder: splats at their own cameras"
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))  # OpenGL's camera axes


@pytest.fixture(scope="module", autouse=True)
def few_views():
    """Two of the six paths are drawn: each picture takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EVERY", 3)
        yield


@pytest.fixture(scope="module")
def stage():
    return Stage.at((96, 160), 17, torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(shipped_model("tokenizer")).float()


@pytest.fixture(scope="module")
def teacher():
    return load_teacher(shipped_model("teacher"), dtype=torch.float32)


@pytest.fixture(scope="module")
def recon():
    return load_recon(shipped_model("recon_static")).float()


@pytest.fixture(scope="module")
def encoded(tokenizer, stage):
    """The latents of all paths and their decoded frames, made once."""
    with torch.inference_mode():
        return encoded_scene(tokenizer, stage, lambda: None)


def results(checks) -> dict[str, bool]:
    """Whether each check passes, by name."""
    return {finding.name: finding.works for finding in checks}


def failing(checks) -> set[str]:
    return {name for name, works in results(checks).items() if not works}


def up_to(name: str, checks) -> list:
    """The checks to one of a name; those after it are not made."""
    found = []
    for finding in checks:
        found.append(finding)
        if finding.name == name:
            return found
    pytest.fail(f"no check is called '{name}'")


def seen_by(tokenizer, stage):
    return tokenizer_checks(tokenizer, stage, MINI, lambda: None)


def taught(teacher, tokenizer, stage):
    return teacher_checks(teacher, tokenizer, stage, MINI, lambda: None)


def test_the_scene_is_that_of_the_shipped_picture(stage):
    shipped = shipped_sample("picture")
    assert float(psnr(stage.geometry.frames, shipped.frames)) > 50
    torch.testing.assert_close(stage.geometry.cameras.K, shipped.cameras.K)
    torch.testing.assert_close(stage.film(stage.standing())[3], stage.geometry.frames[0], atol=1e-5, rtol=0)


def test_the_tokenizer_passes(tokenizer, stage):
    assert results(seen_by(tokenizer, stage)) == {STATISTICS: True, ROUND_TRIP: True}


def test_exchanged_statistics_are_caught(tokenizer, stage):
    swapped = CosmosTokenizer(tokenizer.config, tokenizer.autoencoder, tokenizer.std, tokenizer.mean)
    assert STATISTICS in failing(up_to(STATISTICS, seen_by(swapped, stage)))


def test_a_tokenizer_of_random_weights_is_caught(tokenizer, stage):
    torch.manual_seed(0)
    random = CosmosTokenizer(tokenizer.config, build_autoencoder(tokenizer.config), tokenizer.mean, tokenizer.std)
    assert ROUND_TRIP in failing(seen_by(random, stage))


def test_the_teacher_passes_and_counts_its_steps(tokenizer, teacher, stage):
    steps = []
    found = results(teacher_checks(teacher, tokenizer, stage, MINI, lambda: steps.append(1)))
    assert all(found.values()) and {NOISE, POINTS, STANDING} < found.keys()
    assert len(steps) == module.STEPS_TEACHER


def test_a_teacher_of_random_weights_is_caught(tokenizer, teacher, stage):
    torch.manual_seed(0)
    random = replace(teacher, network=GEN3C(teacher.config).eval())
    assert {NOISE, POINTS, STANDING, "teacher: noise 0.3 is taken off"} <= failing(taught(random, tokenizer, stage))


def in_pairs(x, cos, sin):
    """Rotation of neighbouring channels, as other models have it."""
    a, b = x.float()[..., 0::2], x.float()[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2).to(x.dtype)


@pytest.mark.parametrize(
    "wrong",
    [lambda x, cos, sin: x, lambda x, cos, sin: rotate(x, cos.flip(1), sin.flip(1)), in_pairs],
    ids=["none", "tokens turned round", "channels in pairs"],
)
def test_wrong_rotary_tables_are_caught(monkeypatch, tokenizer, teacher, stage, wrong):
    monkeypatch.setattr(tokens, "rotate", wrong)
    assert {NOISE, POINTS} <= failing(up_to(POINTS, taught(teacher, tokenizer, stage)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda warps: warps.flip(2),
        lambda warps: torch.cat((warps[:, 32:], warps[:, :32]), 1),
        lambda warps: torch.cat((warps[:, 16:32], warps[:, :16], warps[:, 32:]), 1),
        torch.zeros_like,
    ],
    ids=["time turned round", "buffers exchanged", "masks for pictures", "none"],
)
def test_a_shuffled_warp_condition_is_caught(monkeypatch, tokenizer, teacher, stage, wrong):
    for place in (module, sampler):
        monkeypatch.setattr(place, "compose_warp_latents", lambda *given: wrong(compose(*given)))
    assert POINTS in failing(up_to(POINTS, taught(teacher, tokenizer, stage)))


compose = sampler.compose_warp_latents


def test_camera_axes_of_another_convention_are_caught_by_the_teacher(monkeypatch, tokenizer, teacher, stage):
    drawn = Cache3D.render

    def flipped(self, cameras, *given, **options):
        return drawn(self, replace(cameras, c2w=cameras.c2w @ FLIP.to(cameras.c2w)), *given, **options)

    monkeypatch.setattr(Cache3D, "render", flipped)
    assert {NOISE, POINTS} <= failing(up_to(POINTS, taught(teacher, tokenizer, stage)))


@contextmanager
def given(monkeypatch, scene, frames):
    """The encoded scene as it is given, instead of encoding it anew."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "encoded_scene", lambda *_: (scene, frames))
        yield


def built(monkeypatch, recon, tokenizer, stage, encoded, **options) -> dict[str, bool]:
    steps = []
    with given(monkeypatch, *encoded):
        found = results(recon_checks(recon, tokenizer, stage, MINI, lambda: steps.append(1), **options))
    assert len(steps) == steps_recon(options.get("compare", False)) - len(stage.paths)
    return found


def test_the_splat_decoder_passes_with_plain_kernels_too(monkeypatch, recon, tokenizer, stage, encoded):
    found = built(monkeypatch, recon, tokenizer, stage, encoded, compare=True)
    assert found == {SPLATS: True, "plain against fast kernels": True}


def test_the_dynamic_splat_decoder_passes(monkeypatch, tokenizer, stage, encoded):
    dynamic = load_recon(shipped_model("recon_dynamic")).float()
    assert built(monkeypatch, dynamic, tokenizer, stage, encoded) == {SPLATS: True}


def test_a_splat_decoder_of_random_weights_is_caught(monkeypatch, recon, tokenizer, stage, encoded):
    torch.manual_seed(0)
    assert built(monkeypatch, Recon(recon.config).eval(), tokenizer, stage, encoded) == {SPLATS: False}


def test_views_in_another_order_than_their_cameras_are_caught(monkeypatch, recon, tokenizer, stage, encoded):
    scene, frames = encoded
    values = scene.latents.values[[1, 0, 2, 3, 4, 5]]
    wrong = replace(scene, latents=VideoLatents(values=values))
    assert built(monkeypatch, recon, tokenizer, stage, (wrong, frames)) == {SPLATS: False}


def test_camera_axes_of_another_convention_are_caught_by_the_splat_decoder(
    monkeypatch, recon, tokenizer, stage, encoded
):
    scene, frames = encoded
    cameras = tuple(replace(path, c2w=path.c2w @ FLIP) for path in scene.cameras)
    assert built(monkeypatch, recon, tokenizer, stage, (replace(scene, cameras=cameras), frames)) == {SPLATS: False}


def test_moments_and_directions_exchanged_are_caught(monkeypatch, recon, tokenizer, stage, encoded):
    right = inputs.plucker
    monkeypatch.setattr(inputs, "plucker", lambda cameras: right(cameras).roll(3, dims=1))
    assert built(monkeypatch, recon, tokenizer, stage, encoded) == {SPLATS: False}


def test_a_fast_kernel_that_is_wrong_is_caught_by_the_plain_one(monkeypatch, recon, tokenizer, stage, encoded):
    right = Recon.forward

    def wrong(self, given, *, keep=None, schedule, on_step):
        splats = right(self, given, keep=keep, schedule=schedule, on_step=on_step)
        shift = 0.02 if schedule.scan == "auto" else 0.0
        return tuple(replace(s, means=s.means + shift) for s in splats)

    monkeypatch.setattr(Recon, "forward", wrong)
    found = built(monkeypatch, recon, tokenizer, stage, encoded, compare=True)
    assert found["plain against fast kernels"] is False


def test_the_moment_lies_in_the_middle_and_ends_a_latent_frame():
    assert [moment_of(n) for n in (9, 17, 121)] == [0, 8, 56]


def test_limits_of_unknown_weights_are_provisional_and_wider():
    assert bounds_of("lyra") is RELEASED and RELEASED.provisional and not bounds_of("mini").provisional
    for sigma, most in MINI.denoised.items():
        without = 0.5 / (sigma**2 + 0.25) ** 0.5  # of a network that gives nothing
        assert most < RELEASED.denoised[sigma] < without
    assert MINI.splats > RELEASED.splats and MINI.points < RELEASED.points < 1

import copy
import json
import logging
from dataclasses import replace

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.model_management as management  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory  # noqa: E402
from lyra_pack.comfyui_lyra.cost.recon import LEAST, MOST  # noqa: E402
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply  # noqa: E402
from lyra_pack.comfyui_lyra.recon.model import Recon  # noqa: E402
from lyra_pack.comfyui_lyra.recon.reconstruct import reconstruct  # noqa: E402
from lyra_pack.nodes.comfy import devices, progress  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets
from lyra_pack.nodes.comfy.patchers import Model, in_core  # noqa: E402
from lyra_pack.nodes.comfy.tokenizers import encoded_by  # noqa: E402
from lyra_pack.nodes.models.plan import Plan  # noqa: E402
from lyra_pack.nodes.splats.reconstruct import Reconstruct, SelectTime  # noqa: E402
from lyra_pack.nodes.splats.render import CropSplats  # noqa: E402
from lyra_pack.nodes.splats.save_sequence import SaveSplatSequence  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402


def loaded(network) -> Model:
    return Model(patcher=in_core(copy.deepcopy(network)), config=network.config, file="tiny")


@pytest.fixture
def tokenizer(tiny_tokenizer) -> Model:
    return loaded(tiny_tokenizer)


@pytest.fixture
def recon(tiny_recon) -> Model:
    return loaded(tiny_recon)


def static(tiny_recon) -> Model:
    network = Recon(replace(tiny_recon.config, dynamic=False)).eval()
    network.load_state_dict(tiny_recon.state_dict())
    return loaded(network)


def test_each_bullet_time_becomes_one_scene_of_the_batch(recon, tokenizer, tiny_scene):
    splat, cameras, times = Reconstruct.execute(recon, tokenizer, tiny_scene, "8, 0", 0.0, 0).args
    expected, paths = reconstruct(recon.network, tokenizer.network, tiny_scene, (8, 0))
    assert splat.positions.shape == (2, int(2 * 9 * 4 * 6 * 0.3), 3) and splat.counts is None
    assert times == "8, 0" and splat.positions.device == devices.intermediate_device()
    for found, frame in zip(sockets.from_splat(splat), expected.frames, strict=True):
        torch.testing.assert_close(found.means, frame.means)
        torch.testing.assert_close(found.colors, frame.colors, rtol=1e-4, atol=1e-5)
    assert not torch.equal(splat.positions[0], splat.positions[1])
    assert [path.name for path in cameras] == ["left", "right"]
    assert all(torch.equal(a.c2w, b.c2w) for a, b in zip(cameras, paths, strict=True))
    torch.testing.assert_close(cameras[1].c2w[0], torch.eye(4))
    assert splat.bullet_times == (8, 0)
    (cropped,) = CropSplats.execute(splat, 0.0, 0.0, 0.0, *[0.0] * 6).args
    assert cropped.bullet_times == (8, 0) and SelectTime.execute(cropped, 1).args[0].bullet_times == (0,)
    (one,) = SelectTime.execute(splat, 1).args
    assert torch.equal(one.positions, splat.positions[1:])
    with pytest.raises(ValueError, match="bullet time 2: this SPLAT holds 2, counted from 0"):
        SelectTime.execute(splat, 2)


def test_a_static_decoder_ignores_the_times_and_keep_is_a_share(tiny_recon, tokenizer, tiny_scene):
    model = static(tiny_recon)
    splat, _, times = Reconstruct.execute(model, tokenizer, tiny_scene, "whenever", 0.5, 0).args
    assert splat.positions.shape[:2] == (1, 2 * 9 * 4 * 6 // 2) and times == "0"


def test_times_that_are_none_are_refused(recon, tokenizer, tiny_scene):
    with pytest.raises(ValueError, match="'0, end': 'end' is no frame number"):
        Reconstruct.execute(recon, tokenizer, tiny_scene, "0, end", 0.0, 0)
    with pytest.raises(ValueError, match=r"bullet times \[0, 9\]: give one or more frame indices in 0..8"):
        Reconstruct.execute(recon, tokenizer, tiny_scene, "0, 9", 0.0, 0)


def test_a_long_clip_is_reconstructed_part_by_part(recon, tokenizer, tiny_scene):
    def twice(path: CameraTrajectory) -> CameraTrajectory:
        return path[torch.tensor([*range(9), *range(1, 9)])]

    values = tiny_scene.latents.values
    long = replace(
        tiny_scene,
        latents=replace(tiny_scene.latents, values=torch.cat((values.flip(1), values), 2)),
        cameras=tuple(twice(path) for path in tiny_scene.cameras),
    )
    found = Reconstruct.execute(recon, tokenizer, long, "8", 0.0, 1).args[0]
    second = replace(tiny_scene, cameras=tuple(path[8:] for path in long.cameras))
    assert torch.equal(found.positions, Reconstruct.execute(recon, tokenizer, second, "8", 0.0, 0).args[0].positions)
    with pytest.raises(ValueError, match="chunk 2 of 4 latents for 17 frames: they hold 2 chunks"):
        Reconstruct.execute(recon, tokenizer, long, "8", 0.0, 2)
    with pytest.raises(ValueError, match="chunk 1 of 2 latents for 9 frames: they hold 1 chunks"):
        Reconstruct.execute(recon, tokenizer, tiny_scene, "8", 0.0, 1)


def test_families_do_not_mix(recon, tokenizer, tiny_scene):
    with pytest.raises(ValueError, match="latents of family 'lyra', tokenizer 'tiny' and splat decoder 'tiny'"):
        Reconstruct.execute(recon, tokenizer, replace(tiny_scene, family="lyra"), "0", 0.0, 0)


def test_both_models_are_loaded_by_one_call(recon, tokenizer, tiny_scene, monkeypatch):
    asked, load = [], management.load_models_gpu
    monkeypatch.setattr(
        management, "load_models_gpu", lambda models, **more: asked.append((models, more)) or load(models, **more)
    )
    Reconstruct.execute(recon, tokenizer, tiny_scene, "0", 0.0, 0)
    ((models, more),) = asked
    assert models == [recon.patcher, tokenizer.patcher] and more["memory_required"] > 10_000


class Scarce(TorchDispatchMode):
    """A device that runs out of memory at the first few matrix products with a bias."""

    def __init__(self, failures: int):
        super().__init__()
        self.failures = failures

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.failures and ("linear" in str(func) or "addmm" in str(func)):
            self.failures -= 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return func(*args, **(kwargs or {}))


def test_out_of_memory_is_tried_again_in_smaller_pieces(recon, tokenizer, tiny_scene, caplog):
    expected = Reconstruct.execute(recon, tokenizer, tiny_scene, "0, 8", 0.0, 0).args[0]
    encodes = encoded_by(tokenizer)
    held = len(encodes._held)
    with Scarce(2) as device, caplog.at_level(logging.WARNING, "lyra"):
        found = Reconstruct.execute(recon, tokenizer, tiny_scene, "0, 8", 0.0, 0).args[0]
    assert device.failures == 0
    assert [r.getMessage() for r in caplog.records if r.name == "lyra"] == [
        "out of memory, trying again with less on the device"
    ] * 2
    assert torch.equal(found.positions, expected.positions)
    assert len(encodes._held) == held  # what was encoded before is not encoded again


def test_out_of_memory_to_the_end_is_core_s_to_report(recon, tokenizer, tiny_scene):
    with Scarce(1000) as device, pytest.raises(torch.cuda.OutOfMemoryError):
        Reconstruct.execute(recon, tokenizer, tiny_scene, "0", 0.0, 0)
    assert 1000 - device.failures == len(range(LEAST.bit_length(), MOST.bit_length() + 1))


def test_a_cancelled_run_stops_inside_a_block(recon, tokenizer, tiny_scene):
    Reconstruct.execute(recon, tokenizer, tiny_scene, "0", 0.0, 0)
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        Reconstruct.execute(recon, tokenizer, tiny_scene, "0", 0.0, 0)


def test_warnings_of_the_library_are_collected_for_the_node(tiny_recon, tokenizer, tiny_scene):
    model = static(tiny_recon)
    with progress.warnings() as found:
        Reconstruct.execute(model, tokenizer, tiny_scene, "0", 0.0, 0)
    assert found == ["the latents show a moving scene, and the splat decoder is a static one: expect ghosts"]


def test_all_times_are_written_with_cameras_and_scale(folders, recon, tokenizer, tiny_scene):
    splat, cameras, times = Reconstruct.execute(recon, tokenizer, tiny_scene, "8, 0", 0.0, 0).args
    result = SaveSplatSequence.execute(splat, times, "3d/run", 2.0, cameras)
    assert result.ui == {"text": ("2 scenes: 3d/run_00001_",)}
    folder = folders / "output" / "3d" / "run_00001_"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [entry["time"] for entry in manifest["frames"]] == [8, 0]
    assert (manifest["fps"], manifest["scale"], manifest["cameras"]) == (24.0, 2.0, "cameras.json")
    written = load_ply(folder / manifest["frames"][1]["file"])
    torch.testing.assert_close(written.means, 2 * splat.positions[1])
    for number, (given, written) in enumerate(((splat, [8, 0]), (sockets.to_splat(sockets.from_splat(splat)), [0, 1]))):
        SaveSplatSequence.execute(given, "", "3d/run", 1.0)  # as they came with the splats, or numbered
        manifest = json.loads((folders / "output" / "3d" / f"run_0000{2 + number}_" / "manifest.json").read_text())
        assert [entry["time"] for entry in manifest["frames"]] == written and manifest["cameras"] is None
    with pytest.raises(ValueError, match="2 splat sets for 3 times"):
        SaveSplatSequence.execute(splat, "0-2", "3d/run", 1.0)


def test_the_plan_names_the_stages_of_the_models_connected(folders, recon, tokenizer, tiny_scene):
    result = Plan.execute(tiny_scene.cameras, "0, 8", 35, recon, tokenizer)
    (text,) = result.args
    assert result.ui.as_dict() == {"text": (text,)}
    assert text.startswith("2 paths of 9 frames of 48x32\n\nencode cameras: ")
    assert "\nreconstruct splats: " in text and "TFLOP/s of a matrix product in float32" in text
    (alone,) = Plan.execute(tiny_scene.cameras, "0", 35, recon).args
    assert "encode cameras" not in alone
    with pytest.raises(ValueError, match="nothing to plan: connect a splat decoder"):
        Plan.execute(tiny_scene.cameras, "0", 35)

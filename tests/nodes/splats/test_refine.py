import copy

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.model_management as management  # noqa: E402
import comfy.utils  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.moves import still  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry  # noqa: E402
from lyra_pack.comfyui_lyra.recon.reconstruct import reconstruct  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets  # noqa: E402
from lyra_pack.nodes.comfy.patchers import Model, in_core  # noqa: E402
from lyra_pack.nodes.splats.refine import RefineSplats, Watch  # noqa: E402


@pytest.fixture
def tokenizer(tiny_tokenizer) -> Model:
    return Model(patcher=in_core(copy.deepcopy(tiny_tokenizer)), config=tiny_tokenizer.config, file="tiny")


@pytest.fixture
def given(tokenizer, tiny_recon, tiny_scene) -> dict:
    """Inputs for two bullet times."""
    splats, cameras = reconstruct(tiny_recon, tokenizer.network, tiny_scene, (8, 0))
    return {
        "splat": sockets.to_splat(splats.frames), "cameras": cameras, "latents": tiny_scene, "tokenizer": tokenizer,
        "steps": 6, "seconds": 0.0, "seed": 1, "times": "8, 0",
    }  # fmt: skip


def clip() -> Geometry:
    """Nine frames from the paths' first camera."""
    frames = torch.rand(9, 32, 48, 3, generator=torch.Generator().manual_seed(5))
    shape = frames.shape[:3]
    return Geometry(
        frames=frames, depth=torch.ones(shape), valid=torch.ones(shape, dtype=torch.bool),
        cameras=still(pinhole_camera(48, 32, 50), 9),
    )  # fmt: skip


def test_each_bullet_time_is_refined_and_the_text_says_so(given):
    with torch.inference_mode():  # as ComfyUI runs nodes
        splat, text = RefineSplats.execute(**given, geometry=clip()).args
    assert splat.positions.shape == given["splat"].positions.shape
    assert not torch.equal(splat.positions, given["splat"].positions)
    assert text.startswith("12 steps for 2 bullet times in") and "first picture -" not in text
    assert splat.bullet_times == (8, 0)
    assert "first picture -" in RefineSplats.execute(**given).args[1]


def test_the_bullet_times_come_with_the_splats(given):
    told = RefineSplats.execute(**given).args[0]
    given = given | {"times": "", "splat": sockets.to_splat(sockets.from_splat(given["splat"]), (8, 0))}
    known = RefineSplats.execute(**given).args[0]
    assert torch.equal(known.positions, told.positions)


def test_the_given_splats_stay_as_they_are_and_a_seed_repeats(given):
    before = given["splat"].positions.clone()
    first, second = (RefineSplats.execute(**given).args[0] for _ in range(2))
    assert torch.equal(given["splat"].positions, before)
    assert torch.equal(first.positions, second.positions) and torch.equal(first.sh, second.sh)


def test_cancelling_ends_it_early_with_what_there_is(given, monkeypatch):
    seen = []

    def hook(done, total, preview, **_):
        seen.append((done, preview))
        if len(seen) == 2:
            management.interrupt_current_processing(True)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    splat, text = RefineSplats.execute(**given).args
    assert len(seen) == 2  # a busy machine's bar may pass over a step
    assert text.startswith(f"{seen[-1][0]} steps for 2 bullet times")
    assert text.endswith("cancelled: this is what there was")
    assert not management.processing_interrupted()
    assert splat.positions.shape == given["splat"].positions.shape
    assert seen[0][1][1].size == (96, 32)  # a frame beside what it should be


def test_what_is_missing_or_does_not_belong_is_said(given):
    with pytest.raises(ValueError, match="connect the bullet times of Reconstruct Splats too"):
        RefineSplats.execute(**given | {"times": " "})
    with pytest.raises(ValueError, match="2 sets of splats for the bullet times"):
        RefineSplats.execute(**given | {"times": "8"})
    with pytest.raises(ValueError, match="do not belong together"):
        RefineSplats.execute(**given | {"cameras": given["cameras"][:1]})


def test_a_run_at_part_of_the_size_is_told():
    assert Watch().notes(1) == []
    assert Watch().notes(2) == ["without gsplat: frames compared at 1/2 of their size, in few steps"]


def test_memory_is_asked_for_and_tried_for_again(given, monkeypatch):
    asked, load = [], management.load_models_gpu

    def scarce(models, **more):
        asked.append(more["memory_required"])
        if len(asked) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return load(models, **more)

    monkeypatch.setattr(management, "load_models_gpu", scarce)
    RefineSplats.execute(**given)
    assert len(asked) == 2 and asked[1] > asked[0] > 0

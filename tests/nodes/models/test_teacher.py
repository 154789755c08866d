import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.model_management as management  # noqa: E402
from lyra_pack.comfyui_lyra.configs import TEACHER_INPUTS  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.keys import RELEASED  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.load import save_teacher  # noqa: E402
from lyra_pack.comfyui_lyra.weights.load import rename  # noqa: E402
from lyra_pack.nodes.comfy import devices  # noqa: E402
from lyra_pack.nodes.comfy import folders as places  # noqa: E402
from lyra_pack.nodes.models.teacher import LoadTeacher  # noqa: E402


@pytest.fixture
def file(models, tiny_teacher) -> str:
    save_teacher(tiny_teacher, models / "diffusion_models" / "tiny.safetensors")
    return "tiny.safetensors"


@torch.inference_mode()
def ask(network) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, TEACHER_INPUTS, 2, 4, 6, generator=generator), torch.randn(1, 5, 12, generator=generator)
    return network(x, torch.zeros(1), text)


def test_a_teacher_loads_with_its_weights_unchanged(file, tiny_teacher):
    model, _ = LoadTeacher.execute(file, "auto", "torch", "auto").args
    assert (model.config, model.licence, model.file) == (tiny_teacher.config, "Apache-2.0", file)
    assert (model.attention, model.stream, model.dtype) == ("torch", False, torch.float32)
    devices.load(model, size=1)
    assert model.patcher in [entry.model for entry in management.current_loaded_models]
    state, expected = model.network.diffusion_model.state_dict(), rename(tiny_teacher.network.state_dict(), RELEASED)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], weight) for name, weight in expected.items())
    torch.testing.assert_close(ask(model.teacher.network), ask(tiny_teacher.network), rtol=2e-5, atol=2e-5)


@torch.inference_mode()
def test_any_part_of_the_weights_may_stay_behind(file):
    """Whatever ComfyUI cannot stream must be found where it lies; meta stands for the device, which has no values."""
    teacher, patcher = LoadTeacher.execute(file, "auto", "torch", "auto").args
    patcher.load(torch.device("meta"), lowvram_model_memory=1)
    assert {weight.device.type for weight in patcher.model.parameters()} == {"cpu"}
    shapes = (1, TEACHER_INPUTS, 2, 4, 6), (1,), (1, 5, 12)
    found = teacher.teacher.network(*(torch.empty(shape, device="meta") for shape in shapes))
    assert (found.device.type, tuple(found.shape)) == ("meta", (1, 16, 2, 4, 6))


def test_streaming_asks_for_all_of_the_memory(file):
    kept, streams = (LoadTeacher.execute(file, "auto", "auto", memory).args[0] for memory in ("auto", "stream"))
    assert kept.room(123) == 123
    assert streams.room(123) == management.get_total_memory(devices.compute_device()) > 123
    assert streams.room(10**15) == 10**15


def test_precision_is_cast_and_named(file):
    half, _ = LoadTeacher.execute(file, "bfloat16", "auto", "auto").args
    assert {weight.dtype for weight in half.network.diffusion_model.blocks.parameters()} == {torch.bfloat16}
    assert half.dtype == half.teacher.dtype  # float32 where ComfyUI computes in that with bfloat16 weights
    assert "-bfloat16" in half.teacher.identity


def test_the_packs_own_teacher_comes_first_and_a_missing_file_is_said(models, tiny_teacher):
    save_teacher(tiny_teacher, places.MINI / "teacher.safetensors")
    (models / "diffusion_models" / "gen3c.pt").touch()
    inputs = {i.id: i for i in LoadTeacher.define_schema().inputs}
    assert inputs["file"].options == ["mini/teacher.safetensors", "gen3c.pt"]
    assert "guardrail" in inputs["file"].tooltip
    assert LoadTeacher.validate_inputs("mini/teacher.safetensors") is True
    assert "no file 'other.pt' in models/diffusion_models" in LoadTeacher.validate_inputs("other.pt")
    with pytest.raises(ValueError, match="gen3c.pt is an empty file: a download that never began; fetch it again"):
        LoadTeacher.execute("gen3c.pt", "auto", "auto", "auto")

import copy

import pytest
import torch
from torch import nn

pytest.importorskip("comfy_api")

import comfy.model_management as management  # noqa: E402
from lyra_pack.comfyui_lyra.configs import TEACHER_INPUTS  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.load import save_teacher  # noqa: E402
from lyra_pack.nodes.comfy import devices  # noqa: E402
from lyra_pack.nodes.comfy import folders as places  # noqa: E402
from lyra_pack.nodes.models.teacher import LoadTeacher, streamed  # noqa: E402


@pytest.fixture
def file(models, tiny_teacher) -> str:
    save_teacher(tiny_teacher, models / "diffusion_models" / "tiny.safetensors")
    return "tiny.safetensors"


@torch.inference_mode()
def ask(network: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, TEACHER_INPUTS, 2, 4, 6, generator=generator), torch.randn(1, 5, 12, generator=generator)
    return network(x, torch.zeros(1), text)


def test_a_teacher_loads_with_its_weights_unchanged_and_layers_that_comfyui_can_stream(file, tiny_teacher):
    model, _ = LoadTeacher.execute(file, "auto", "torch", "auto").args
    assert (model.config, model.licence, model.file) == (tiny_teacher.config, "Apache-2.0", file)
    assert (model.attention, model.stream, model.dtype) == ("torch", False, torch.float32)
    devices.load(model, size=1)
    assert model.patcher in [entry.model for entry in management.current_loaded_models]
    state, expected = model.network.state_dict(), tiny_teacher.network.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], weight) for name, weight in expected.items())
    linear = [layer for layer in model.network.modules() if isinstance(layer, nn.Linear)]
    assert len(linear) > 30 and all(layer.comfy_cast_weights for layer in linear)
    torch.testing.assert_close(ask(model.network), ask(tiny_teacher.network))
    assert model.teacher.network is model.network is model.patcher.model.network


@torch.inference_mode()
def test_any_part_of_the_weights_may_stay_behind(tiny_teacher):
    """Whatever ComfyUI cannot stream must be found where it lies; meta stands for the device, which has no values."""
    patcher = streamed(copy.deepcopy(tiny_teacher.network))
    patcher.load(torch.device("meta"), lowvram_model_memory=1)
    assert {weight.device.type for weight in patcher.model.parameters()} == {"cpu"}
    shapes = (1, TEACHER_INPUTS, 2, 4, 6), (1,), (1, 5, 12)
    found = patcher.model.network(*(torch.empty(shape, device="meta") for shape in shapes))
    assert (found.device.type, tuple(found.shape)) == ("meta", (1, 16, 2, 4, 6))


def test_streaming_asks_for_all_of_the_memory(file):
    kept, streams = (LoadTeacher.execute(file, "auto", "auto", memory).args[0] for memory in ("auto", "stream"))
    assert kept.room(123) == 123
    assert streams.room(123) == management.get_total_memory(devices.compute_device()) > 123
    assert streams.room(10**15) == 10**15


def test_precision_is_cast_and_named(file):
    half, _ = LoadTeacher.execute(file, "bfloat16", "auto", "auto").args
    assert half.dtype == half.teacher.dtype == torch.bfloat16
    assert half.teacher.identity.endswith("-bfloat16")


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

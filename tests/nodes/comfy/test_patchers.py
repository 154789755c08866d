import copy
import gc

import pytest
import torch
from torch import nn

pytest.importorskip("comfy_api")

import comfy.model_management as management  # noqa: E402
from lyra_pack.comfyui_lyra.bench.recon import random_inputs  # noqa: E402
from lyra_pack.comfyui_lyra.bench.teacher import random_teacher  # noqa: E402
from lyra_pack.comfyui_lyra.configs import TEACHER_INPUTS, TeacherConfig  # noqa: E402
from lyra_pack.nodes.comfy import devices  # noqa: E402
from lyra_pack.nodes.comfy.patchers import Model, castable, in_core  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny_teacher():
    config = TeacherConfig(
        family="tiny", trained_size=(32, 48), trained_frames=9, heads=2, head_dim=16, blocks=2, adaln_rank=8,
        text_dim=12, text_rows=5, max_grid=(8, 16, 16), bf16_angles=False,
    )  # fmt: skip
    return random_teacher(config, CPU).float()


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def ask_teacher(network: nn.Module) -> torch.Tensor:
    return network(normal(1, TEACHER_INPUTS, 2, 4, 6), torch.zeros(1), normal(1, 5, 12))


@pytest.fixture(params=["tokenizer", "recon", "teacher"])
def network_and_call(request, tiny_tokenizer, tiny_recon, tiny_teacher):
    inputs = random_inputs(tiny_recon.config, 2, CPU, torch.float32)
    return {
        "tokenizer": (tiny_tokenizer, lambda network: network.encode(normal(1, 3, 9, 16, 16))),
        "recon": (tiny_recon, lambda network: network(inputs)[0].means),
        "teacher": (tiny_teacher, ask_teacher),
    }[request.param]


@torch.inference_mode()
def test_castable_layers_have_the_same_names_weights_and_results(network_and_call):
    network, call = network_and_call
    twin = castable(copy.deepcopy(network))
    state, same = network.state_dict(), twin.state_dict()
    assert list(same) == list(state)
    assert all(torch.equal(same[name], weight) for name, weight in state.items())
    assert not any(hasattr(layer, "comfy_cast_weights") for layer in network.modules())
    assert all(layer.comfy_cast_weights for layer in twin.modules() if isinstance(layer, nn.Linear))
    assert [type(layer) for layer in castable(twin).modules()] == [type(layer) for layer in twin.modules()]
    result = call(twin)
    assert result.isfinite().all() and result.std() > 0
    assert torch.equal(result, call(network))


def test_every_layer_of_torchs_own_that_comfyui_can_stream_is_given_to_it(network_and_call):
    twin = castable(copy.deepcopy(network_and_call[0]))
    holders = [layer for layer in twin.modules() if any(w is not None for w in layer._parameters.values())]
    given = [layer for layer in holders if getattr(layer, "comfy_cast_weights", False)]
    left = {
        type(layer).__name__ for layer in holders if layer not in given and type(layer).__module__[:8] == "torch.nn"
    }
    assert left <= {"ConvTranspose3d"}  # ComfyUI has none, and the decoder that ends with one is loaded whole
    assert len(given) > 15


def test_a_small_network_is_loaded_whole_or_not_at_all(tiny_recon):
    patcher = in_core(copy.deepcopy(tiny_recon))
    patcher.partially_load(torch.device("meta"), extra_memory=0)
    assert {weight.device.type for weight in patcher.model.parameters()} == {"meta"}
    assert patcher.partially_unload(CPU, memory_to_free=1) == 0
    assert patcher.loaded_size() == patcher.model_size()


def test_models_are_loaded_together_once_and_forgotten_with_their_node(tiny_recon, tiny_tokenizer):
    models = [
        Model(patcher=in_core(copy.deepcopy(network)), config=network.config, file="tiny")
        for network in (tiny_recon, tiny_tokenizer)
    ]
    before = len(management.current_loaded_models)
    for _ in range(3):
        devices.load(*models, size=1)
    loaded = [entry.model for entry in management.current_loaded_models]
    assert len(loaded) == before + 2 and all(model.patcher in loaded for model in models)
    assert all(model.network.training is False and model.dtype == torch.float32 for model in models)
    del models, loaded
    gc.collect()
    management.cleanup_models()
    assert len(management.current_loaded_models) <= before

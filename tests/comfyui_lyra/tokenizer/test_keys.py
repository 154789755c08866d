import json
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TOKENIZER_PRESETS
from lyra_pack.comfyui_lyra.tokenizer.keys import rules
from lyra_pack.comfyui_lyra.tokenizer.model import build_autoencoder
from lyra_pack.comfyui_lyra.weights.load import load_weights, rename

MANIFEST = Path(__file__).parents[2] / "data" / "manifests" / "cosmos_tokenizer_cv8x8x8.json"


def released() -> dict[str, torch.Tensor]:
    entries = json.loads(MANIFEST.read_text()).items()
    return {name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for name, (shape, dtype) in entries}


def released_size() -> torch.nn.Module:
    return build_autoencoder(TOKENIZER_PRESETS["lyra"], "meta")


def test_the_released_names_and_shapes_fit_the_released_size():
    load_weights(released_size(), released(), rules(), "manifest")
    parameters = sum(tensor.numel() for tensor in rename(released(), rules()).values())
    assert parameters == 42_914_864 + 62_738_832


@pytest.mark.parametrize("prefix", ["network.", "module."])
def test_a_wrapper_s_prefix_is_stripped(prefix):
    load_weights(released_size(), {prefix + name: tensor for name, tensor in released().items()}, rules(), "manifest")


def test_the_names_of_diffusers_pass_unchanged():
    state = released_size().state_dict()
    assert rename(state, rules()).keys() == state.keys()


def test_the_decoder_counts_its_levels_backwards():
    names = {f"decoder.up.{i}.block.0.norm1.norm.bias": torch.zeros(i) for i in range(4)}
    renamed = rename(names, rules(levels=4))
    assert {name: tensor.numel() for name, tensor in renamed.items()} == {
        f"decoder.up_blocks.{3 - i}.resnets.0.norm1.norm.bias": i for i in range(4)
    }

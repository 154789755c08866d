"""Every released table of names at full size, on ``meta``: each name and shape is the model's, and no other is left."""

import json
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import RECON_PRESETS, TEACHER_PRESETS, TOKENIZER_PRESETS
from lyra_pack.comfyui_lyra.gen3c.dit import build
from lyra_pack.comfyui_lyra.gen3c.keys import RULES as TEACHER
from lyra_pack.comfyui_lyra.recon.keys import RULES as RECON
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.released.sniff import loader_of
from lyra_pack.comfyui_lyra.tokenizer.keys import rules
from lyra_pack.comfyui_lyra.tokenizer.model import build_autoencoder
from lyra_pack.comfyui_lyra.weights.load import fitted

MANIFESTS = Path(__file__).parents[3] / "data" / "manifests"


def described(name: str) -> dict[str, torch.Tensor]:
    entries = json.loads((MANIFESTS / f"{name}.json").read_text())
    return {
        key: torch.empty(shape, dtype=getattr(torch, kind), device="meta") for key, (shape, kind) in entries.items()
    }


@pytest.fixture(scope="module")
def gen3c():
    return build(TEACHER_PRESETS["gen3c"])


@pytest.fixture(scope="module")
def cosmos():
    return build_autoencoder(TOKENIZER_PRESETS["lyra"], "meta")


PREFIXES = ("", "net.", "module.net.", "model.net.", "_orig_mod.net.", "model.diffusion_model.", "module.model.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_nvidia_s_names_of_gen3c(gen3c, prefix):
    state = {prefix + name.removeprefix("net."): weight for name, weight in described("gen3c_dit").items()
             if not name.startswith("logvar.")}  # fmt: skip
    extra = ("pos_embedder.dim_spatial_range", "accum_video_sample_counter", "accum_iteration")
    state |= {prefix + name: torch.empty(1, device="meta") for name in extra}
    found = fitted(gen3c, state | {"logvar.1.weight": torch.empty(1, 128, device="meta")}, TEACHER, "model.pt")
    assert sum(weight.numel() for weight in found.values()) > 7.2e9 and loader_of(state)[0] == "teacher"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_fastvideo_s_names_of_gen3c(gen3c, fastvideo, prefix):
    state = {prefix + name: weight for name, weight in fastvideo(gen3c.state_dict()).items()}
    assert not any(".norm1." in name or ".ff." in name or name.startswith("time_embed.norm") for name in state)
    fitted(gen3c, state, TEACHER, "model.safetensors")
    assert loader_of(state)[0] == "teacher"


def test_nvidia_s_names_are_ours_backwards(gen3c, nvidia):
    made = nvidia(gen3c.state_dict())
    known = {name for name in described("gen3c_dit") if not name.startswith(("logvar.", "net.pos_embedder."))}
    assert made.keys() == known


@pytest.mark.parametrize("prefix", ["", "network.", "module.network.", "vae.", "first_stage_model.", "model.network."])
def test_the_tokenizer_s_names_with_the_averages_of_a_training(cosmos, prefix):
    state = {prefix + name: weight for name, weight in described("cosmos_tokenizer_cv8x8x8").items()}
    ema = {f"ema.network-{name.replace('.', '-')}": weight for name, weight in state.items()}
    fitted(cosmos, state | ema, rules(3), "model.pt")
    assert loader_of(state | ema)[0] == "tokenizer"


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module.module."])
@pytest.mark.parametrize("name", ["lyra_static", "lyra_dynamic"])
def test_the_splat_decoders_names(name, prefix):
    with torch.device("meta"):
        model = Recon(RECON_PRESETS[name])
    state = {prefix + key: weight for key, weight in described(name).items()}
    fitted(model, state, RECON, f"{name}.pt")
    assert loader_of(state)[0] == "recon"

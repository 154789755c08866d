"""What nodes that change a MODEL do to GEN3C: guidance, caches, LoRAs, 8-bit weights, attention, compiling."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.lora  # noqa: E402
import comfy.model_management as management  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402
from lyra_pack.comfyui_lyra.mini import __path__ as mini_path  # noqa: E402
from lyra_pack.comfyui_lyra.released.convert import convert_weights  # noqa: E402
from lyra_pack.nodes.models.teacher import load  # noqa: E402
from lyra_pack.nodes.native.model import FIRST, register  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

MINI = Path(next(iter(mini_path))) / "mini_teacher.safetensors"


@pytest.fixture(scope="module")
def base(ksampler):
    """12 euler steps by core's KSampler."""
    return ksampler()


def lora(model, layers, names: str) -> dict[str, torch.Tensor]:
    """A random LoRA of rank 4 on some layers, in the names of one trainer or of another."""
    generator, found = torch.Generator().manual_seed(0), {}
    ends = {"peft": ("lora_A", "lora_B"), "kohya": ("lora_down", "lora_up")}[names]
    for name, weight in model.model.diffusion_model.state_dict().items():
        if name.endswith(layers):
            layer = name.removesuffix(".weight")
            layer = f"diffusion_model.{layer}" if names == "peft" else f"lora_unet_{layer.replace('.', '_')}"
            found[f"{layer}.{ends[0]}.weight"] = torch.randn(4, weight.shape[1], generator=generator)
            found[f"{layer}.{ends[1]}.weight"] = torch.randn(weight.shape[0], 4, generator=generator) / 4
    return found


def test_rescale_cfg_runs_and_hardly_moves_the_picture(core, stage, ksampler, base, off, conditions):
    (model,) = core.model_advanced.RescaleCFG().patch(stage.model, 0.7)
    found = ksampler(model=model)
    assert 1e-3 < off(found, base) < 0.5
    assert (found[:, :, :1] - conditions[0][0][0][1][FIRST]).abs().max() < 1e-3  # it acts after the picture


def test_easycache_leaves_out_steps_at_a_small_price_and_lazycache_does_not_fit(core, stage, ksampler, base, off):
    passes, price, block = [], [], stage.model.model.diffusion_model.blocks["block0"]
    for node, threshold in ((core.easycache.EasyCacheNode, 0.2), (core.easycache.LazyCacheNode, 0.5)):
        (model,) = node.execute(stage.model, threshold, 0.15, 0.95, False).args
        handle = block.register_forward_hook(lambda *_: passes.append(len(price)))
        price.append(off(ksampler(model=model), base))
        handle.remove()
    assert 10 < passes.count(0) < 24 and 10 < passes.count(1) < 24
    assert 0 < price[0] < 0.3 < price[1]


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder from which core's loaders read LoRAs and models."""
    for kind in ("loras", "diffusion_models"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def test_core_loads_loras_in_the_names_of_both_kinds_of_trainers(core, stage, ksampler, base, off, shelf):
    layers = ("attn.to_q.0.weight", "attn.to_out.0.weight", "block.layer1.weight")
    made = {}
    for names in ("peft", "kohya"):
        save_file(lora(stage.model, layers, names), shelf / f"{names}.safetensors")
        (model,) = core.nodes.LoraLoaderModelOnly().load_lora_model_only(stage.model, f"{names}.safetensors", 1.0)
        assert len(model.patches) == 3 * 2 * 3 - 3  # two attentions and one MLP in three blocks
        made[names] = ksampler(model=model)
    assert torch.equal(made["peft"], made["kohya"]) and off(made["peft"], base) > 0.01


def test_every_matrix_has_a_name_in_both_spellings(stage):
    keys = comfy.lora.model_lora_keys_unet(stage.model.model)
    for name, weight in stage.model.model.diffusion_model.named_parameters():
        if weight.ndim == 2 and name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            spelt = (f"diffusion_model.{layer}", f"lora_unet_{layer.replace('.', '_')}")
            assert [keys[spelling] for spelling in spelt] == [f"diffusion_model.{name}"] * 2


@pytest.fixture(scope="module")
def shown():
    """What the mini network is asked, and a call of a MODEL with it."""
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 81, 3, 12, 20, generator=generator), torch.zeros(1, 8, 8)

    @torch.inference_mode()
    def call(model):
        management.load_models_gpu([model])
        dtype = model.model.get_dtype_inference()
        return model.model.diffusion_model(x.to(dtype), torch.zeros(1), context=text.to(dtype), fps=24.0).float()

    return call


@pytest.fixture(scope="module")
def mini():
    """The shipped teacher as MODEL."""
    with torch.inference_mode():
        return load(MINI.name, MINI, torch.float32, "auto", False)[1]


def apart(found, exact) -> float:
    return ((found - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("quant", ["fp8", "int8"])
@torch.inference_mode()
def test_a_lora_counts_on_8_bit_weights_too(mini, shown, tmp_path, quant):
    convert_weights(MINI, tmp_path / "small.safetensors", quant=quant)
    small = load("small.safetensors", tmp_path / "small.safetensors", torch.float32, "auto", False)[1]
    given = lora(mini, "attn.to_q.0.weight", "peft")
    both = [comfy.sd.load_lora_for_models(model, None, given, 1.0, 0)[0] for model in (mini, small)]
    exact, found = map(shown, both)
    assert apart(found, exact) < 0.15 < apart(exact, shown(mini))


@torch.inference_mode()
def test_load_diffusion_model_stores_plain_weights_in_8_bits(core, mini, shown, shelf):
    register()
    state = {f"net.{name}": weight.contiguous() for name, weight in mini.model.diffusion_model.state_dict().items()}
    save_file(state, shelf / "plain.safetensors")
    (whole,) = core.nodes.UNETLoader().load_unet("plain.safetensors", "default")
    (small,) = core.nodes.UNETLoader().load_unet("plain.safetensors", "fp8_e4m3fn")
    assert small.model.diffusion_model.blocks["block0"].blocks[2].block.layer1.weight.dtype == torch.float8_e4m3fn
    assert apart(shown(whole), shown(mini)) < 1e-5
    assert 0 < apart(shown(small), shown(mini)) < 0.2


@torch.inference_mode()
def test_bfloat16_is_near(mini, shown):
    model = load(MINI.name, MINI, torch.bfloat16, "auto", False)[1]
    assert 0 < apart(shown(model), shown(mini)) < 2e-2


def test_attention_of_a_node_gives_the_same(core, stage, ksampler, base, off):
    (model,) = core.model_advanced.ModelAttentionBackend().patch(stage.model, "pytorch attention")
    assert off(ksampler(model=model), base) < 1e-5


def test_a_compiled_network_gives_the_same(core, stage, ksampler, off, long):
    if not long:
        pytest.skip("--long: tracing takes a minute")
    (model,) = core.torch_compile.TorchCompileModel.execute(stage.model, "eager").args
    assert off(ksampler(model=model, steps=2, cfg=1.0), ksampler(steps=2, cfg=1.0)) < 1e-5

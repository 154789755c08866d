import re

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.ops  # noqa: E402
from comfy.ldm.cosmos.blocks import Attention  # noqa: E402
from lyra_pack.comfyui_lyra.configs import TEACHER_INPUTS, TEACHER_PRESETS, TeacherConfig  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c import tokens  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.dit import build  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.keys import RELEASED, RULES  # noqa: E402
from lyra_pack.comfyui_lyra.weights.load import rename  # noqa: E402
from lyra_pack.nodes.native import network  # noqa: E402
from lyra_pack.nodes.native.network import GEN3CDiT, RotaryFormat, StepCache, unet_config  # noqa: E402

CASES = {  # output -> (entry of meta["cases"], padding mask, c_noise, uses the warps, scale of q and k)
    "out_case1": ("case1", "padding_mask_case1", "c_noise_case1", True, 1.0),
    "out_case2": ("case2", "padding_mask_case2", "c_noise_case2", True, 1.0),
    "out_case3_zero_warp": ("case1", "padding_mask_case1", "c_noise_case2", False, 1.0),
    "out_case4_small_qk": ("case1", "padding_mask_case1", "c_noise_case1", True, 0.003),
}


def made(config: TeacherConfig, device="cpu", dtype=torch.float32, **changes) -> GEN3CDiT:
    operations = comfy.ops.disable_weight_init
    return GEN3CDiT(**unet_config(config), device=torch.device(device), dtype=dtype, operations=operations, **changes)


def inputs(config: TeacherConfig, dtype=torch.float32, batch=1):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, TEACHER_INPUTS, *config.latent_shape[1:], generator=generator)
    text = torch.randn(batch, config.text_rows, config.text_dim, generator=generator)
    return x.to(dtype), torch.full((batch,), 0.3), text.to(dtype)


@pytest.mark.golden("teacher/dit_forward")
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_cores_network_gives_the_references_numbers(golden, case):
    entry, padding, c_noise, with_warps, scale = CASES[case]
    about, weights = golden.meta["config"], golden.other("dit_weights")
    config = TeacherConfig(
        heads=about["heads"], head_dim=about["head_dim"], blocks=about["blocks"], adaln_rank=about["lora"],
        text_dim=about["ctx"], text_rows=about["L"], max_grid=(about["max_t"], about["max_h"], about["max_w"]),
        bf16_angles=False,
    )  # fmt: skip
    state = {n: weights[n] * (scale if re.search(r"\.to_[qk]\.0\.", n) else 1) for n in weights}
    model = made(config)
    model.load_state_dict(rename(rename(state, RULES), RELEASED), strict=True)
    fps = float(re.search(r"fps ([\d.]+)", golden.meta["cases"][entry])[1])
    warps = golden["warp_latents"] * with_warps
    x = torch.cat((golden["x"], golden["condition_mask"], warps), dim=1)
    out = model(x, golden[c_noise], golden["text_emb"], fps=fps, padding_mask=golden[padding])
    torch.testing.assert_close(out, golden[case], rtol=0, atol=2e-5 * max(1.0, golden[case].abs().max().item()))


@pytest.mark.golden("teacher/rope_full")
@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_rotary_table_is_the_trained_one_in_cores_format(golden, precision, dtype):
    grid, fps = tuple(golden.meta[axis] for axis in "THW"), torch.tensor(float(golden.meta["fps"]))
    table = RotaryFormat(golden.meta["head_dim"], dtype)(torch.empty(1, *grid, 1, device="meta"), fps)
    angles = torch.cat(
        [golden[f"{precision}_{axis}"][tuple(slice(None) if i == k else None for i in range(3))].expand(*grid, -1)
         for k, axis in enumerate("thw")], dim=-1,
    ).flatten(0, 2)  # fmt: skip
    expected = torch.stack((angles.cos(), -angles.sin(), angles.sin(), angles.cos()), dim=-1).unflatten(-1, (2, 2))
    torch.testing.assert_close(table, expected, rtol=0, atol=0 if dtype == torch.bfloat16 else 2e-5)


def test_names_and_shapes_at_full_size_are_the_shells():
    config = TEACHER_PRESETS["gen3c"]
    core = {name: weight.shape for name, weight in made(config, "meta").state_dict().items()}
    ours = rename(build(config).state_dict(), RELEASED)
    assert core == {name: weight.shape for name, weight in ours.items()}
    assert len(core) == 570
    assert rename(ours, RULES).keys() == build(config).state_dict().keys()


@torch.inference_mode()
def test_no_text_is_bit_equal_to_zeros(stage):
    model = made(stage.teacher.config)
    model.load_state_dict(stage.model.model.diffusion_model.state_dict(), strict=True)
    x, c_noise, text = inputs(stage.teacher.config)
    zeros = model(x, c_noise, torch.zeros_like(text))
    assert torch.equal(model(x, c_noise, text[:, :0]), zeros)
    assert not torch.equal(model(x, c_noise, text), zeros)


@torch.inference_mode()
def test_lean_blocks_give_cores_values(stage, monkeypatch):
    config, state = stage.teacher.config, stage.model.model.diffusion_model.state_dict()
    monkeypatch.setattr(tokens, "ROWS", 5)  # of 12 tokens
    given, found = inputs(config, batch=2), {}
    for dtype in (torch.float32, torch.bfloat16):
        for lean in (False, True):
            model = made(config, dtype=dtype, lean=lean)
            model.load_state_dict(state, strict=True)
            assert bool({type(layer) for layer in model.modules()} & {Attention}) is not lean
            found[dtype, lean] = model(given[0].to(dtype), given[1], given[2].to(dtype)).float()
    exact = found[torch.float32, False]
    torch.testing.assert_close(found[torch.float32, True], exact, rtol=0, atol=2e-6 * exact.abs().max().item())
    off = {lean: (found[torch.bfloat16, lean] - exact).norm() / exact.norm() for lean in (False, True)}
    assert off[True] < 1.2 * off[False] < 0.1  # rounding alone


@torch.inference_mode()
def test_sparse_attention_gets_neighbours_beside_each_other_and_the_text_whole(monkeypatch):
    seen, qkv = [], torch.randn(3, 1, 2, 2 * 8 * 32, 8, generator=torch.Generator().manual_seed(0))
    real = network.attention

    def attend(*qkv, backend="auto", **sinks):
        seen.append((qkv[0], backend, sinks))
        return real(*qkv)

    monkeypatch.setattr(network, "attention", attend)
    options = {network.ATTENTION: "sol-1.0", network.GRID: (2, 8, 32)}
    found = network.attend(*qkv, options)
    torch.testing.assert_close(found, real(*qkv))
    (query, backend, sinks), tiled = seen.pop(), tokens.in_tiles(qkv[0].flatten(0, 1), (2, 8, 32)).view_as(qkv[0])
    assert backend == "sol-1.0" and torch.equal(query, tiled) and not torch.equal(query, qkv[0])
    assert sinks == {"sinks": 8 * 32}
    network.attend(qkv[0], qkv[1, :, :, :5], qkv[2, :, :, :5], options)
    assert seen.pop()[1] == "auto"


@torch.inference_mode()
def test_both_networks_agree(stage):
    core, shell = stage.model.model.diffusion_model, stage.teacher.network
    for level in (80.0, 1.0, 2e-4):
        x, _, text = inputs(stage.teacher.config, batch=2)
        c_noise = torch.full((2,), level).log() / 4
        expected = shell(x, c_noise, text)
        found = core(x, c_noise, text)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * max(1.0, expected.abs().max().item()))


@torch.inference_mode()
def test_attention_is_that_of_a_node_else_of_the_teacher_else_our_fastest(stage, monkeypatch):
    core, given, seen = stage.model.model.diffusion_model, inputs(stage.teacher.config), []
    real = network.attention
    monkeypatch.setattr(network, "attention", lambda *qkv, backend: seen.append(backend) or real(*qkv, backend=backend))
    core(*given)
    core(*given, transformer_options={network.ATTENTION: "torch"})
    assert set(seen[: len(seen) // 2]) == {"auto"} and set(seen[len(seen) // 2 :]) == {"torch"}
    seen.clear()
    calls = []

    def chosen(function, *args, **kwargs):
        calls.append(function)
        return function(*args, **kwargs)

    core(*given, transformer_options={network.OVERRIDE: chosen, network.ATTENTION: "torch"})
    monkeypatch.setattr(network.core, "optimized_attention", network.core.attention_split)  # by a flag of ComfyUI's
    core(*given)
    assert not seen and len(calls) == 2 * stage.teacher.config.blocks
    core(*given, transformer_options={network.EXACT: True})  # as Generate Latents asks
    assert set(seen) == {"auto"}


def test_step_cache_skips_while_the_first_block_hardly_changes():
    cache, first = StepCache(0.1), torch.ones(4)
    assert cache.others(first) is None
    cache.keep(torch.full((4,), 7.0))
    assert cache.others(first * 1.09).tolist() == [7.0] * 4
    assert cache.others(first * 1.11) is None  # compared with the last whole pass
    cache.keep(torch.full((4,), 8.0))
    assert cache.others(first * 1.11).tolist() == [8.0] * 4
    assert cache.skipped == 2

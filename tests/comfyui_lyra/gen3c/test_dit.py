import gc
import json
import re
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import CHANNELS, TEACHER_INPUTS, TEACHER_PRESETS, TeacherConfig
from lyra_pack.comfyui_lyra.gen3c import dit, tokens
from lyra_pack.comfyui_lyra.gen3c.dit import GEN3C, build
from lyra_pack.comfyui_lyra.gen3c.keys import RULES
from lyra_pack.comfyui_lyra.gen3c.sampler import Conditions, condition_noise, initial_noise, sample
from lyra_pack.comfyui_lyra.gen3c.text import said, zero_text
from lyra_pack.comfyui_lyra.weights.load import load_weights, rename
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

ROOT = Path(__file__).resolve().parents[3]


def close(actual, golden):
    """The goldens' own tolerance: 2e-5 of the largest value."""
    assert_close(actual, golden, rtol=0, atol=2e-5 * max(1.0, golden.abs().max().item()))


def load(weights, config, scale_qk=1.0) -> GEN3C:
    state = {name: weights[name] for name in weights}
    for name in state:
        if re.search(r"\.to_[qk]\.0\.", name):
            state[name] = state[name] * scale_qk
    model = build(
        TeacherConfig(
            heads=config["heads"],
            head_dim=config["head_dim"],
            blocks=config["blocks"],
            adaln_rank=config["lora"],
            text_dim=config["ctx"],
            text_rows=config["L"],
            max_grid=(config["max_t"], config["max_h"], config["max_w"]),
            bf16_angles=False,  # the goldens were made in float32
        )
    )
    return load_weights(model, state, RULES, "golden")


def case_fps(meta, case) -> float:
    text = meta["cases"][case]
    if "as case1" in text:
        text = meta["cases"]["case1"]
    return float(re.search(r"fps ([\d.]+)", text)[1])


CASES = {  # output -> (entry of meta["cases"], padding mask, c_noise, uses the warps, scale of q and k)
    "out_case1": ("case1", "padding_mask_case1", "c_noise_case1", True, 1.0),
    "out_case2": ("case2", "padding_mask_case2", "c_noise_case2", True, 1.0),
    "out_case3_zero_warp": ("case3_zero_warp", "padding_mask_case1", "c_noise_case2", False, 1.0),
    "out_case4_small_qk": ("case4_small_qk", "padding_mask_case1", "c_noise_case1", True, 0.003),
}


@pytest.mark.golden("teacher/dit_forward")
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_forward_equals_the_reference(golden, case):
    entry, padding, c_noise, with_warps, scale_qk = CASES[case]
    model = load(golden.other("dit_weights"), golden.meta["config"], scale_qk)
    warps = golden["warp_latents"] if with_warps else torch.zeros_like(golden["warp_latents"])
    out = model(
        torch.cat((golden["x"], golden["condition_mask"], warps), dim=1),
        golden[c_noise],
        golden["text_emb"],
        fps=case_fps(golden.meta, entry),
        padding_mask=golden[padding],
    )
    close(out, golden[case])


@pytest.mark.golden("teacher/dit_forward")
@torch.inference_mode()
def test_every_part_equals_the_reference(golden):
    model = load(golden.other("dit_weights"), golden.meta["config"])
    embedded, blocks = [], []
    model.patch_embed.register_forward_hook(lambda module, args, out: embedded.append(out))
    for block in model.transformer_blocks:
        block.register_forward_hook(lambda module, args, out: blocks.append(out))
    x = torch.cat((golden["x"], golden["condition_mask"], golden["warp_latents"]), dim=1)
    fps = case_fps(golden.meta, "case1")
    model(x, golden["c_noise_case1"], golden["text_emb"], fps=fps, padding_mask=golden["padding_mask_case1"])

    close(embedded[0], golden["case1.x_embed"])
    grid = tuple(embedded[0].shape[1:4])
    assert len(blocks) == golden.meta["config"]["blocks"]
    for i, out in enumerate(blocks):
        close(out.unflatten(1, grid).permute(1, 2, 3, 0, 4), golden[f"case1.block{i}_out_THWBD"])
    positions = golden["case1.extra_pos_emb"]
    close(model.position_embedding(grid, positions.device).unflatten(1, grid).expand_as(positions), positions)

    embedding = model.time_embed
    sinusoid = embedding.time_proj(golden["c_noise_case1"])
    close(sinusoid, golden["case1.t_emb"])
    close(embedding.t_embedder(sinusoid), golden["case1.t_adaln_lora"])
    close(embedding.norm(sinusoid), golden["case1.t_emb_normed"])


def test_the_released_names_and_shapes_are_those_of_the_full_network():
    manifest = json.loads((ROOT / "tests/data/manifests/gen3c_dit.json").read_text())
    released = {name: torch.empty(shape, device="meta") for name, (shape, _) in manifest.items()}
    released["net.blocks.block0.blocks.0.block.attn._extra_state"] = torch.empty(0, device="meta")
    ours = build(TEACHER_PRESETS["gen3c"]).state_dict()
    assert {name: t.shape for name, t in rename(released, RULES).items()} == {n: t.shape for n, t in ours.items()}


def random_model(config) -> GEN3C:
    torch.manual_seed(0)
    model = GEN3C(config).eval()
    with torch.no_grad():
        for parameter in model.learnable_pos_embed.parameters():
            parameter.normal_()
    return model


def inputs(config, batch=1, grid=(3, 8, 6)):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(batch, TEACHER_INPUTS, *grid, generator=g)
    return x, torch.linspace(-0.5, 0.9, batch), torch.randn(batch, config.text_rows, config.text_dim, generator=g)


@torch.inference_mode()
def test_slicing_the_tokens_changes_nothing(tiny, monkeypatch):
    model = random_model(tiny)
    whole = model(*inputs(tiny, batch=2))
    monkeypatch.setattr(tokens, "ROWS", 7)  # 36 tokens: an uneven last slice
    assert_close(model(*inputs(tiny, batch=2)), whole, rtol=0, atol=2e-6)


@torch.inference_mode()
def test_each_sample_of_a_batch_has_its_own_noise_level_and_text(tiny):
    model = random_model(tiny)
    x, c_noise, text = inputs(tiny, batch=2)
    both = model(x, c_noise, text)
    for i in range(2):
        assert_close(model(x[i : i + 1], c_noise[i : i + 1], text[i : i + 1]), both[i : i + 1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_no_text_is_bit_equal_to_zeros_and_leaves_cross_attention_out(tiny, dtype):
    model = random_model(tiny).to(dtype)
    x, c_noise, text = inputs(tiny, batch=2)
    x, text = x.to(dtype), text.to(dtype)
    none, seen = said(torch.zeros_like(text)), []
    assert none.shape == (2, 0, tiny.text_dim) and said(text) is text
    zeros = model(x, c_noise, torch.zeros_like(text))
    model.transformer_blocks[0].attn2.register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(model(x, c_noise, none), zeros) and not seen
    assert not torch.equal(model(x, c_noise, text), zeros) and seen


def test_a_cancelled_pass_stops_after_the_block_that_cancelled_it(tiny):
    seen = []

    def cancel(done, total):
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        random_model(tiny)(*inputs(tiny), on_block=cancel)
    assert seen == [(1, 3), (2, 3)]


@torch.inference_mode()
def test_step_cache_skips_later_blocks_per_branch_and_leaves_nothing(tiny):
    model = random_model(tiny)
    exact, keys = model(*inputs(tiny)), set(model.state_dict())
    calls = []
    model.transformer_blocks[1].ff.register_forward_hook(lambda *_: calls.append(1))
    x, c_noise, text = inputs(tiny)
    with model.step_cache(threshold=1e-3):
        model(x, c_noise, text, "cond")
        model(x * 0.5, c_noise + 1, text, "uncond")
        assert len(calls) == 2  # nothing remembered yet in either branch
        again = model(x, c_noise, text, "cond")
        assert len(calls) == 2  # the same input: only the first block ran
        assert_close(again, exact, rtol=0, atol=1e-5)
        model(x * -3, c_noise, text, "cond")
        assert len(calls) == 3  # another input: everything ran
    model(x, c_noise, text)
    assert len(calls) == 4
    assert set(model.state_dict()) == keys
    with model.step_cache(threshold=1e-3):
        model(x, c_noise, text)
    assert len(calls) == 5  # a new clip starts without memory


@torch.inference_mode()
def test_what_the_step_cache_keeps_goes_with_it_at_once(tiny):
    model, kept = random_model(tiny), []
    gc.disable()  # removed hooks hold each other in circles, which nobody may come to break
    try:
        with model.step_cache(threshold=1e-3):
            block = model.transformer_blocks[0].register_forward_hook(lambda *call: kept.append(weakref.ref(call[-1])))
            model(*inputs(tiny), "cond")
            model(*inputs(tiny), "uncond")
            assert [ref() is not None for ref in kept] == [True, True]
        block.remove()
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()


def test_the_transformer_is_a_network_of_the_sampler(tiny):
    model, shape, blocks = random_model(tiny), (1, CHANNELS, 3, 8, 6), []
    given = Conditions(
        first=initial_noise(shape, 1)[:, :, :1],
        warps=initial_noise((1, 4 * CHANNELS, 3, 8, 6), 2),
        text=zero_text(tiny).prompt,
        negative=zero_text(tiny).negative,
    )

    def clip(**extra):
        network = partial(model, fps=16.0, **extra)
        return sample(network, given, initial_noise(shape, 3), condition_noise(shape, 4), steps=2)

    exact = clip(on_block=lambda done, total: blocks.append(done))
    assert blocks == [1, 2, 3] * 2 * 2
    assert_close(exact[:, :, :1], given.first, rtol=0, atol=1e-2)
    with model.step_cache(threshold=0.0):  # nothing is ever equal to its predecessor
        assert torch.equal(clip(), exact)
    with model.step_cache(threshold=10.0):  # everything passes for it: only the first step is computed
        assert not torch.equal(clip(), exact)


def test_one_attention_backend_per_call(tiny):
    with pytest.raises(RuntimeError, match="unknown backend 'none'; use one of auto, torch"):
        random_model(tiny)(*inputs(tiny), backend="none")


def test_gradients_reach_every_weight(tiny):
    model = random_model(tiny)
    with torch.inference_mode():
        model(*inputs(tiny))  # fills the rotary tables
    model(*inputs(tiny)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_bfloat16_stays_bfloat16_and_near_float32(tiny):
    model = random_model(tiny)
    x, c_noise, text = inputs(tiny)
    with torch.inference_mode():
        exact = model(x, c_noise, text)
        rounded = model.bfloat16()(x.bfloat16(), c_noise, text.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).square().mean().sqrt() < 0.02 * exact.square().mean().sqrt()


def test_misfits_say_what_was_expected(tiny):
    model = random_model(tiny)
    x, c_noise, text = inputs(tiny)
    with pytest.raises(ValueError, match=r"expected \[B 81 T h w\] \(state, mask, warps\), got \(1, 80, 3, 8, 6\)"):
        model(x[:, 1:], c_noise, text)
    with pytest.raises(ValueError, match=r"\(3, 8, 5\); h and w must be even and at most \(8, 16, 16\)"):
        model(x[..., 1:], c_noise, text)
    with pytest.raises(ValueError, match=r"\(3, 8, 18\); h and w must be even"):
        model(x.repeat(1, 1, 1, 1, 3), c_noise, text)


class PeakMemory(TorchDispatchMode):
    """Most bytes alive at once among the tensors made inside; ``held`` exist before."""

    def __init__(self, held):
        super().__init__()
        self.live = self.peak = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in held}

    def _release(self, storage, size):
        self.live -= size
        self.known.discard(storage)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())
        return out


@torch.inference_mode()
def test_a_pass_at_full_size_needs_at_most_4_5_gigabytes_above_the_weights():
    config = replace(TEACHER_PRESETS["gen3c"], blocks=3)
    model, (_, t, h, w) = build(config).bfloat16(), config.latent_shape
    x = torch.empty(1, TEACHER_INPUTS, t, h, w, dtype=torch.bfloat16, device="meta")
    text = torch.empty(1, config.text_rows, config.text_dim, dtype=torch.bfloat16, device="meta")
    with PeakMemory(held=[x, text, *model.parameters()]) as memory:
        out = model(x, torch.empty(1, device="meta"), text)
    assert out.shape == (1, *config.latent_shape)
    assert 3e9 < memory.peak < 4.5e9


def test_tiles_are_an_order_of_the_tokens_and_are_undone():
    grid = (2, 8, 32)
    tokens = torch.arange(2 * 8 * 32)[None, :, None]
    tiled = dit.in_tiles(tokens, grid)
    assert torch.equal(dit.in_rows(tiled, grid), tokens)
    first = tiled[0, :64, 0]
    assert set(first.tolist()) == {row * 32 + column for row in range(4) for column in range(16)}
    assert dit.can_tile(grid) and not dit.can_tile((2, 6, 32)) and not dit.can_tile((2, 8, 10))


@pytest.fixture
def two_tiles() -> partial:
    """A call of a network whose frames are two tiles, side by side: their order is not the rows'."""
    config = replace(TEACHER_PRESETS["mini"], blocks=2, max_grid=(2, 8, 64))
    torch.manual_seed(0)
    x = torch.randn(1, TEACHER_INPUTS, 2, 8, 64)
    return partial(GEN3C(config).eval(), x, torch.zeros(1), torch.randn(1, 3, config.text_dim))


@torch.inference_mode()
def test_what_the_step_cache_keeps_in_one_order_is_not_used_in_another(two_tiles, monkeypatch):
    straight = two_tiles()
    monkeypatch.setattr(dit, "SPARSE", ("torch",))
    with two_tiles.func.step_cache(threshold=1e9):
        two_tiles()
        assert_close(two_tiles(backend="torch"), straight, rtol=1e-4, atol=1e-4)
        assert_close(two_tiles(backend="torch"), straight, rtol=1e-4, atol=1e-4)
        assert_close(two_tiles(), straight, rtol=1e-4, atol=1e-4)


def test_the_order_of_tokens_changes_rounding_only(two_tiles, monkeypatch):
    call = two_tiles
    with torch.inference_mode():
        straight = call()
        monkeypatch.setattr(dit, "SPARSE", ("torch",))
        ordered = dit.in_tiles
        seen = []
        monkeypatch.setattr(dit, "in_tiles", lambda *given: seen.append(given) or ordered(*given))
        assert_close(call(backend="torch"), straight, rtol=1e-4, atol=1e-4)
    assert len(seen) == 4  # cos, sin, tokens, positions


@torch.inference_mode()
def test_self_attention_is_told_how_large_the_first_frame_is(two_tiles, monkeypatch):
    seen, attend = [], dit.attention
    monkeypatch.setattr(dit, "attention", lambda *qkv, **given: seen.append(given) or attend(*qkv, **given))
    two_tiles(backend="torch")
    assert seen[:2] == [{"backend": "torch", "sinks": 4 * 32}, {"backend": "auto", "sinks": 0}]


def test_a_norms_weight_is_found_wherever_a_host_keeps_it():
    norm = torch.nn.RMSNorm(16, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    assert torch.equal(dit.weight_of(norm, torch.zeros(1)), norm.weight)
    half = norm.bfloat16()
    assert torch.equal(dit.weight_of(half, torch.zeros(1, dtype=torch.bfloat16)), half.weight)

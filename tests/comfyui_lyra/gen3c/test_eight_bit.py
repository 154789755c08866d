import logging

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TEACHER_INPUTS, TeacherConfig
from lyra_pack.comfyui_lyra.cost.report import teacher_bytes
from lyra_pack.comfyui_lyra.gen3c import tokens
from lyra_pack.comfyui_lyra.gen3c.dit import GEN3C
from lyra_pack.comfyui_lyra.gen3c.eight_bit import EightBitLinear, Rows, size_of, to_eight_bits
from lyra_pack.comfyui_lyra.gen3c.load import Teacher
from lyra_pack.kernels_glue import KernelUnavailable, linear
from lyra_pack.kernels_glue.quantised import BITS, quantise_rows
from torch import nn
from torch.testing import assert_close

KINDS = pytest.mark.parametrize("bits", BITS)


def made(**sizes) -> GEN3C:
    config = {"heads": 4, "head_dim": 24, "blocks": 2, "adaln_rank": 8, "text_dim": 12, "text_rows": 5, **sizes}
    torch.manual_seed(0)
    model = GEN3C(TeacherConfig(max_grid=(8, 16, 16), **config)).eval()
    with torch.no_grad():
        for parameter in model.learnable_pos_embed.parameters():
            parameter.normal_()
    return model


def inputs():
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, TEACHER_INPUTS, 3, 8, 6, generator=g),
        torch.tensor([-0.5, 0.9]),
        torch.randn(2, 5, 12, generator=g),
    )


def off(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


@KINDS
@torch.inference_mode()
def test_a_network_in_8_bits_stays_near_the_exact_one(bits):
    model = made()
    exact = model(*inputs())
    to_eight_bits(model.transformer_blocks, bits)
    assert model.linears == bits
    error = off(model(*inputs()), exact)
    assert 1e-4 < error < {"fp8": 0.1, "int8": 0.04}[bits]


@torch.inference_mode()
def test_every_large_layer_of_a_block_is_replaced_and_the_rest_is_not():
    model = made()
    before = size_of(model.transformer_blocks[0])
    to_eight_bits(model.transformer_blocks, "int8")
    block = model.transformer_blocks[0]
    names = {name for name, layer in block.named_modules() if isinstance(layer, EightBitLinear)}
    assert names == {
        "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0", "ff.up", "ff.down",
    }  # fmt: skip
    left = {name for name, layer in block.named_modules() if isinstance(layer, nn.Linear)}
    assert left == {"attn2.to_k", "attn2.to_v"} | {f"norm{i}.linear_{j}" for i in (1, 2, 3) for j in (1, 2)}
    assert size_of(block) < before / 2


@torch.inference_mode()
def test_the_memory_of_weights_in_8_bits_is_told_beforehand():
    """But for the scales, 4 bytes for each of a layer's outputs."""
    model, config = made(text_dim=96), TeacherConfig(heads=4, head_dim=24, blocks=2, adaln_rank=8, text_dim=96)
    exact, short = size_of(model), teacher_bytes(config, torch.float32) - teacher_bytes(config, torch.float32, False)
    to_eight_bits(model.transformer_blocks, "int8")
    scales = 4 * 2 * (3 + 1 + 2 + 4 + 1) * 96
    assert exact - size_of(model) == short - scales


@torch.inference_mode()
def test_weights_in_8_bits_stream():
    model = made()
    to_eight_bits(model.transformer_blocks, "int8")
    exact = model(*inputs())
    Teacher(network=model, config=None, fingerprint="", dtype=torch.float32).streamed(torch.device("cpu"))
    assert torch.equal(model(*inputs()), exact)


@KINDS
@torch.inference_mode()
def test_rows_that_come_quantised_are_not_quantised_again(bits):
    layer = EightBitLinear(nn.Linear(64, 32, bias=False), bits)
    x = torch.randn(2, 5, 64)
    assert torch.equal(layer(Rows(*quantise_rows(x, BITS[bits]))), layer(x))


@torch.inference_mode()
def test_slices_of_tokens_change_nothing_in_8_bits(monkeypatch):
    model = made()
    to_eight_bits(model.transformer_blocks, "int8")
    whole = model(*inputs())
    monkeypatch.setattr(tokens, "ROWS", 7)
    assert_close(model(*inputs()), whole, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_network_is_quantised_once_and_says_what_it_saves(caplog, monkeypatch):
    monkeypatch.setattr(linear, "why_not", lambda *given: None)
    model = made()
    with caplog.at_level(logging.INFO, logger="lyra"):
        model.use_linears("exact")
        model.use_linears("int8")
        first = model.transformer_blocks[0].ff.up
        model.use_linears("int8")
    assert model.transformer_blocks[0].ff.up is first
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("products of 2 blocks in int8: 0.00 GB of weights instead of 0.00")
    for other in ("exact", "fp8"):
        with pytest.raises(ValueError, match=f"linears {other}: this teacher's weights have been made int8; load it"):
            model.use_linears(other)


@KINDS
def test_a_card_that_cannot_is_told_beforehand(bits):
    model = made().bfloat16()
    with pytest.raises(KernelUnavailable, match=f"linears {bits} cannot run here: needs CUDA tensors; use exact"):
        model.use_linears(bits)
    assert model.linears == "exact"

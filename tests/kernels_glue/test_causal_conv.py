import pytest
import torch
from lyra_pack.kernels_glue import causal_conv as op
from lyra_pack.kernels_glue.causal_conv import causal_conv_torch


def inputs(length: int, batch=2, channels=5, dtype=torch.float64):
    gen = torch.Generator().manual_seed(length)
    shapes = (batch, length, channels), (channels, 4), (channels,), (batch, 3, channels)
    return [torch.randn(*shape, generator=gen, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_equals_the_sum_written_out(length):
    x, weight, bias, history = inputs(length)
    found = causal_conv_torch(x, weight, bias, history=history)
    for t in range(length):
        total = bias
        for m in range(4):
            past = t - 3 + m
            total = total + weight[:, m] * (x[:, past] if past >= 0 else history[:, past])
        torch.testing.assert_close(found[:, t], total * total.sigmoid())


def test_reverse_equals_flip_run_flip():
    x, weight, bias, history = inputs(20)
    found = causal_conv_torch(x, weight, bias, reverse=True, history=history)
    other = causal_conv_torch(x.flip(1), weight, bias, history=history.flip(1)).flip(1)
    torch.testing.assert_close(found, other)


@pytest.mark.parametrize("reverse", [False, True])
def test_segments_joined_by_their_history_equal_the_whole(reverse):
    x, weight, bias, history = inputs(30)
    whole = causal_conv_torch(x, weight, bias, reverse=reverse, history=history)
    around = torch.cat((x, history) if reverse else (history, x), 1)
    for start, stop in ((0, 1), (1, 3), (3, 19), (19, 30)):
        near = around[:, stop : stop + 3] if reverse else around[:, start : start + 3]
        piece = causal_conv_torch(x[:, start:stop], weight, bias, reverse=reverse, history=near)
        torch.testing.assert_close(piece, whole[:, start:stop], rtol=0, atol=0)


def test_no_history_means_zeros():
    x, weight, bias, history = inputs(6)
    assert torch.equal(
        causal_conv_torch(x, weight, bias), causal_conv_torch(x, weight, bias, history=torch.zeros_like(history))
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients(reverse):
    tensors = [t.requires_grad_() for t in inputs(5, batch=1, channels=2)]

    def conv(x, weight, bias, history):
        return causal_conv_torch(x, weight, bias, reverse=reverse, history=history)

    assert torch.autograd.gradcheck(conv, tensors)


def test_bfloat16_differs_by_one_rounding():
    x, weight, bias, history = inputs(50, channels=16, dtype=torch.bfloat16)
    found = causal_conv_torch(x, weight, bias, history=history)
    truth = causal_conv_torch(x.double(), weight.double(), bias.double(), history=history.double())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), truth, rtol=2**-8, atol=1e-6)


def test_wrong_shapes_are_named():
    x, weight, bias, history = inputs(6)
    with pytest.raises(ValueError, match=r"needs weight \[5, 4\] and bias \[5\], got \(4, 5\)"):
        op(x, weight.T, bias)
    with pytest.raises(ValueError, match=r"expected history \(2, 3, 5\), got \(2, 2, 5\)"):
        op(x, weight, bias, history=history[:, 1:])

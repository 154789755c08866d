import sys
from types import SimpleNamespace

import pytest
import torch
from lyra_pack.kernels_glue import KernelUnavailable
from lyra_pack.kernels_glue import attention as op
from lyra_pack.kernels_glue.attention import (
    LONG,
    SPARSE,
    WHOLE,
    _probe_inputs,
    attention_torch,
    choose_backend,
    load_fa4,
    load_sol,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode


def inputs(length=30, batch=2, heads=3, size=8, dtype=torch.float64):
    gen = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, length, 3, heads, size, generator=gen, dtype=torch.float64).to(dtype)
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)  # views of one projection, as the blocks pass them


def softmax_attention(q, k, v):
    return ((q @ k.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v


def test_equals_the_softmax_written_out():
    torch.testing.assert_close(attention_torch(*inputs()), softmax_attention(*inputs()))


def test_gradients():
    tensors = [t.clone().requires_grad_() for t in inputs(length=4, batch=1, heads=1, size=2)]
    assert torch.autograd.gradcheck(attention_torch, tensors)


def test_bfloat16_differs_by_its_rounding():
    """Probabilities and result are rounded to 8 bits each."""
    q, k, v = inputs(dtype=torch.bfloat16)
    truth = softmax_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(attention_torch(q, k, v).double(), truth, rtol=2**-6, atol=2**-7)


class Recorder(TorchDispatchMode):
    """Names of the operators that ran."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names = [*getattr(self, "names", ()), func.name()]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_cpu_runs_the_kernel_that_works_block_by_block(dtype):
    with Recorder() as ran:
        attention_torch(*inputs(dtype=dtype))
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in ran.names


def test_a_score_matrix_that_does_not_fit_is_refused():
    large = torch.zeros(1, 1, 1, 64).expand(1, 8, 337_920, 64)  # no memory behind it
    with sdpa_kernel(SDPBackend.MATH):  # a host that switched the fused kernels off
        assert choose_backend(large, large, large) == SDPBackend.MATH
        with pytest.raises(KernelUnavailable, match=r"score matrix would take 3403\.1 GiB \(limit 2\); use bfloat16"):
            op(large, large, large)
        torch.testing.assert_close(op(*inputs()), softmax_attention(*inputs()))  # small ones may


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_every_usual_precision_finds_a_fused_kernel():
    q, k, v = (t.cuda() for t in inputs(size=64))
    half = choose_backend(*(t.bfloat16() for t in (q, k, v)))
    hopper = torch.cuda.get_device_capability()[0] == 9
    assert half == (SDPBackend.CUDNN_ATTENTION if hopper else SDPBackend.FLASH_ATTENTION)
    assert choose_backend(*(t.float() for t in (q, k, v))) == SDPBackend.EFFICIENT_ATTENTION
    assert choose_backend(q, k, v) == SDPBackend.MATH
    large = q[:1, :1, :1].expand(1, 8, 337_920, 64)
    with pytest.raises(KernelUnavailable, match="score matrix would take"):
        op(large, large, large)


def test_the_choice_leaves_the_process_as_it_was():
    before = [getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ("flash", "mem_efficient", "math")]
    attention_torch(*inputs())
    after = [getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ("flash", "mem_efficient", "math")]
    assert before == after


@pytest.mark.parametrize("name", ["int8", *SPARSE, "fa4"])
def test_kernels_by_name_say_why_they_cannot_run_and_only_an_exact_one_is_for_auto(name):
    assert op.kernels[name].exact == (name == "fa4")
    with pytest.raises(KernelUnavailable, match=f"backend '{name}' cannot run here: needs"):
        op(*inputs(), backend=name)


@pytest.mark.parametrize(
    ("capability", "queries", "keys", "head", "gains"),
    [
        ((9, 0), LONG, LONG, 128, True),
        ((9, 0), LONG - 1, LONG - 1, 128, False),
        ((9, 0), LONG, 512, 128, False),  # of a prompt
        ((9, 0), LONG, LONG, 64, False),  # of the splat decoder
        ((10, 0), LONG, LONG, 128, False),  # nobody timed it there
        ((8, 9), LONG, LONG, 128, False),
    ],
)
def test_auto_takes_flash_attention_4_where_it_was_seen_to_gain(capability, queries, keys, head, gains, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    with FakeTensorMode(), torch.no_grad():  # no card is needed
        q, k = (torch.empty(1, 2, n, head, dtype=torch.bfloat16, device="cuda") for n in (queries, keys))
        assert op.kernels["fa4"].gains(q, k, k) == gains
        assert op.kernels["fa4"].refuses(q, k, k) is None or capability < (9, 0)


def test_flash_attention_is_given_tokens_before_heads(monkeypatch):
    """By a stand-in for the library, of its documented layout [B, L, heads, d] and result (out, lse)."""

    def flash_attn_func(q, k, v):
        out = attention_torch(*(t.transpose(1, 2) for t in (q, k, v)))
        return out.transpose(1, 2), None

    library = SimpleNamespace(flash_attn_func=flash_attn_func)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(cute=library))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", library)
    q, k, v = inputs()
    torch.testing.assert_close(load_fa4()(q, k, v), softmax_attention(q, k, v))


def test_sinks_are_whole_blocks_that_attend_to_all_and_that_all_attend_to(monkeypatch):
    """By a stand-in for the library, of its documented layout [B, L, heads, d]."""
    seen = []

    def sol_attn(q, k, v, tau, sink_blocks=None, sink_q=None):
        seen.append((tau, sink_blocks, sink_q))
        return attention_torch(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)

    library = SimpleNamespace(sol_attn=sol_attn, sol_attn_is_available=lambda: True)
    monkeypatch.setitem(sys.modules, "comfy_kitchen", library)
    q, k, v = inputs()
    for sinks in (0, 64, 3520, 3521):
        torch.testing.assert_close(load_sol(1.0, whole=True)(q, k, v, sinks=sinks), softmax_attention(q, k, v))
    assert seen == [(1.0, blocks, blocks) for blocks in (None, [0, 1], [0, 55], [0, 56])]
    load_sol(1.5)(q, k, v, sinks=3520)
    assert seen[-1] == (1.5, None, None)
    torch.testing.assert_close(op(q, k, v, sinks=5), softmax_attention(q, k, v))  # the reference leaves none out


def test_sinks_are_tried_out_on_their_own():
    probe, q = op.kernels[WHOLE].probe, torch.zeros(1, 2, 4096, 128)
    assert probe.key((q, q, q), {}) != probe.key((q, q, q), {"sinks": 3520})
    assert probe.inputs(q, q, q)[1] == {} and probe.inputs(q, q, q, sinks=3520)[1] == {"sinks": 128}


def test_a_retired_choice_says_what_to_choose():
    assert "sage" in op.choices and "sage" not in op.backends
    with pytest.raises(KernelUnavailable, match=r"choose int8 \(pip install comfy-kitchen\), or auto"):
        op(*inputs(), backend="sage")


def test_the_probe_of_sparse_attention_has_structure():
    q = torch.zeros(1, 2, 4096, 128)
    tokens = _probe_inputs(q, q, q)[0][0]
    assert tokens.shape == (1, 2, 16 * 128, 128)
    near, far = ((tokens[..., step:, :] - tokens[..., :-step, :]).pow(2).mean() for step in (1, 512))
    assert near < far / 5

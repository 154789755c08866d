"""Kernels are tried out before their first use. Those of these tests run on the CPU, so that every ending is seen."""

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from lyra_pack.kernels_glue import OPS, memory, proof
from lyra_pack.kernels_glue.causal_conv import causal_conv as real_conv
from lyra_pack.kernels_glue.causal_conv import causal_conv_torch
from lyra_pack.kernels_glue.registry import Kernel, KernelUnavailable, Op
from lyra_pack.kernels_glue.ssd_scan import ssd_scan as real_scan

ROOT = Path(__file__).resolve().parents[2]
PROBE = real_conv.kernels["triton"].probe


def shifted(wrong: float = 0.0):
    """The convolution, with one constant that may be wrong."""

    def conv(x, weight, bias, *, history=None, reverse=False):
        return causal_conv_torch(x, weight * (1 + wrong), bias, history=history, reverse=reverse)

    return conv


def op_with(kernel, **fields) -> Op:
    fast = Kernel(name="fast", load=lambda: kernel, refuses=lambda *_, **__: None, probe=PROBE, **fields)
    return Op("causal_conv", causal_conv_torch, (fast,))


@pytest.fixture
def call() -> tuple:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(*shape, generator=generator) for shape in ((2, 40, 48), (48, 4), (48,)))


def test_a_right_kernel_is_used_and_its_proof_remembered(call, own_memory):
    ran = []

    def kernel(*args, **kwargs):
        ran.append(args[0].shape)
        return shifted()(*args, **kwargs)

    op = op_with(kernel)
    op(*call)
    op(*call)
    assert len(ran) == 3  # its proof, and two calls
    assert op.left_out == {}
    again = op_with(kernel)  # as after a restart
    again(*call)
    assert len(ran) == 4
    (record,) = (own_memory / proof.RECORDS).iterdir()
    assert '"right"' in record.read_text()


def test_one_wrong_constant_leaves_a_kernel_out_with_one_line(call, caplog):
    op = op_with(shifted(wrong=0.01))
    with caplog.at_level(logging.WARNING, "lyra"):
        for _ in range(3):
            assert torch.equal(op(*call), causal_conv_torch(*call))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "causal_conv-fast is left out" in line and "result 0 is off by 0.0" in line and proof.PAGE in line
    with pytest.raises(KernelUnavailable, match="'fast' cannot run here: result 0 is off by"):
        op(*call, backend="fast")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lyra"):
        assert torch.equal(op_with(shifted(wrong=0.01))(*call), causal_conv_torch(*call))  # as after a restart
    assert "is left out" in caplog.text


def test_a_wrong_gradient_leaves_a_kernel_out_where_gradients_are_wanted(call):
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    op = op_with(lambda x, *args, **kwargs: causal_conv_torch(Doubled.apply(x), *args, **kwargs))
    assert op.why_not("fast", *call) is None
    call[0].requires_grad_()
    assert "gradient 0 is off" in op.why_not("fast", *call)


def test_an_error_during_the_proof_leaves_a_kernel_out(call):
    def kernel(*args, **kwargs):
        raise RuntimeError("out of resource: shared memory\nRequired: 1")

    op = op_with(kernel)
    assert torch.equal(op(*call), causal_conv_torch(*call))
    assert op.left_out == {"fast": ["RuntimeError: out of resource: shared memory"]}


def test_not_a_number_is_no_pass(call):
    assert "off by nan" in op_with(lambda x, *_, **__: x * float("nan")).why_not("fast", *call)


@pytest.mark.parametrize("ending", [torch.OutOfMemoryError("no room"), KeyboardInterrupt(), SystemExit(1)])
def test_what_is_not_the_kernels_fault_says_nothing_about_it(call, own_memory, ending):
    def kernel(*args, **kwargs):
        raise ending

    op = op_with(kernel)
    with pytest.raises(type(ending)):
        op(*call)
    assert list((own_memory / proof.RECORDS).iterdir()) == [] and op.left_out == {}


def test_a_card_that_no_longer_answers_ends_the_call_and_the_next_start_goes_without(call, monkeypatch):
    def kernel(*args, **kwargs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(proof, "usable", lambda device: False)
    with pytest.raises(RuntimeError, match=r"restart the program: from then on it runs without this kernel"):
        op_with(kernel)(*call)
    assert torch.equal(op_with(kernel)(*call), causal_conv_torch(*call))  # as after a restart


DYING = """
    import importlib.util, os, sys
    spec = importlib.util.spec_from_file_location("lyra_pack", sys.argv[1] + "/__init__.py")
    pack = sys.modules["lyra_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    import torch
    from lyra_pack.kernels_glue.causal_conv import causal_conv, causal_conv_torch
    from lyra_pack.kernels_glue.registry import Kernel, Op
    fast = Kernel(name="fast", load=lambda: lambda *_, **__: os._exit(9), refuses=lambda *_, **__: None,
                  probe=causal_conv.kernels["triton"].probe)
    x, weight, bias = torch.ones(1, 40, 48), torch.ones(48, 4), torch.ones(48)
    print(Op("causal_conv", causal_conv_torch, (fast,))(x, weight, bias).shape)
"""


def test_a_kernel_that_ended_the_process_is_left_out_at_the_next_start(own_memory):
    command = [sys.executable, "-c", textwrap.dedent(DYING), str(ROOT)]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 9 and not first.stdout
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "torch.Size([1, 40, 48])" in second.stdout
    assert "is left out on this machine" in second.stderr and "its trial ended the process" in second.stderr


@pytest.mark.parametrize(("wrong", "verdict"), [(0.0, None), (0.01, "result 0 is off")])
def test_a_mark_of_a_process_that_still_runs_is_no_verdict(call, monkeypatch, wrong, verdict):
    """Processes of one training prove a kernel side by side, and none goes without it for the others' sake."""
    key = PROBE.key(call, {})
    name = repr(("causal_conv-fast", *PROBE.identity(torch.device("cpu")), *key[1:], "cpu"))
    memory.remember(proof.RECORDS, name, {"state": "tried", "process": os.getppid()})
    monkeypatch.setattr(proof, "running", lambda process: False)
    assert op_with(shifted(wrong)).why_not("fast", *call) == "its trial ended the process"
    monkeypatch.setattr(proof, "running", lambda process: process == os.getppid())
    found = op_with(shifted(wrong)).why_not("fast", *call)
    assert found is None if verdict is None else found.startswith(verdict)
    assert memory.recall(proof.RECORDS, name)["state"] == ("left out" if verdict else "right")


def test_a_changed_source_is_tried_anew(call, monkeypatch):
    assert op_with(shifted(0.01)).why_not("fast", *call)
    monkeypatch.setattr(proof, "installed", lambda name: "9.9")
    assert op_with(shifted()).why_not("fast", *call) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :32],  # a length that is a multiple of 16
        lambda x: x.half(),
        lambda x: torch.cat((x, x[..., :2]), 2)[..., :48],  # rows of an odd width
        lambda x: torch.cat((x, x), 2)[..., 1:49],  # another alignment
        lambda x: x.requires_grad_(),
    ],
)
def test_what_selects_other_code_is_proven_by_itself(call, change):
    x, *rest = call
    keys = {PROBE.key((given, *rest), {}) for given in (x.clone(), change(x.clone()))}
    assert len(keys) == 2
    assert PROBE.key((x, *rest), {"reverse": True}) not in keys


def test_generated_inputs_have_the_layout_of_the_call_and_are_the_same_each_time():
    wide = torch.randn(3, 500, 96, dtype=torch.bfloat16)[..., 8:56]
    made = proof.like(wide, 0, (2, 20, 48))
    assert made.shape == (2, 20, 48) and made.stride()[1:] == wide.stride()[1:] and made.dtype == wide.dtype
    assert proof.layout(made) == proof.layout(wide)
    assert torch.equal(made, proof.like(wide, 0, (2, 20, 48))) and not torch.equal(
        made, proof.like(wide, 1, (2, 20, 48))
    )
    assert made.untyped_storage().nbytes() < 10_000
    again = torch.randn(1, 1, 3).expand(4, 5, 3)
    assert proof.like(again, 0, (2, 5, 3)).stride() == (0, 0, 1)


@pytest.mark.parametrize("shape", [(48, 1), (7, 3), (2, 37, 5), (3, 2, 96)])
def test_generated_inputs_lie_without_gaps_where_those_of_the_call_do(shape):
    given = torch.randn(shape)
    assert proof.like(given, 0, shape).is_contiguous()
    assert proof.like(given.mT, 0, given.mT.shape).mT.is_contiguous()
    column = torch.randn(48, 17)[:, :1]
    assert proof.layout(proof.like(column, 0, (48, 1))) == proof.layout(column)


@pytest.mark.parametrize(("length", "block"), [(5, 128), (128, 128), (700, 128), (337920, 128), (2048, 128), (4, 64)])
def test_a_shortened_length_ends_as_the_whole_one_does(length, block):
    short = proof.shortened(length, block, 3)
    assert short <= min(length, 16 * block) and (length - short) % block == 0
    assert proof.size_class(short) == proof.size_class(length)
    assert proof.size_class(-(-short // block)) == proof.size_class(-(-length // block))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_probe_of_the_scan_distinguishes_a_state_that_is_not_carried(reverse):
    """The generated inputs must show a fault between chunks, not only one within them."""
    probe = real_scan.kernels["triton"].probe
    mixed = torch.randn(1, 700, 3 * 32 + 2 * 64)
    x, B, C = mixed[..., :96].unflatten(-1, (3, 32)), mixed[..., 96:160], mixed[..., 160:]
    args = x, torch.rand(1, 700, 3), -torch.ones(3), B, C, torch.ones(3)
    made, options = probe.inputs(*args, reverse=reverse)
    assert made[0].shape[1] == 3 * 128 - (-700 % 128)
    truth, _ = real_scan.reference(*made, **options)
    cut = [real_scan.reference(*(t[:, part] if t.ndim > 1 else t for t in made), **options)[0]
           for part in (slice(0, 128), slice(128, None))]  # fmt: skip
    assert proof.deviation(torch.cat(cut, 1), truth) > 10 * probe.limits[torch.bfloat16]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_kernel_has_an_identity_of_files_that_are_there(op):
    identities = [kernel.probe.identity(torch.device("cpu")) for kernel in op.kernels.values()]
    assert identities and all(identity[0] for identity in identities)

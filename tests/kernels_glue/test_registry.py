import subprocess

import pytest
import torch
from lyra_pack.kernels_glue.proof import Probe
from lyra_pack.kernels_glue.registry import Kernel, KernelUnavailable, Op, on_its_card, plain
from lyra_pack.kernels_glue.tokens import residual_norm
from torch._subclasses.fake_tensor import FakeTensorMode

ANY = Probe(sizes=lambda *_: (), inputs=lambda x: ((torch.ones(3),), {}), limits={torch.float32: 0.5})


def kernel(name: str, load, refuses=lambda x: None, **fields) -> Kernel:
    return Kernel(name=name, load=load, refuses=refuses, probe=ANY, **fields)


def absent():
    raise ImportError("no module named fast")


def small(x):
    return 2.25 * x  # as exact as its probe demands, and different enough to be told from the reference


def of(value: float) -> torch.Tensor:
    return torch.full((2,), value)


@pytest.fixture
def op() -> Op:
    kernels = (
        kernel("missing", absent),
        kernel("small", lambda: small, refuses=lambda x: "too big" if x.max() > 9 else None),
    )
    return Op("double", lambda x: 2 * x, kernels)


def test_auto_takes_the_first_kernel_that_loads_and_accepts(op):
    assert op(of(4))[0] == 9
    assert op(of(10))[0] == 20


def test_a_named_kernel_runs_or_says_why(op):
    assert op(of(4), backend="small")[0] == 9
    assert op(of(4), backend="torch")[0] == 8
    with pytest.raises(KernelUnavailable, match=r"'small' cannot run here: too big; usable now: auto, torch"):
        op(of(10), backend="small")
    with pytest.raises(KernelUnavailable, match=r"not installed \(no module named fast\); usable .* torch, small"):
        op(of(4), backend="missing")
    with pytest.raises(KernelUnavailable, match="unknown backend 'quick'; use one of auto, torch, missing, small"):
        op(of(4), backend="quick")


def test_a_kernel_that_changes_the_result_is_taken_by_name_only():
    either = Op("double", lambda x: 2 * x, (kernel("rough", lambda: small, exact=False),))
    assert either(of(4))[0] == 8
    assert either(of(4), backend="rough")[0] == 9


def test_auto_leaves_out_an_exact_kernel_where_it_does_not_gain():
    either = Op("double", lambda x: 2 * x, (kernel("slow", lambda: small, gains=lambda x: x.max() > 3),))
    assert either(of(4))[0] == 9
    assert either(of(2))[0] == 4
    assert either(of(2), backend="slow")[0] == 4.5


def test_a_crash_of_a_proven_kernel_propagates():
    def crashing(x):
        return 2 * x if x[0] == 1 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        Op("double", lambda x: 2 * x, (kernel("bad", lambda: crashing),))(of(4))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("Error building extension 'gsplat_cuda': [1/9] nvcc\nfoo.cu(3): error: no"), "Error building"),
        (
            subprocess.CalledProcessError(1, ["ninja"], stderr="ninja: x\nfatal error C1189: MSVC\n"),
            "CalledProcessError",
        ),
        (OSError("CUDA_HOME environment variable is not set"), "CUDA_HOME"),
        (subprocess.CalledProcessError(2, "cl", output="cl.exe\nhost_config.h(1): fatal error C1189"), "C1189"),
    ],
)
def test_a_build_that_fails_counts_as_absent_once(error, told):
    tries = []

    def load():
        tries.append(1)
        raise error

    op = Op("double", lambda x: 2 * x, (kernel("built", load),))
    assert op(of(4))[0] == 8 and op(of(4))[0] == 8 and len(tries) == 1
    assert op.absent("built").startswith("could not be built or loaded (") and "\n" not in op.absent("built")
    if told != "CalledProcessError":
        assert told in op.absent("built")
    else:
        assert "C1189" in op.absent("built")


def test_plain_leaves_kernels_out_and_ends(op):
    with plain():
        assert op(of(4))[0] == 8
        assert op(of(4), backend="small")[0] == 9  # by name it still runs
    assert op(of(4))[0] == 9


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="pretends to have two cards, which one alone denies")
def test_a_kernel_runs_on_the_card_of_its_tensors(monkeypatch):
    current = [0]

    class Device:
        def __init__(self, card):
            self.card = card.index

        def __enter__(self):
            current.append(self.card)

        def __exit__(self, *_):
            current.pop()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", Device)
    run = on_its_card(lambda x, *, y: (current[-1], len(current)))
    with FakeTensorMode():  # no card is needed
        zero, one = (torch.empty(2, device=f"cuda:{number}") for number in range(2))
        assert run(3, y=one) == (1, 2) and run(zero, y=3) == (0, 1)
    assert run(of(1), y=None) == (0, 1) and current == [0]


@pytest.mark.gpu
def test_every_card_of_a_machine_gets_its_own_launch():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    x, rows = torch.randn(1, 64, 256).cuda(1).bfloat16(), torch.randn(3, 1, 1, 256).cuda(1).bfloat16()
    found, truth = (residual_norm(x, rows[0], rows[1], add=x, gate=rows[2], backend=name) for name in ("auto", "torch"))
    assert all(a.device == x.device and torch.allclose(a, b, atol=0.1) for a, b in zip(found, truth, strict=True))

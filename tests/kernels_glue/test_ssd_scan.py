import sys

import pytest
import torch
from lyra_pack.kernels_glue import KernelUnavailable
from lyra_pack.kernels_glue import ssd_scan as op
from lyra_pack.kernels_glue.causal_conv import causal_conv_torch
from lyra_pack.kernels_glue.ssd_scan import ssd_scan_torch
from torch.nn.functional import rms_norm, silu, softplus


def inputs(seed: int, length: int, batch=2, heads=3, channels=4, state=5, dtype=torch.float64):
    gen = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=gen, dtype=torch.float64).to(dtype)

    return dict(
        x=normal(batch, length, heads, channels),
        dt=softplus(normal(batch, length, heads).to(torch.promote_types(dtype, torch.float32)) - 1),
        A=-normal(heads).exp(),
        B=normal(batch, length, state),
        C=normal(batch, length, state),
        D=normal(heads),
    )


def step_by_step(x, dt, A, B, C, D, state=None, reverse=False):
    """The recurrence as it is written, one token at a time."""
    state = x.new_zeros(*x.shape[:1], *x.shape[2:], B.shape[-1]) if state is None else state
    y = torch.empty_like(x)
    order = range(x.shape[1])
    for t in reversed(order) if reverse else order:
        kept = (A * dt[:, t]).exp()[:, :, None, None] * state
        state = kept + torch.einsum("bh,bhp,bs->bhps", dt[:, t], x[:, t], B[:, t])
        y[:, t] = torch.einsum("bhps,bs->bhp", state, C[:, t]) + D[:, None] * x[:, t]
    return y, state


@pytest.fixture(params=[1, 5, 2**20], ids=["a chunk a group", "two chunks a group", "one group"])
def groups(request, monkeypatch):
    """Bound the decay matrices to a few chunks of 8 tokens (2 x 3 heads of 8 x 8 numbers are 3 KiB)."""
    monkeypatch.setattr(sys.modules[ssd_scan_torch.__module__], "DECAY_BYTES", request.param * 3 * 2**10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 40, 45])
def test_chunks_equal_the_recurrence_step_by_step(length, reverse, groups):
    args = inputs(length, length)
    state = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = ssd_scan_torch(**args, initial_state=state, reverse=reverse, chunk=8)
    for mine, truth in zip(found, step_by_step(**args, state=state, reverse=reverse), strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-12, atol=1e-12)


def test_no_tokens_leave_the_state_as_it_was():
    y, state = ssd_scan_torch(**inputs(0, 0), initial_state=torch.ones(2, 3, 4, 5, dtype=torch.float64))
    assert y.shape == (2, 0, 3, 4) and bool((state == 1).all())


def test_reverse_equals_flip_run_flip():
    args = inputs(3, 50)
    flipped = {name: t.flip(1) if t.ndim > 1 else t for name, t in args.items()}
    y, state = ssd_scan_torch(**args, reverse=True, chunk=16)
    other, last = ssd_scan_torch(**flipped, chunk=16)
    torch.testing.assert_close(y, other.flip(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_segments_of_random_sizes_equal_the_whole(seed, reverse):
    args = inputs(seed, 100, dtype=torch.float32)
    whole, last = ssd_scan_torch(**args, reverse=reverse, chunk=16)
    cuts = torch.randint(0, 101, (5,), generator=torch.Generator().manual_seed(seed)).sort().values.tolist()
    spans, state, parts = list(zip([0, *cuts], [*cuts, 100], strict=True)), None, {}
    for span in reversed(spans) if reverse else spans:
        piece = {name: t[:, slice(*span)] if t.ndim > 1 else t for name, t in args.items()}
        parts[span], state = ssd_scan_torch(**piece, initial_state=state, reverse=reverse, chunk=16)
    joined = torch.cat([parts[span] for span in sorted(parts)], 1)
    torch.testing.assert_close(joined, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.slow
def test_gradients(recomputed, reverse, monkeypatch):
    scanned = sys.modules[ssd_scan_torch.__module__]
    runs = []
    monkeypatch.setattr(scanned, "_recomputed", lambda *a, f=scanned._recomputed: runs.append(1) or f(*a))
    if recomputed:  # a chunk a group
        monkeypatch.setattr(scanned, "DECAY_BYTES", 1)
    args = [t.requires_grad_() for t in inputs(5, 10, batch=1, heads=2, channels=2, state=2).values()]
    state = torch.ones(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)

    def scan(*tensors):
        return ssd_scan_torch(*tensors[:-1], initial_state=tensors[-1], reverse=reverse, chunk=4)

    assert torch.autograd.gradcheck(scan, (*args, state))
    assert bool(runs) == recomputed


def test_strong_decay_neither_overflows_nor_makes_nan():
    args = inputs(7, 64, dtype=torch.float32)
    args["dt"] = args["dt"] * 100  # a chunk decays by exp(-3000) or so
    args["x"].requires_grad_()
    y, _ = ssd_scan_torch(**args, chunk=64)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(args["x"].grad).all()


def test_bfloat16_differs_by_its_rounding_only():
    """Inputs are rounded beforehand, all sums are float32, so one rounding of y (2^-9) remains."""
    args = inputs(9, 300, heads=4, channels=8, state=16, dtype=torch.bfloat16)
    y, state = ssd_scan_torch(**args, chunk=64)
    truth, last = step_by_step(**{name: t.double() for name, t in args.items()})
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    torch.testing.assert_close(y.double(), truth, rtol=2**-8, atol=1e-4)
    torch.testing.assert_close(state.double(), last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["triton", "mamba-ssm"])
def test_kernels_asked_for_by_name_say_what_they_need(backend):
    with pytest.raises(KernelUnavailable, match=f"backend '{backend}' cannot run here: needs CUDA tensors"):
        op(**inputs(0, 8), backend=backend)


def test_wrong_shapes_are_named():
    args = inputs(0, 8)
    with pytest.raises(ValueError, match=r"x \(2, 8, 3, 4\) needs dt \[B, L, H\].*got \(2, 8, 3\), \(2, 7, 5\)"):
        op(**{**args, "B": args["B"][:, 1:]})


@pytest.mark.golden("decoder/mamba2_block")
def test_scan_of_the_golden_block(golden):
    """Gated and normed output of both scans, from the block's normed input on."""
    eps, normed = golden.meta["eps"], golden["normed"]
    for k, reverse in enumerate((False, True)):
        scan = f"w.mamba.mamba_scans.{k}."
        dt_bias, A_log, D = (golden[scan + name] for name in ("dt_bias", "A_log", "D"))
        weight, bias, gain = (golden[scan + name] for name in ("conv1d.weight", "conv1d.bias", "norm.weight"))
        inner, heads, states = len(gain), len(D), (len(bias) - len(gain)) // 2
        z, xbc, dt = (normed @ golden["w.mamba.in_proj.weight"].T).split([inner, len(bias), heads], -1)
        x, B, C = causal_conv_torch(xbc, weight[:, 0], bias, reverse=reverse).split([inner, states, states], -1)
        dt, A = softplus(dt + dt_bias), -A_log.exp()
        chunk = golden.meta["chunk_size"]
        y, _ = ssd_scan_torch(x.unflatten(-1, (heads, -1)), dt, A, B, C, D, reverse=reverse, chunk=chunk)
        out = rms_norm(y.flatten(2) * silu(z), (inner,), gain, eps)
        # the golden keeps the second scan in reversed token order
        torch.testing.assert_close(out.flip(1) if reverse else out, golden[f"scan{k}_raw"], rtol=0, atol=1e-4)

import pytest
from lyra_pack.kernels_glue.registry import Kernel, KernelUnavailable, Op


def absent():
    raise ImportError("no module named fast")


def small(x):
    return "small", x + x


def op() -> Op:
    return Op(
        "double",
        lambda x: ("torch", 2 * x),
        (
            Kernel(name="missing", load=absent, refuses=lambda x: None),
            Kernel(name="small", load=lambda: small, refuses=lambda x: "too big" if x > 9 else None),
        ),
    )


def test_auto_takes_the_first_kernel_that_loads_and_accepts():
    assert op()(3) == ("small", 6)
    assert op()(10) == ("torch", 20)


def test_a_named_kernel_runs_or_says_why():
    assert op()(3, backend="small") == ("small", 6)
    assert op()(3, backend="torch") == ("torch", 6)
    with pytest.raises(KernelUnavailable, match=r"'small' cannot run here: too big; usable now: auto, torch"):
        op()(10, backend="small")
    with pytest.raises(KernelUnavailable, match=r"not installed \(no module named fast\); usable .* torch, small"):
        op()(3, backend="missing")
    with pytest.raises(KernelUnavailable, match="unknown backend 'quick'; use one of auto, torch, missing, small"):
        op()(3, backend="quick")


def test_a_kernel_that_changes_the_result_is_taken_by_name_only():
    rough = Kernel(name="rough", load=lambda: lambda x: ("rough", 2 * x), refuses=lambda x: None, exact=False)
    either = Op("double", lambda x: ("torch", 2 * x), (rough,))
    assert either(3) == ("torch", 6)
    assert either(3, backend="rough") == ("rough", 6)


def test_a_crash_inside_a_kernel_propagates():
    crashing = Op("crash", lambda: "torch", (Kernel(name="bad", load=lambda: lambda: 1 / 0, refuses=lambda: None),))
    with pytest.raises(ZeroDivisionError):
        crashing()

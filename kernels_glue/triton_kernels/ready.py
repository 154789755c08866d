"""Whether Triton kernels of our own can run: on this machine, and for a call."""

import torch
from torch import Tensor


def require_triton() -> None:
    """Raise ImportError unless Triton is installed and can compile; it needs a C compiler for its first stub."""
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except Exception as error:  # whatever the compiler, the loader or the driver raises: it cannot run here
        raise ImportError(f"triton is installed but cannot compile: {error}") from error


def no_card_for_triton(*tensors: Tensor) -> str | None:
    """Why tensors lie where our kernels do not run, or None if they can be had."""
    if not all(t.is_cuda for t in tensors):
        return "needs CUDA tensors"
    if torch.version.hip is None and torch.cuda.get_device_capability(tensors[0].device) < (8, 0):
        return "needs an NVIDIA GPU of the Ampere generation or later"
    return None


def cannot_run_triton(*tensors: Tensor | None, **options: Tensor | bool | None) -> str | None:
    """Why these tensors cannot go through a kernel that has no backward pass, or None if they can."""
    given = [t for t in (*tensors, *options.values()) if isinstance(t, Tensor)]
    reason = no_card_for_triton(*given)
    if reason is None and torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return "has no backward pass"
    return reason

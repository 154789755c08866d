"""A kernel proves itself before its first use: on generated inputs of the call's own kind, against the reference.

Compilers and drivers have faults that depend on sizes and on the card: a Triton kernel that is right at one head size
reads beyond its shared memory at another (triton-lang/triton issues 10486 and 11366). So each kind of call is tried
once a machine, and the outcome is remembered. A mark written before the trial tells the next start that it ended the
process.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import memory

log = logging.getLogger("lyra")

RECORDS = "kernel-proofs"  # what memory files them under
SEED = 0
PAGE = "https://github.com/lyra-splat/ComfyUI-Lyra/issues"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How a kernel is tried out: what distinguishes calls, inputs of a call's kind, and how exact it must be."""

    sizes: Callable[..., tuple]  # a call's arguments -> every number that selects code, besides layout and dtype
    inputs: Callable[..., tuple[tuple, dict]]  # a call's arguments -> generated ones of the same kind, but short
    limits: Mapping[torch.dtype, float]  # dtype of the first argument -> largest |found - truth| / |truth|
    files: tuple[str, ...] = ()  # of this folder, that hold the kernel: their contents are part of the key
    library: str = ""  # the distribution that holds it: its version is part of the key

    def key(self, args: tuple, kwargs: dict) -> tuple:
        """What makes two calls the same kind: sizes, dtypes, layout, and whether gradients are wanted."""
        given = tensors(args, kwargs)
        device = given[0].device
        gradients = torch.is_grad_enabled() and any(t.requires_grad for t in given)
        return str(device), gradients, *self.sizes(*args, **kwargs), *(layout(t) for t in given)

    def identity(self, device: torch.device) -> tuple:
        """The kernel's source and everything that compiles and runs it."""
        files = (Path(__file__).name, *self.files)  # a trial is as good as what makes its inputs
        digest = hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in files))
        libraries = tuple(f"{name} {installed(name)}" for name in ("torch", "triton", self.library) if name)
        return digest.hexdigest()[:16], *libraries, str(torch.version.cuda), *card(device)


def tensors(args: tuple, kwargs: dict) -> list[Tensor]:
    """All tensors of a call, in order."""
    return [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]


def layout(t: Tensor) -> tuple:
    """What a compiler may specialise on: dtype, which strides are 1 or multiples of 16 or large, and the alignment."""
    strides = tuple(size_class(s) for s in t.stride())
    return str(t.dtype), strides, t.data_ptr() % 16


def size_class(number: int) -> str:
    """How Triton sees an integer argument: it compiles anew for 1, multiples of 16 and what needs 64 bits."""
    return ("1" if number == 1 else "16" if number % 16 == 0 else "") + ("L" if number >= 2**31 else "")


@cache
def installed(distribution: str) -> str:
    """The version of a distribution, or an empty word."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def card(device: torch.device) -> tuple:
    """Name, capability and driver of the device that a tensor lies on."""
    if device.type != "cuda":
        return (device.type,)
    told = Path("/proc/driver/nvidia/version")  # on Linux; elsewhere the driver's CUDA version stands for it
    version_of: Any = torch._C  # its stubs lack this function
    driver = told.read_text().split("\n")[0] if told.is_file() else str(version_of._cuda_getDriverVersion())
    return torch.cuda.get_device_name(device), *torch.cuda.get_device_capability(device), driver


def prove(
    label: str, probe: Probe, key: tuple, kernel: Callable, reference: Callable, args: tuple, kwargs: dict
) -> str | None:
    """None if the kernel is right for calls of this kind, else one line on what was seen.

    Raises RuntimeError when the trial broke the process's use of the GPU; the next start leaves the kernel out.
    """
    device = tensors(args, kwargs)[0].device
    name = repr((label, *probe.identity(device), *key[1:], device.type))
    known = memory.recall(RECORDS, name)
    beside = bool(known) and known["state"] == "tried" and running(known.get("process", 0))
    if known and known["state"] == "right":
        return None
    if known and not beside:
        seen = known.get("seen", "its trial ended the process")
        tell(label, key, seen)
        return seen
    if not beside:  # else another process tries it out at this moment, and has left its mark
        memory.remember(RECORDS, name, {"state": "tried", "process": os.getpid()})
    try:
        seen = trial(probe, kernel, reference, args, kwargs)
    except torch.OutOfMemoryError:
        memory.forget(RECORDS, name)  # says nothing about the kernel
        raise
    except (KeyboardInterrupt, SystemExit):  # a person was impatient: no word about the kernel
        memory.forget(RECORDS, name)
        raise
    except Exception as error:  # whatever a compiler, a launch or the card says
        seen = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no text'}"
        memory.remember(RECORDS, name, {"state": "left out", "seen": seen})
        tell(label, key, seen)
        if not usable(device):
            raise RuntimeError(
                f"the kernel {label} broke the GPU's state while it was tried out ({seen}); restart the program: "
                "from then on it runs without this kernel"
            ) from error
        return seen
    memory.remember(RECORDS, name, {"state": "left out", "seen": seen} if seen else {"state": "right"})
    if seen:
        tell(label, key, seen)
    return seen


def trial(probe: Probe, kernel: Callable, reference: Callable, args: tuple, kwargs: dict) -> str | None:
    """What is wrong with a kernel's results and gradients on generated inputs, or None."""
    made, options = probe.inputs(*args, **kwargs)
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in tensors(args, kwargs))
    limit = probe.limits[made[0].dtype]
    found, truth = (results(function, made, options, gradients) for function in (kernel, reference))
    for (name, mine), (_, right) in zip(found, truth, strict=True):
        error = deviation(mine, right)
        if not error <= limit:  # NaN is no pass
            return f"{name} is off by {error:.2g} of its size, where rounding explains {limit:.2g}"
    return None


def results(function: Callable, args: tuple, kwargs: dict, gradients: bool) -> list[tuple[str, Tensor]]:
    """Outputs of a call by name, and if asked for the gradients of a fixed weighted sum of them."""
    if gradients:
        args = tuple(leaf(value) for value in args)
        kwargs = {name: leaf(value) for name, value in kwargs.items()}
    out = function(*args, **kwargs)
    out = out if isinstance(out, tuple) else (out,)
    named = [(f"result {i}", o.detach()) for i, o in enumerate(out)]
    if gradients:
        weights = (torch.linspace(-1, 1, o.numel(), device=o.device).view(o.shape) for o in out)
        parts = [(o.float() * w).sum() for o, w in zip(out, weights, strict=True) if o.requires_grad]
        torch.stack(parts).sum().backward()
        named += [(f"gradient {i}", t.grad) for i, t in enumerate(tensors(args, kwargs)) if t.grad is not None]
    if out[0].is_cuda:
        torch.cuda.synchronize(out[0].device)  # a fault shows here, not in a later call
    return named


def leaf(value: Any) -> Any:
    """A copy that records its gradient, if it is a tensor of floats."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    return value


def deviation(found: Tensor, truth: Tensor) -> float:
    """|found - truth| / |truth|, in float64."""
    found, truth = found.double(), truth.double()
    return float((found - truth).norm() / truth.norm().clamp_min(1e-30))


def usable(device: torch.device) -> bool:
    """Whether the device still answers; after an illegal access it never does again in this process."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
        return float(torch.ones(1, device=device).sum()) == 1
    except RuntimeError:
        return False


def running(process: int) -> bool:
    """Whether another process of that number runs; where that cannot be asked safely, no."""
    return process != os.getpid() and Path("/proc", str(process)).is_dir()


def tell(label: str, key: tuple, seen: str) -> None:
    """One line on a kernel that is left out."""
    log.warning(
        "kernel %s is left out on this machine, plain torch stands in: %s. Please report it at %s with %s; "
        "deleting %s tries it anew",
        label, seen, PAGE, key, memory.cache_folder() / RECORDS,
    )  # fmt: skip


def like(t: Tensor, seed: int, shape: tuple[int, ...], draw: Callable[..., Tensor] = torch.randn) -> Tensor:
    """Generated values [*shape] with a tensor's dtype, device, inner strides and alignment.

    ``draw(*shape, generator=)`` makes them in float32. The outermost stride becomes the smallest of the same class
    (``size_class``), so that little memory is taken: what lies without gaps still does, a column of scales [N, 1] too.
    Axes that repeat one value (stride 0) still do.
    """
    repeated = [s == 0 and n > 1 for s, n in zip(t.stride(), t.shape, strict=True)]
    if any(repeated):
        index = tuple(slice(0, 1) if again else slice(None) for again in repeated)
        single = tuple(1 if again else n for n, again in zip(shape, repeated, strict=True))
        return like(t[index], seed, single, draw).expand(shape)
    strides = list(t.stride())
    if t.ndim > 1 and shape[0] > 1 and strides[0] != 1:
        span = max(2, 1 + sum((n - 1) * s for n, s in zip(shape[1:], strides[1:], strict=True)))  # 1 is its own class
        strides[0] = span + (strides[0] - span) % 16
    size = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    step = t.element_size()
    room = torch.zeros(size + 32 // step, dtype=t.dtype, device=t.device)
    start = (-room.data_ptr() % 16 + t.data_ptr() % 16) // step
    values = draw(*shape, generator=torch.Generator().manual_seed(SEED + seed))
    return room[start:].as_strided(shape, strides).copy_(values.to(t.dtype))


def shortened(length: int, block: int, most: int) -> int:
    """A length of at most about ``most`` blocks that ends as the given one does, and is of the same ``size_class``."""
    blocks = -(-length // block)
    few = blocks if blocks <= most else 16 if blocks % 16 == 0 else most
    return few * block - (-length % block)

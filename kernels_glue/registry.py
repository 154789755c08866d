"""An operation is its torch reference plus kernels that may stand in for it, each once it has proven itself."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch

from . import proof

log = logging.getLogger("lyra")


_plain = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Inside, ``auto`` is the reference of every operation: to compare, and to time what kernels save."""
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)


class KernelUnavailable(RuntimeError):
    """A kernel asked for by name cannot run here; the message says why and what can."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A faster implementation: how to import it, which calls it cannot serve, and how it is tried out."""

    name: str
    load: Callable[[], Callable]  # imports the library, which may build it; an error means absent
    refuses: Callable[..., str | None]  # the call's arguments -> why it cannot serve them, or None
    probe: proof.Probe
    exact: bool = True  # False: it differs beyond rounding: only ever taken by name
    gains: Callable[..., bool] = lambda *args, **kwargs: True  # the call's arguments -> whether auto wants it for them


class Op:
    """A callable operation: ``op(..., backend="auto" | "torch" | kernel name)``.

    ``auto`` takes the first exact kernel that gains by a call, loads, accepts the arguments and has proven itself for
    such a call (``proof``), else the reference. A kernel asked for by name runs or raises KernelUnavailable. A proven
    kernel that crashes while running is a bug and propagates.
    """

    def __init__(
        self, name: str, reference: Callable, kernels: tuple[Kernel, ...] = (), retired: dict[str, str] | None = None
    ):
        self.name, self.reference, self.kernels = name, reference, {kernel.name: kernel for kernel in kernels}
        self.retired = retired or {}  # names that saved choices may hold -> what to choose now
        self._loaded: dict[str, Any] = {}  # name -> the callable, or the reason it is absent
        self._proofs: dict[
            tuple, str | None
        ] = {}  # (name, key of a call) -> why it is left out, or None if it is right

    @property
    def backends(self) -> tuple[str, ...]:
        """Valid values of ``backend``."""
        return "auto", "torch", *self.kernels

    @property
    def choices(self) -> tuple[str, ...]:
        """What a saved choice may be: ``backends``, and names that only say what to choose instead."""
        return *self.backends, *self.retired

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Kernel -> what was seen where its proofs of this process failed."""
        failed = [(key[0], reason) for key, reason in self._proofs.items() if reason]
        return {name: [reason for kernel, reason in failed if kernel == name] for name, _ in failed}

    def absent(self, name: str) -> str | None:
        """Why the named kernel cannot be loaded on this machine, or None if it can."""
        if name not in self._loaded:
            try:
                self._loaded[name] = on_its_card(self.kernels[name].load())
            except Exception as error:  # not installed, or whatever a compiler, a loader or a driver raises
                self._loaded[name] = reason_of(error)
                log.info("%s: kernel %s %s", self.name, name, self._loaded[name])
        loaded = self._loaded[name]
        return loaded if isinstance(loaded, str) else None

    def why_not(self, name: str, *args: Any, **kwargs: Any) -> str | None:
        """Why the named kernel cannot serve this call, or None if it can; the first call of a kind tries it out."""
        kernel = self.kernels[name]
        return kernel.refuses(*args, **kwargs) or self.absent(name) or self._unproven(kernel, args, kwargs)

    def _unproven(self, kernel: Kernel, args: tuple, kwargs: dict) -> str | None:
        key = kernel.name, kernel.probe.key(args, kwargs)
        if key not in self._proofs:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                return "not proven yet, which cannot be done while a CUDA graph is captured"
            label = f"{self.name}-{kernel.name}"
            fast = self._loaded[kernel.name]
            self._proofs[key] = proof.prove(label, kernel.probe, key[1], fast, self.reference, args, kwargs)
        return self._proofs[key]

    def __call__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> Any:
        """Run the operation."""
        if backend in self.retired:
            raise KernelUnavailable(f"{self.name}: {self.retired[backend]}")
        if backend == "auto" and (torch.compiler.is_compiling() or _plain.get()):  # a compiler fuses by itself
            return self.reference(*args, **kwargs)
        if backend not in self.backends:
            raise KernelUnavailable(f"{self.name}: unknown backend '{backend}'; use one of {', '.join(self.backends)}")
        exact = (name for name, kernel in self.kernels.items() if kernel.exact and kernel.gains(*args, **kwargs))
        for name in exact if backend == "auto" else (backend,):
            if name == "torch":
                break
            reason = self.why_not(name, *args, **kwargs)
            if reason is None:
                return self._loaded[name](*args, **kwargs)
            if backend != "auto":
                usable = [n for n in self.kernels if n != name and self.why_not(n, *args, **kwargs) is None]
                raise KernelUnavailable(
                    f"{self.name}: backend '{name}' cannot run here: {reason}; usable now: "
                    f"{', '.join(['auto', 'torch', *usable])}"
                )
        return self.reference(*args, **kwargs)


def on_its_card(function: Callable) -> Callable:
    """The same function, with the card of its tensors as the current one, on which Triton and others launch."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        card = next((t.device for t in proof.tensors(args, kwargs) if t.is_cuda), None)
        if card is None or card.index == torch.cuda.current_device():
            return function(*args, **kwargs)
        with torch.cuda.device(card):
            return function(*args, **kwargs)

    return run


def reason_of(error: Exception) -> str:
    """One line on why a kernel is absent: that it is not installed, or the first thing its build complained of."""
    if isinstance(error, ImportError):
        return f"not installed ({error})"
    text = "\n".join(str(part) for part in (error, getattr(error, "stderr", ""), getattr(error, "output", "")) if part)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    told = next((line for line in lines if "error" in line.lower()), lines[0])
    return f"could not be built or loaded ({told[:300]})"

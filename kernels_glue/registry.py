"""An operation is its torch reference plus kernels that may stand in for it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("lyra")


class KernelUnavailable(RuntimeError):
    """A kernel asked for by name cannot run here; the message says why and what can."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A faster implementation: how to import it, and which calls it cannot serve."""

    name: str
    load: Callable[[], Callable]  # imports the library; an ImportError means absent
    refuses: Callable[..., str | None]  # the call's arguments -> why it cannot serve them, or None
    exact: bool = True  # False: the result differs beyond rounding, so it is only ever taken by name


class Op:
    """A callable operation: ``op(..., backend="auto" | "torch" | kernel name)``.

    ``auto`` takes the first exact kernel that loads and accepts the arguments, else the reference. A kernel asked for
    by name runs or raises KernelUnavailable. A kernel that crashes while running is a bug and propagates.
    """

    def __init__(self, name: str, reference: Callable, kernels: tuple[Kernel, ...] = ()):
        self.name, self.reference, self.kernels = name, reference, {kernel.name: kernel for kernel in kernels}
        self._loaded: dict[str, Callable | str] = {}  # name -> the callable, or the reason it is absent

    @property
    def backends(self) -> tuple[str, ...]:
        """Valid values of ``backend``."""
        return "auto", "torch", *self.kernels

    def absent(self, name: str) -> str | None:
        """Why the named kernel cannot be loaded on this machine, or None if it can."""
        if name not in self._loaded:
            try:
                self._loaded[name] = self.kernels[name].load()
            except ImportError as error:
                self._loaded[name] = f"not installed ({error})"
                log.info("%s: kernel %s %s", self.name, name, self._loaded[name])
        loaded = self._loaded[name]
        return loaded if isinstance(loaded, str) else None

    def why_not(self, name: str, *args: Any, **kwargs: Any) -> str | None:
        """Why the named kernel cannot serve this call, or None if it can."""
        return self.kernels[name].refuses(*args, **kwargs) or self.absent(name)

    def __call__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> Any:
        """Run the operation."""
        if backend not in self.backends:
            raise KernelUnavailable(f"{self.name}: unknown backend '{backend}'; use one of {', '.join(self.backends)}")
        exact = (name for name, kernel in self.kernels.items() if kernel.exact)
        for name in exact if backend == "auto" else (backend,):
            if name == "torch":
                break
            reason = self.why_not(name, *args, **kwargs)
            if reason is None:
                return self._loaded[name](*args, **kwargs)
            if backend != "auto":
                usable = [n for n in self.kernels if self.why_not(n, *args, **kwargs) is None]
                raise KernelUnavailable(
                    f"{self.name}: backend '{name}' cannot run here: {reason}; usable now: "
                    f"{', '.join(['auto', 'torch', *usable])}"
                )
        return self.reference(*args, **kwargs)

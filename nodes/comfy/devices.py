"""Devices, memory and number formats, as ComfyUI has them."""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import comfy.model_management
import comfyui_version
import torch

from .patchers import Model

log = logging.getLogger("lyra")
Result = TypeVar("Result")

PRECISIONS = ("auto", "float32", "bfloat16")


def version() -> dict[str, str]:
    """ComfyUI and its version, for reports."""
    return {"ComfyUI": comfyui_version.__version__}


def compute_device() -> torch.device:
    """Where ComfyUI wants work done."""
    return comfy.model_management.get_torch_device()


def wait() -> None:
    """Until the compute device has done what it was given."""
    if (device := compute_device()).type == "cuda":
        torch.cuda.synchronize(device)


def make_room(size: int) -> None:
    """Ask ComfyUI to unload models until ``size`` bytes are free on the compute device."""
    comfy.model_management.free_memory(size, compute_device())


def load(*models: Model, size: int) -> None:
    """Bring models to the compute device together, with room for ``size`` bytes more; others make way as needed."""
    comfy.model_management.load_models_gpu([model.patcher for model in models], memory_required=size)


def total_memory() -> int:
    """Bytes that the compute device has: what to ask ComfyUI for where nothing else may stay there."""
    return comfy.model_management.get_total_memory(compute_device())


def free_memory() -> int:
    """Bytes that are free on the compute device."""
    return comfy.model_management.get_free_memory(compute_device())


def first_that_fits(attempts: Iterable[Callable[[], Result]]) -> Result:
    """The result of the first attempt that memory suffices for; if none, the last one's error."""
    error = None
    for attempt in attempts:
        if error is not None:
            log.warning("out of memory, trying again with less on the device")
            comfy.model_management.soft_empty_cache()
        try:
            return attempt()
        except Exception as raised:
            if not is_out_of_memory(raised):
                raise
            error = raised.with_traceback(None)  # what failed must not hold on to its tensors
    raise error


@contextmanager
def training() -> Iterator[None]:
    """Room on the device, and gradients, which ComfyUI switches off for nodes; what it leaves is freed at the end.

    A training's recorded graphs hold each other in circles, and device memory with them.
    """
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        gc.collect()
        comfy.model_management.soft_empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the device's memory is used up."""
    return comfy.model_management.is_oom(error)


def precision(choice: str) -> torch.dtype:
    """Of PRECISIONS; auto is bfloat16, what the released models were made with, where the device is fast at it."""
    if choice == "auto":
        fast = comfy.model_management.should_use_bf16(compute_device())
        return torch.bfloat16 if fast else torch.float32
    return getattr(torch, choice)


def intermediate_device() -> torch.device:
    """Where tensors between nodes live: the CPU, unless ComfyUI runs with --gpu-only."""
    return comfy.model_management.intermediate_device()


def intermediate_dtype() -> torch.dtype:
    """Number format of pictures between nodes."""
    return comfy.model_management.intermediate_dtype()

"""What a node shows while it works: its bar, a line of text, warnings; and its end when the user cancels."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ...comfyui_lyra.callbacks import OnStep
from . import devices

log = logging.getLogger("lyra")


def steps(label: str) -> OnStep:
    """A callback that moves the node's progress bar, stops when the user cancels, and logs the time at the end.

    It takes a third argument, a preview for the node as ComfyUI's ProgressBar takes it.
    """
    bar = comfy.utils.ProgressBar(1)
    start, ended = time.perf_counter(), []

    def on_step(done: int, total: int, preview: tuple | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total, preview)
        if done == total and not ended:
            ended.append(done)
            devices.wait()  # a card is behind what it was told
            log.info("%s: %d steps in %.1f s", label, total, time.perf_counter() - start)

    return on_step


def bar() -> comfy.utils.ProgressBar:
    """The node's progress bar, for what does not stop when the user cancels but ends early (see ``cancelled``)."""
    return comfy.utils.ProgressBar(1)


def cancelled() -> bool:
    """Whether the user has cancelled; then it is taken as done, so that the workflow goes on with what there is."""
    if not comfy.model_management.processing_interrupted():
        return False
    comfy.model_management.interrupt_current_processing(False)
    return True


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Write a line on a node that declares ``Hidden.unique_id``, for the client that runs it, if one does."""
    instance = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)  # if it is running
    client = getattr(instance, "client_id", None)
    if client is not None and node.hidden and node.hidden.unique_id:
        instance.send_progress_text(text, node.hidden.unique_id, client)


@contextmanager
def warnings() -> Iterator[list[str]]:
    """Collect what the library warns of meanwhile, to show it on a node too."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    collector = Collector(logging.WARNING)
    log.addHandler(collector)
    try:
        yield found
    finally:
        log.removeHandler(collector)

"""What a long generation shows on its node, and its end when the user cancels."""

from collections.abc import Callable, Sequence
from time import perf_counter

import comfy.model_management
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...comfyui_lyra.cameras.path import CameraTrajectory
from ...comfyui_lyra.cost.report import duration
from ...comfyui_lyra.files.media.images import to_bytes
from ...comfyui_lyra.gen3c.preview import LatentColors
from . import progress

EVERY = 3  # steps from one preview picture, or guess of the time that is left, to the next
PREVIEW_SIZE = 512  # most pixels a side


class Watch:
    """Callbacks for ``generate``: a bar over all steps of all paths, pictures, which path it is at, and time left."""

    def __init__(self, node: type[io.ComfyNode], picture: Tensor, paths: Sequence[CameraTrajectory]):
        self._node, self._picture, self._paths = node, picture, paths  # picture [H, W, 3] that every path begins with
        self._on_step = progress.steps("generate latents")
        self._colors: LatentColors | None = None
        self._seen, self._path = 0, -1  # steps that had a picture to show, number of the path under way
        self._preview: Image.Image | None = None
        self._done = 0, 1  # steps, and how many there are
        self._decoded = -1  # number of the last path whose frames were shown
        self._start, self._left = 0.0, ""  # when the first step was done, for it has much to prepare; time left

    def on_step(self, done: int, total: int) -> None:
        """A step is done."""
        preview, self._preview = self._preview, None
        self._done = done, total
        self._on_step(done, total, preview and ("JPEG", preview, PREVIEW_SIZE))
        if self._seen == 1:
            self._start = perf_counter()
        elif self._seen % EVERY == 2 and done < total:
            left = (perf_counter() - self._start) / (self._seen - 1) * (total - done)
            self._left = f", about {duration(left)} left"
            self._show()

    def on_preview(self, path: int, x0: Tensor) -> None:
        """The clip [16, T, h, w] of a path looks like this after a step; its last frame is shown."""
        if path != self._path:
            self._path = path
            self._show()
        if self._colors is None:  # at the first step of a path, latent 0 is that of the picture
            self._colors = LatentColors.of(x0[:, 0], self._picture)
        if self._seen % EVERY == 0:
            shown = Image.fromarray(to_bytes(self._colors(x0[:, -1])))
            self._preview = shown.resize((shown.width * 4, shown.height * 4), Image.Resampling.BICUBIC)
        self._seen += 1

    def on_frames(self, path: int, frames: Tensor) -> None:
        """The frames of a path are decoded: its last one is shown as it is."""
        self._decoded = path
        shown = Image.fromarray(to_bytes(frames[-1]))
        self._on_step(*self._done, ("JPEG", shown, PREVIEW_SIZE))

    def finish(self, decode: Callable[[], Tensor]) -> None:
        """All paths are there: what is shown at last is a decoded frame, where anything was shown."""
        if self._seen and self._decoded != len(self._paths) - 1:
            self.on_frames(len(self._paths) - 1, decode())

    def _show(self) -> None:
        path = self._paths[self._path]
        progress.show_text(self._node, f"path {self._path + 1} of {len(self._paths)}: {path.name}{self._left}")

    def on_block(self, done: int, total: int) -> None:
        """A block of the transformer is done: the place to stop when the user has cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()

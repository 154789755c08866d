"""What a long generation shows on its node, and its end when the user cancels."""

from collections.abc import Sequence

import comfy.model_management
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ..comfyui_lyra.cameras import CameraTrajectory
from ..comfyui_lyra.files.images import to_bytes
from ..comfyui_lyra.gen3c.preview import LatentColors
from . import host

EVERY = 3  # steps from one preview picture to the next
PREVIEW_SIZE = 512  # most pixels a side


class Watch:
    """Callbacks for ``generate``: a bar over all steps of all paths, pictures, and which path it is at."""

    def __init__(self, node: type[io.ComfyNode], picture: Tensor, paths: Sequence[CameraTrajectory]):
        self._node, self._picture, self._paths = node, picture, paths  # picture [H, W, 3] that every path begins with
        self._on_step = host.progress("generate latents")
        self._colors: LatentColors | None = None
        self._seen, self._path = 0, -1  # steps that had a picture to show, number of the path under way
        self._preview: Image.Image | None = None

    def on_step(self, done: int, total: int) -> None:
        """A step is done."""
        preview, self._preview = self._preview, None
        self._on_step(done, total, preview and ("JPEG", preview, PREVIEW_SIZE))

    def on_preview(self, path: int, x0: Tensor) -> None:
        """The clip [16, T, h, w] of a path looks like this after a step; its last frame is shown."""
        if path != self._path:
            self._path = path
            host.show_text(self._node, f"path {path + 1} of {len(self._paths)}: {self._paths[path].name}")
        if self._colors is None:  # at the first step of a path, latent 0 is that of the picture
            self._colors = LatentColors.of(x0[:, 0], self._picture)
        if self._seen % EVERY == 0:
            shown = Image.fromarray(to_bytes(self._colors(x0[:, -1])))
            self._preview = shown.resize((shown.width * 4, shown.height * 4), Image.Resampling.BICUBIC)
        self._seen += 1

    def on_block(self, done: int, total: int) -> None:
        """A block of the transformer is done: the place to stop when the user has cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()

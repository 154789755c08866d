"""What the splat decoder sees: cameras in the splats' world, Pluecker and time pictures as the tokenizer's latents."""

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...kernels_glue.memory import cache_folder
from ..callbacks import part
from ..cameras.path import CameraTrajectory, relative_to
from ..cameras.rays import plucker, plucker_bf16, rays, rays_bf16
from ..configs import ReconConfig
from ..files.atomic import replacing
from ..shapes import check_shapes
from ..tokenizer.protocol import Tokenizer

log = logging.getLogger("lyra")

FRAMES_AT_ONCE = 8  # frames of Pluecker coordinates made at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class ReconInputs:
    """What the network sees of B scenes of V views. The views share the times; so do the scenes where S or R is 1."""

    latents: Tensor  # [B, V, C, T, h, w] raw tokenizer space
    plucker: Tensor  # [B, V, 2 C, T, h, w] encoded moments, then encoded directions
    origins: Tensor  # [B, V, F, 3] of the rays, in the world of the splats
    directions: Tensor  # [B, V, F, 3, h', w'] unit, one ray a splat
    time_source: Tensor | None = None  # [S, C, T, h, w] encoded times of the frames
    time_target: Tensor | None = None  # [R, C, 1, h, w] encoded bullet time

    def __post_init__(self) -> None:
        check_shapes(
            self, latents="B V C T h w", plucker="B V D T h w", origins="B V F 3", directions="B V F 3 H W",
            time_source="S C T h w", time_target="R C 1 h w",
        )  # fmt: skip


def view_order(views: int) -> list[int]:
    """Order in which the decoder reads the paths 0..V-1: the last first, then the others (5, 0, 1, 2, 3, 4).

    The first frame of the first view is the splats' world, and order decides the scans (decoder.md 2.1).
    """
    return [views - 1, *range(views - 1)]


def in_splat_world(paths: Sequence[CameraTrajectory]) -> tuple[CameraTrajectory, ...]:
    """The paths, in their own order, relative to the first camera of the path that ``view_order`` puts first."""
    return relative_to(paths, paths[view_order(len(paths))[0]].c2w[0])


class EncodeCache:
    """Encoded Pluecker and time pictures of earlier calls, in CPU memory; the oldest go when it is full.

    With a ``folder`` they lie there too, for later processes, in ``max_stored`` bytes: of equal paths the next scene
    reads 14 MB each instead of encoding two clips. Where it cannot be written, nothing is kept and nothing fails.
    """

    def __init__(self, max_bytes: int = 2**30, folder: Path | None = None, max_stored: int = 2**30):
        self.max_bytes, self._held = max_bytes, OrderedDict[str, Tensor]()
        self.folder, self.max_stored = folder, max_stored

    @classmethod
    def lasting(cls, max_bytes: int = 2**30) -> "EncodeCache":
        """One that lies where things are remembered between starts."""
        return cls(max_bytes, cache_folder() / "encoded")

    def get(self, key: Sequence[object], make: Callable[[], Tensor]) -> Tensor:
        """The tensor made for an equal key before, else a new one. Tensors in a key count by their values."""
        digest = hashlib.sha256()
        for piece in key:
            raw = (
                piece.contiguous().cpu().view(torch.uint8).numpy().data
                if isinstance(piece, Tensor)
                else str(piece).encode()
            )
            digest.update(raw)
            digest.update(b"|")
        name = digest.hexdigest()
        if name not in self._held:
            if (found := self._recalled(name)) is None:
                found = make()
                self._keep(name, found)
            self._held[name] = found.cpu()
            while sum(t.nbytes for t in self._held.values()) > self.max_bytes:
                self._held.popitem(last=False)
            return found
        self._held.move_to_end(name)
        return self._held[name]

    def _recalled(self, name: str) -> Tensor | None:
        """What lies in the folder, and is young again by that."""
        if self.folder is None:
            return None
        file = self.folder / f"{name}.safetensors"
        try:
            found = load_file(file)["encoded"]
            os.utime(file)
            return found
        except (OSError, SafetensorError, KeyError):  # never written, or damaged: as if not there
            return None

    def _keep(self, name: str, encoded: Tensor) -> None:
        """Write it, and delete what is oldest above ``max_stored``."""
        if self.folder is None:
            return
        try:
            with replacing(self.folder / f"{name}.safetensors") as temporary:
                save_file({"encoded": encoded.cpu().contiguous()}, temporary)
            states = [(file, file.stat()) for file in self.folder.glob("*.safetensors")]
            size = sum(state.st_size for _, state in states)
            for file, state in sorted(states, key=lambda each: each[1].st_mtime_ns):
                if size > self.max_stored:
                    file.unlink(missing_ok=True)
                    size -= state.st_size
        except (OSError, ValueError) as error:  # ``replacing`` raises the latter where a disk is full
            log.debug("nothing is kept in %s: %s", self.folder, error)


def splat_rays(cameras: CameraTrajectory, pixels_per_splat: int, bf16: bool) -> tuple[Tensor, Tensor]:
    """Origins [F, 3] and unit directions [F, 3, h', w'] of one view's splats, in float32 or in reference rounding."""
    origins, directions = (rays_bf16 if bf16 else rays)(cameras, pixels_per_splat)
    return origins[..., 0, 0], directions


def time_embedding(times: Tensor) -> Tensor:
    """[s, cos s, sin s] of times s [N], radians: [N, 3] (decoder.md 2.6)."""
    return torch.stack((times, times.cos(), times.sin()), -1)


def relative_times(frames: int) -> Tensor:
    """Time of each frame index of a clip, 0 at the first and 1 at the last: [F]."""
    return torch.arange(frames) / max(1, frames - 1)


def time_video(times: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Pictures [1, 3, N, H, W] of one colour each, 2 e - 1 of the time embedding, without memory behind the pixels."""
    values = 2 * time_embedding(times).to(dtype) - 1
    return rearrange(values, "n c -> 1 c n 1 1").expand(-1, -1, -1, height, width)


@part("Pluecker coordinates")
def encode_plucker(cameras: CameraTrajectory, tokenizer: Tokenizer, bf16: bool, dtype: torch.dtype) -> Tensor:
    """Pluecker latents [2 C, T, h, w] of one view: encoded moments, then encoded directions.

    Each half goes through the picture tokenizer as a video of three channels, unscaled (decoder.md 2.5); only one half
    exists at a time.
    """
    halves = []
    for half in (slice(0, 3), slice(3, 6)):
        video = cameras.c2w.new_empty(1, 3, len(cameras), cameras.height, cameras.width, dtype=dtype)
        for start in range(0, len(cameras), FRAMES_AT_ONCE):
            some = slice(start, start + FRAMES_AT_ONCE)
            coordinates = (plucker_bf16 if bf16 else plucker)(cameras[some])
            video[0, :, some] = rearrange(coordinates[:, half], "f c h w -> c f h w")
        halves.append(tokenizer.encode(video)[0].to(dtype))
    return torch.cat(halves)


def static_inputs(
    config: ReconConfig,
    tokenizer: Tokenizer,
    latents: Tensor,
    cameras: Sequence[CameraTrajectory],
    cache: EncodeCache,
    on_view: Callable[[], None] = lambda: None,
) -> ReconInputs:
    """Inputs of one scene, without times: raw latents [V, C, T, h, w] and its paths, both in path order.

    The paths are those of ``in_splat_world``. Works where, and in the dtype that, the latents are.
    """
    encoded, origins, directions = [], [], []
    order = view_order(len(cameras))
    for path in (cameras[view].to(latents.device) for view in order):
        how = tokenizer.identity, latents.device.type, latents.dtype, config.bf16_plucker
        key = ("plucker", *how, path.height, path.width)
        make = partial(encode_plucker, path, tokenizer, config.bf16_plucker, latents.dtype)
        encoded.append(cache.get((*key, path.c2w, path.K), make).to(latents))
        origin, direction = splat_rays(path, config.pixels_per_splat, config.bf16_rays)
        origins.append(origin)
        directions.append(direction)
        on_view()
    return ReconInputs(
        latents=latents[order][None],
        plucker=torch.stack(encoded)[None],
        origins=torch.stack(origins)[None],
        directions=torch.stack(directions)[None],
    )


def time_latents(
    times: Tensor, height: int, width: int, tokenizer: Tokenizer, like: Tensor, cache: EncodeCache
) -> Tensor:
    """Encoded time pictures [1, C, T, h, w] of the times [N] of N = 1 + 8 (T - 1) frames, where and as ``like`` is."""
    key = ("time", tokenizer.identity, like.device.type, like.dtype, height, width, times)
    video = time_video(times, height, width, like.dtype).to(like.device)
    return cache.get(key, lambda: tokenizer.encode(video)).to(like)

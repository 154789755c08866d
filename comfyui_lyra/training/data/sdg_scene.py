"""One generated scene on disk, every file of it checked on the way in (training.md 9.2).

Files are opened, read and closed again in each call: nothing is held that a forked worker could share.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from ...cameras.path import CameraTrajectory
from ...configs import COMPRESSION
from ...files.arrays import array_names
from ...files.cameras.npz import read_intrinsics, read_poses
from ...files.cameras.pinhole import camera_path
from ...files.media.video import TO_RGB, pictures_in
from ...files.scenes.depth_zip import load_depth_zip
from ...files.scenes.latents import load_latents
from ...files.scenes.latents_pkl import load_latent_pkl
from ..losses import sanitise_depth
from .members import Key, Member
from .remote import RemoteMember

LARGEST_LATENT = 100.0  # latents in diffusion space have a deviation of 0.5


class BrokenScene(ValueError):
    """A file of a scene that cannot be used; ``file`` names it."""

    def __init__(self, scene: str, file: str, problem: str):
        super().__init__(f"scene {scene}: {file}: {problem}")
        self.scene, self.file = scene, file


class SdgScene:
    """A scene's files as a ``SceneSource``; ``views`` are those that must be whole."""

    def __init__(
        self, name: str, members: Mapping[Key, Member | RemoteMember], paths: int, views: Sequence[int], frames: int = 0
    ):
        self.name, self.members, self.paths, self.views = name, members, paths, views
        self.frames = frames or self._common_frames()

    def cameras(self, view: int) -> CameraTrajectory:
        """The view's camera at each frame, found by its frame number."""
        _, height, width, fps = self._video(view)
        c2w, numbers = (rows[: self.frames] for rows in (self._rows(view, "pose"), self._rows(view, "intrinsics")))
        with self._blaming(view, "pose"):
            return camera_path(c2w, numbers, height, width, fps=fps, name=str(view))

    def pictures(self, view: int, frames: Sequence[int]) -> Tensor:
        """Some frames [n, H, W, 3] in [0, 1]."""
        with self._opened(view, "rgb") as path:
            return load_frames(path, frames).float() / 255

    def depth(self, view: int, frames: Sequence[int]) -> Tensor:
        """Depth of some frames [n, H, W], 0 where it is unknown: everywhere, if the scene has none."""
        _, height, width, _ = self._video(view)
        if (view, "depth") not in self.members:
            return torch.zeros(len(frames), height, width)
        with self._opened(view, "depth") as path:
            found = sanitise_depth(load_depth_zip(path, frames))
            if found.shape[1:] != (height, width):
                raise ValueError(f"depth of {found.shape[2]}x{found.shape[1]} for pictures of {width}x{height}")
            return found

    def latents(self, view: int) -> Tensor | None:
        """Latents [C, T, h, w] of the whole clip, in diffusion space, whichever form they are stored in, if any."""
        if (view, "latent") not in self.members:
            return None
        _, height, width, _ = self._video(view)
        with self._opened(view, "latent") as path:
            found = load_latent_pkl(path) if path.suffix == ".pkl" else one_view(path)
            wanted = 1 + (self.frames - 1) // COMPRESSION, height // COMPRESSION, width // COMPRESSION
            if tuple(found.shape[1:]) != wanted:
                raise ValueError(f"latents [T h w] {tuple(found.shape[1:])}; {self.frames} frames of {width}x{height} "
                                 f"have {wanted}")  # fmt: skip
            if not found.isfinite().all() or found.abs().max() > LARGEST_LATENT:
                raise ValueError(f"latents are not finite, or beyond {LARGEST_LATENT:g}")
            return found

    def _common_frames(self) -> int:
        """Frames that every view has, after the cheap checks of all of them."""
        shortest, sizes = [], set()
        for view in self.views:
            for kind in ("rgb", "pose", "intrinsics"):
                if (view, kind) not in self.members:
                    raise BrokenScene(self.name, f"{view}/{kind}", "is missing")
            rows = [self._rows(view, kind) for kind in ("pose", "intrinsics")]
            count, height, width, _ = self._video(view)
            length = min(count, *map(len, rows))
            with self._blaming(view, "pose"):
                camera_path(*(part[:length] for part in rows), height, width, name=str(view))
            shortest.append(length)
            sizes.add((width, height))
        if min(shortest) < 2:
            view = self.views[int(np.argmin(shortest))]
            raise BrokenScene(self.name, f"{view}/rgb", f"{min(shortest)} frames with cameras; at least 2 are needed")
        if len(sizes) > 1:
            raise BrokenScene(self.name, "rgb", f"views of different sizes {sorted(sizes)}")
        return min(shortest)

    def _rows(self, view: int, kind: str) -> np.ndarray:
        """Rows of frames 0, 1, ... of an npz, up to the first frame number that is missing."""
        with self._opened(view, kind) as path:
            rows, numbers = (read_poses if kind == "pose" else read_intrinsics)(path)  # ValueError of a damaged file
            if "inds" not in array_names(path):
                raise ValueError("holds no frame numbers 'inds'")
            wrong = np.flatnonzero(numbers != np.arange(len(numbers)))
            if numbers[0] != 0:
                raise ValueError("holds no frame 0")
            return rows[: wrong[0]] if len(wrong) else rows

    def _video(self, view: int) -> tuple[int, int, int, float]:
        """Frames, height, width and frame rate of a view's mp4."""
        with self._opened(view, "rgb") as path:
            return probe(path)

    @contextmanager
    def _opened(self, view: int, kind: str) -> Iterator[Path]:
        """The path of one file; whatever goes wrong with it is a BrokenScene."""
        member = self.members.get((view, kind))
        if member is None:
            raise BrokenScene(self.name, f"{view}/{kind}", "is missing")
        with self._blaming(view, kind):
            if not member.size:
                raise ValueError("is empty")
            with member.opened() as path:
                yield path

    @contextmanager
    def _blaming(self, view: int, kind: str) -> Iterator[None]:
        """Turn what readers raise into a BrokenScene that names the file."""
        try:
            yield
        except BrokenScene:
            raise
        except (ValueError, OSError, EOFError, IndexError, KeyError, av.error.FFmpegError) as error:
            raise BrokenScene(self.name, self.members[view, kind].name, str(error)) from error


def one_view(path: Path) -> Tensor:
    """Latents [C, T, h, w] of a file of ours that holds one view."""
    found = load_latents(path).latents
    if found.space != "diffusion" or len(found.values) != 1:
        raise ValueError(
            f"expected one view's latents in diffusion space, got {len(found.values)} in {found.space} space"
        )
    return found.values[0].float()


def probe(path: Path) -> tuple[int, int, int, float]:
    """Frames, height, width and frame rate of an mp4, without decoding it."""
    with path.open("rb") as file, av.open(file) as container:  # by handle: a name need not be text
        stream = pictures_in(container)
        height, width, fps = stream.height, stream.width, float(stream.average_rate or 24)
        return sum(packet.size > 0 for packet in container.demux(stream)), height, width, fps


def load_frames(path: Path, frames: Sequence[int]) -> Tensor:
    """Some frames [n, H, W, 3] of an mp4, uint8, decoding no further than the last of them."""
    wanted, found = set(frames), {}
    with path.open("rb") as file, av.open(file) as container:
        for number, picture in enumerate(container.decode(pictures_in(container))):
            if number in wanted:
                found[number] = torch.from_numpy(picture.to_ndarray(**TO_RGB))
            if len(found) == len(wanted):
                break
    if missing := sorted(wanted - found.keys()):
        raise ValueError(f"frame {missing[0]} cannot be decoded")
    return torch.stack([found[frame] for frame in frames])

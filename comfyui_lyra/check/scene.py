"""What models are shown at their first use: the scene of the shipped picture, drawn anew at the size they want."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras.moves import PathSettings, camera_paths, still
from ..cameras.path import CameraTrajectory
from ..geometry.geometry import Geometry
from ..training.world.draw_scenes import draw_scene, source_geometry
from ..training.world.raytrace import trace
from ..training.world.scenes import Scenes

SEED = 900_012  # of mini/picture.png; no training saw it


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """A still scene with its picture, and the six paths that it is filmed along."""

    scene: Scenes  # on the device that films
    geometry: Geometry  # F = 1, on the CPU
    paths: tuple[CameraTrajectory, ...]  # on the CPU

    @classmethod
    def at(cls, size: tuple[int, int], frames: int, device: torch.device) -> "Stage":
        """For pictures of (height, width) ``size`` and clips of so many frames, on a device."""
        scene = draw_scene(SEED)
        geometry = source_geometry(scene, *size)
        paths = camera_paths(geometry.cameras, PathSettings(frames=frames))
        return cls(scene=scene.to(device), geometry=geometry, paths=paths)

    @property
    def device(self) -> torch.device:
        """Where it is filmed, and where the work is done."""
        return self.scene.room.device

    def film(self, path: CameraTrajectory) -> Tensor:
        """True frames [F, H, W, 3] in [0, 1] along a path."""
        return trace(self.scene, [path], torch.zeros(len(path), device=self.device)).rgb[0]

    def standing(self) -> CameraTrajectory:
        """A path that stays at the picture's camera, as long as the others."""
        return still(self.geometry.cameras, len(self.paths[0]))


def as_video(frames: Tensor) -> Tensor:
    """Frames [F, H, W, 3] in [0, 1] as the tokenizer takes them, [1, 3, F, H, W] in [-1, 1]."""
    return frames.permute(3, 0, 1, 2)[None] * 2 - 1


def as_frames(video: Tensor) -> Tensor:
    """A decoded video [3, F, H, W] as frames [F, H, W, 3] in float32, not clamped."""
    return (video.permute(1, 2, 3, 0).float() + 1) / 2

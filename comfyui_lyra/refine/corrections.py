"""What is learnt beside the splats and thrown away: where frames' cameras were, and how views change colours."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels_glue.rasterizer.projection import rotation_matrices, turn
from ..cameras.path import CameraTrajectory
from ..splats.gaussians import Gaussians
from .footage import Target
from .schedule import RefineSettings

PICTURE = -1  # the row of the picture, which is shown as it is from where it is: it holds the rest


class Corrections:
    """Six numbers a frame and twelve a view, all 0 at first. Frames that are not looked at keep theirs."""

    def __init__(self, target: Target, settings: RefineSettings, pixel: float, device: torch.device):
        """``pixel`` is what a pixel covers of the scene, in scene units."""
        self._length, self._pixel = len(target.frames) // target.views, pixel
        self._focal = float(target.cameras.K[0, 0, 0])
        self.poses = torch.zeros(len(target.frames), 6, device=device, requires_grad=True)  # turn and shift, in pixels
        self.colors = torch.zeros(target.views, 3, 4, device=device, requires_grad=True)  # beside the identity
        self._steppers: list[tuple[float, torch.optim.Optimizer]] = []
        if settings.poses:
            self._steppers.append((settings.poses, torch.optim.SparseAdam([self.poses], lr=settings.poses)))
        if settings.affine:
            self._steppers.append((settings.affine, torch.optim.Adam([self.colors], lr=settings.affine)))
        self.moves_cameras, self.changes_colors = settings.poses > 0, settings.affine > 0

    def step(self, factor: float) -> None:
        """Move on, at ``factor`` of the step sizes."""
        for rate, stepper in self._steppers:
            stepper.param_groups[0]["lr"] = rate * factor
            stepper.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self.poses.grad = self.colors.grad = None

    def seen(self, splats: Gaussians, c2w: Tensor, row: int) -> Gaussians:
        """The splats as the camera ``c2w`` [4, 4] of a frame would see them if it stood where it should."""
        if row == PICTURE:
            return splats
        turned, shift = F.embedding(c2w.new_tensor([row]).long(), self.poses, sparse=True)[0].split(3)
        axes = c2w[:3, :3]
        quat = half_turn(turn(axes, turned[None] / self._focal))  # small, about axes of the world
        means = turn(rotation_matrices(quat)[0], splats.means - c2w[:3, 3]) + c2w[:3, 3]
        means = means + turn(axes, shift[None] * self._pixel)
        return replace(splats, means=means, quats=product(quat, splats.quats))

    def shown(self, drawn: Tensor, rows: Tensor) -> Tensor:
        """Frames [B, H, W, 3] in the colours of their views."""
        views = rows.to(drawn.device).clamp_min(0) // self._length
        change = self.colors[views] * (rows != PICTURE).to(drawn)[:, None, None]
        return drawn + torch.einsum("bij,bhwj->bhwi", change[..., :3], drawn) + change[:, None, None, :, 3]

    @torch.no_grad()
    def cameras(self, path: CameraTrajectory) -> CameraTrajectory:
        """The path [M] as it should have been."""
        numbers = self.poses.detach().to(path.c2w)
        moved = torch.eye(4).to(path.c2w).repeat(len(path), 1, 1)  # of the scene before each camera, in its axes
        moved[:, :3, :3] = rotation_matrices(half_turn(numbers[:, :3] / self._focal))
        moved[:, :3, 3] = numbers[:, 3:] * self._pixel
        return replace(path, c2w=path.c2w @ torch.linalg.inv(moved))


def half_turn(turned: Tensor) -> Tensor:
    """Quaternions [M, 4] of small rotation vectors [M, 3], smooth at 0: exact up to the third order of the angle."""
    return F.normalize(torch.cat((torch.ones_like(turned[:, :1]), turned / 2), dim=1), dim=1)


def product(first: Tensor, quats: Tensor) -> Tensor:
    """Hamilton product of one quaternion [1, 4] with many [N, 4], wxyz; differentiable in both."""
    (w, axis), (real, rest) = first.split((1, 3), dim=1), quats.split((1, 3), dim=1)
    along = w * rest + real * axis + torch.linalg.cross(axis.expand_as(rest), rest)
    return torch.cat((w * real - (axis * rest).sum(1, keepdim=True), along), dim=1)

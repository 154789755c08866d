"""Scenes that refinement is judged on: what the mini models made of a seed, the truth, and cameras nobody was shown."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...cameras.path import CameraTrajectory
from ...demo import Models
from ...files.atomic import replacing
from ...geometry.geometry import Geometry
from ...latents import MultiViewLatents, VideoLatents
from ...recon.inputs import EncodeCache, view_order
from ...splats.gaussians import Gaussians
from ...training.data.sdg_memory import as_scene, draw_sources, generate_many
from ...training.evaluate import decode_views
from ...training.world.draw_scenes import draw_scenes
from ...training.world.filming import to_bytes
from ...training.world.raytrace import seen_from, trace

BEYOND = 1.25  # how many times as far as the ends of the paths the cameras beyond them stand
FIELDS = ("means", "scales", "quats", "opacities", "colors")


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged:
    """One scene at some bullet times (one if it is at rest), in the world of its cameras. P paths of F frames."""

    seed: int
    times: tuple[int, ...]
    splats: tuple[Gaussians, ...]  # the decoder's, of each time
    films: Tensor  # [P, F, H, W, 3] the teacher's, bytes
    paths: tuple[CameraTrajectory, ...]
    between: tuple[CameraTrajectory, ...]  # P - 2 paths that nobody was shown
    beyond: CameraTrajectory  # P cameras past the paths' ends
    truth: Tensor  # [times, P, F, H, W, 3] bytes
    truth_between: Tensor  # [times, P - 2, F, H, W, 3]
    truth_beyond: Tensor  # [times, P, H, W, 3]
    visible: Tensor  # [P, F, H, W] what the source shows of the truth (bool)
    geometry: Geometry
    latents: Tensor  # [P, C, T, h, w] of the teacher

    @property
    def moving(self) -> bool:
        """Whether the source is a clip."""
        return len(self.geometry.frames) > 1

    def told(self) -> MultiViewLatents:
        """The latents with their cameras."""
        return MultiViewLatents(
            latents=VideoLatents(values=self.latents), cameras=self.paths, family="mini", dynamic=self.moving
        )


def between(paths: Sequence[CameraTrajectory]) -> tuple[CameraTrajectory, ...]:
    """Frame by frame halfway from path i to path i + 2: the mean position and the mean rotation (by SVD)."""
    found = []
    for one, other in zip(paths[:-2], paths[2:], strict=True):
        left, _, right = torch.linalg.svd((one.c2w[:, :3, :3] + other.c2w[:, :3, :3]) / 2)
        upright = torch.ones(len(one), 3)
        upright[:, 2] = torch.linalg.det(left @ right)
        c2w = torch.eye(4).repeat(len(one), 1, 1)
        c2w[:, :3, :3] = left @ torch.diag_embed(upright) @ right
        c2w[:, :3, 3] = (one.c2w[:, :3, 3] + other.c2w[:, :3, 3]) / 2
        found.append(one.at(c2w, one.K))
    return tuple(found)


def beyond(paths: Sequence[CameraTrajectory]) -> CameraTrajectory:
    """Of each path the camera farthest from its first, BEYOND times as far."""
    c2w, K = [], []
    for path in paths:
        away = path.c2w[:, :3, 3] - path.c2w[0, :3, 3]
        far = int(away.norm(dim=1).argmax())
        moved = path.c2w[far].clone()
        moved[:3, 3] = path.c2w[0, :3, 3] + BEYOND * away[far]
        c2w.append(moved)
        K.append(path.K[far])
    return paths[0].at(torch.stack(c2w), torch.stack(K))


@torch.no_grad()
def make(models: Models, seed: int, times: Sequence[int], lengths: str, moving: bool) -> Judged:
    """A scene by the teacher and the splat decoder, and what it truly looks like."""
    config, device = models.teacher.config, models.teacher.device
    shape = {"size": config.trained_size, "frames": config.trained_frames, "device": device}
    (source,) = draw_sources([seed], moving=moving, lengths=lengths, **shape)
    scene = as_scene(*generate_many(models.teacher, models.tokenizer, [source]))
    paths, order, cache = source.paths, view_order(len(source.paths)), EncodeCache()
    recon = models.dynamic if moving else models.static
    splats = tuple(
        decode_views(recon, models.tokenizer, scene, order, None, True, cache, time).to("cpu") for time in times
    )
    room, novel, far = draw_scenes([seed], moving).to(device), between(paths), beyond(paths)
    own = torch.linspace(0, 1, config.trained_frames, device=device)
    filmed = trace(room[[0] * len(paths)], paths, own)
    visible = seen_from(room[[0] * len(paths)], filmed.depth, paths, source.geometry.cameras[:1], own)

    def true(cameras: Sequence[CameraTrajectory]) -> Tensor:
        """Bytes [times, paths, F, H, W, 3]."""
        moments = [torch.full((len(cameras[0]),), time / (config.trained_frames - 1), device=device) for time in times]
        return torch.stack([to_bytes(trace(room[[0] * len(cameras)], cameras, when).rgb).cpu() for when in moments])

    return Judged(
        seed=seed, times=tuple(times), splats=splats, paths=paths, between=novel, beyond=far,
        films=torch.stack([clip.frames for clip in scene.clips[: len(paths)]]).cpu(),
        truth=true(paths), truth_between=true(novel), truth_beyond=true([far])[:, 0], visible=visible.cpu(),
        geometry=source.geometry.to("cpu"), latents=torch.stack([clip.latents for clip in scene.clips]).float().cpu(),
    )  # fmt: skip


def save(file: Path, scene: Judged) -> None:
    """One safetensors; the cameras beside the paths are made anew when it is read."""
    names = [field.name for field in fields(scene) if isinstance(getattr(scene, field.name), Tensor)]
    tensors = {name: getattr(scene, name) for name in names}
    tensors |= {f"{n} {name}": getattr(s, name) for n, s in enumerate(scene.splats) for name in FIELDS}
    tensors |= {"c2w": torch.stack([path.c2w for path in scene.paths]), "K": torch.stack([p.K for p in scene.paths])}
    source, size = scene.geometry, (scene.paths[0].height, scene.paths[0].width)
    tensors |= {f"source {name}": getattr(source, name) for name in ("frames", "depth", "valid")}
    tensors |= {"source c2w": source.cameras.c2w, "source K": source.cameras.K}
    tensors |= {"numbers": torch.tensor([scene.seed, *size]), "times": torch.tensor(scene.times)}
    with replacing(file) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def load(file: Path) -> Judged:
    """What ``save`` wrote."""
    held = load_file(file)
    seed, height, width = held.pop("numbers").tolist()
    times = tuple(held.pop("times").tolist())

    def path(c2w: Tensor, K: Tensor) -> CameraTrajectory:
        return CameraTrajectory(c2w=c2w, K=K, height=height, width=width)

    paths = tuple(path(*pair) for pair in zip(held.pop("c2w"), held.pop("K"), strict=True))
    splats = tuple(Gaussians(**{name: held.pop(f"{n} {name}") for name in FIELDS}) for n in range(len(times)))
    source = {name: held.pop(f"source {name}") for name in ("frames", "depth", "valid", "c2w", "K")}
    cameras = path(source.pop("c2w"), source.pop("K"))
    return Judged(
        seed=seed, times=times, paths=paths, splats=splats, between=between(paths), beyond=beyond(paths),
        geometry=Geometry(**source, cameras=cameras), **held,
    )  # fmt: skip

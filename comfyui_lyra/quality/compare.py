"""Frames laid beside what they should show: scores by name, and the error to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from ...kernels_glue.devices import doubled
from ..callbacks import OnStep, no_progress
from ..cameras.path import CameraTrajectory
from ..latents import MultiViewLatents
from ..shapes import check_shapes
from ..splats.gaussians import Gaussians
from ..splats.render import DEFAULT, RenderSettings, render
from ..tokenizer.clips import decode
from ..tokenizer.model import CosmosTokenizer
from .perceptual import Perceptual
from .scores import BEST, centre_crop, cover, psnr, ssim
from .tpips import tokenizer_tpips

AT_ONCE = 8  # frames
SCORE_BYTES = 2700  # a pixel of AT_ONCE frames at work, measured: SSIM's maps in float64
LPIPS_BYTES = 4096  # a pixel: what VGG16 holds of a pair of pictures, counted
GRID = 16  # pixels: the tokenizer's encoder takes multiples of it
WORDS = {"psnr": "PSNR {:.2f} dB", "ssim": "SSIM {:.4f}", "tpips": "TPIPS {:.4f}", "lpips": "LPIPS {:.4f}"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """How near frames are to the truth."""

    scores: dict[str, Tensor]  # by name, [F] each
    error: Tensor  # [F, H, W, 3] absolute difference

    def __post_init__(self) -> None:
        check_shapes(self, error="F H W 3")

    @property
    def means(self) -> dict[str, float]:
        """Means over the frames; an exact copy counts as 100 dB."""
        return {name: doubled(values).clamp_max(BEST).mean().item() for name, values in self.scores.items()}

    def picture(self, gain: float) -> Tensor:
        """The error [F, H, W, 3] to look at: black where there is none, ``gain`` times as bright as it is."""
        return (self.error * gain).clamp(0, 1)

    @property
    def worst(self) -> int:
        """The frame of the lowest PSNR."""
        return int(self.scores["psnr"].argmin())

    def report(self) -> str:
        """The means in words, and which frame is worst."""
        words = ", ".join(WORDS[name].format(value) for name, value in self.means.items())
        worst = f"frame {self.worst}, {self.scores['psnr'][self.worst]:.2f} dB"
        return f"{words};\n{len(self.error)} frames; worst: {worst}"


class GridTpips:
    """TPIPS on a tokenizer's encoder for pictures of any size: of their middle, up to 15 pixels less a side."""

    name = "tpips"

    def __init__(self, tokenizer: CosmosTokenizer):
        self.distance = tokenizer_tpips(tokenizer)

    def __call__(self, pictures: Tensor, targets: Tensor, chunk: int = 1) -> Tensor:
        """Distance of each pair of frames [B, N, H, W, 3] in [0, 1]: [B, N], ``chunk`` views at a time."""
        height, width = (size // GRID * GRID for size in pictures.shape[2:4])
        if not height or not width:
            raise ValueError(f"TPIPS needs frames of at least {GRID}x{GRID} pixels, got {tuple(pictures.shape[2:4])}")
        seen, wanted = (
            centre_crop(p.flatten(0, 1), height, width).unflatten(0, p.shape[:2]) for p in (pictures, targets)
        )
        return self.distance(seen, wanted, chunk)


def compare_bytes(height: int, width: int, lpips: bool = False) -> int:
    """Working memory of ``compare_frames`` where it computes, without the networks' weights."""
    return (SCORE_BYTES + lpips * LPIPS_BYTES) * height * width


@torch.inference_mode()
def compare_frames(
    frames: Tensor,
    truth: Tensor,
    perceptual: Sequence[Perceptual] = (),
    *,
    device: torch.device | str = "cpu",
    on_step: OnStep = no_progress,
) -> Comparison:
    """PSNR, SSIM and the ``perceptual`` distances of frames [F, H, W, 3] in [0, 1] to as many of the truth.

    A truth of another size is made to cover the frames and cropped about the centre. A few frames at a time are
    compared on ``device``, where the perceptual networks are; the result stays where the frames are.
    """
    if len(frames) != len(truth):
        raise ValueError(
            f"{len(frames)} frames cannot be compared with {len(truth)}; both must show the same cameras, in one order"
        )
    scores: dict[str, list[Tensor]] = {}
    errors = []
    for start in range(0, len(frames), AT_ONCE):
        some, wanted = (clip[start : start + AT_ONCE].to(device).float() for clip in (frames, truth))
        some, wanted = some.clamp(0, 1), cover(wanted, *some.shape[1:3]).clamp(0, 1)
        found = {"psnr": psnr(some, wanted), "ssim": ssim(some, wanted)}
        found |= {network.name: network(some[None], wanted[None])[0] for network in perceptual}
        for name, values in found.items():
            scores.setdefault(name, []).append(values.float().to(frames.device))
        errors.append((some - wanted).abs().to(frames.device))
        on_step(start + len(some), len(frames))
    return Comparison(scores={name: torch.cat(parts) for name, parts in scores.items()}, error=torch.cat(errors))


@torch.inference_mode()
def compare_splats(
    splats: Sequence[Gaussians],
    cameras: Sequence[CameraTrajectory],
    latents: MultiViewLatents,
    tokenizer: CosmosTokenizer,
    perceptual: Sequence[Perceptual] = (),
    *,
    times: Sequence[int] | None = None,
    every: int = 1,
    settings: RenderSettings = DEFAULT,
    device: torch.device | str = "cpu",
    on_step: OnStep = no_progress,
) -> Comparison:
    """Renders of splats along the latents' paths against the frames that the latents stand for, path after path.

    ``cameras`` are these paths in the world of the splats. Of a still scene every n-th frame of each path counts, of a
    moving one each path's frame at the bullet ``times`` of the splats.
    """
    shots = plan_shots(splats, cameras, latents, times, every)
    frames = sum(len(shown) for _, shown in shots) * len(cameras)
    steps, parts = count(1), []
    for view, path in enumerate(cameras):
        truth = decode(tokenizer, latents, view)
        for gaussians, shown in shots:
            drawn = render(
                gaussians.to(device), path[shown].to(device), settings, truth.device,
                on_step=lambda *_: on_step(next(steps), frames),
            )  # fmt: skip
            parts.append(compare_frames(drawn.rgb, truth[shown], perceptual, device=device))
    scores = {name: torch.cat([part.scores[name] for part in parts]) for name in parts[0].scores}
    return replace(parts[0], scores=scores, error=torch.cat([part.error for part in parts]))


def plan_shots(
    splats: Sequence[Gaussians],
    cameras: Sequence[CameraTrajectory],
    latents: MultiViewLatents,
    times: Sequence[int] | None,
    every: int,
) -> list[tuple[Gaussians, Tensor]]:
    """Each scene with the frames of a path that show it."""
    here, there = ([len(path) for path in paths] for paths in (cameras, latents.cameras))
    if here != there:
        raise ValueError(
            f"camera paths of {here} frames and latents of {there} do not belong together; connect the cameras that "
            "Reconstruct Splats made of these latents"
        )
    if not latents.dynamic:
        if len(splats) != 1:
            raise ValueError(f"{len(splats)} scenes and the latents of a still one; choose one with Select Bullet Time")
        return [(splats[0], torch.arange(0, here[0], every))]
    if times is None:
        raise ValueError("these latents show a moving scene; the bullet times of the splats are needed too")
    if len(times) != len(splats) or max(times) >= here[0]:
        raise ValueError(f"{len(splats)} scenes do not fit bullet times {list(times)} of clips of {here[0]} frames")
    return [(scene, torch.tensor([time])) for scene, time in zip(splats, times, strict=True)]

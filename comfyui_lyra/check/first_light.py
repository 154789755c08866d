"""Models at their first use: invariants that right weights fulfil, and wrong ones or broken conventions do not.

Nothing is compared with stored results of a model, so that it also works for files that nobody here has run. The scene
is a procedural one whose pictures along any path are known. See ``bounds`` for what each number is measured by.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..callbacks import OnStep, no_progress
from ..configs import COMPRESSION
from ..gen3c.generate import GenerateSettings, generate, share
from ..gen3c.load import Teacher
from ..gen3c.sampler import Conditions, compose_warp_latents, denoised, initial_noise, network_output, replace_first
from ..gen3c.text import zero_text
from ..latents import MultiViewLatents, VideoLatents
from ..quality.scores import BEST, psnr
from ..recon.inputs import EncodeCache
from ..recon.model import Recon
from ..recon.reconstruct import reconstruct
from ..recon.schedule import DEFAULT, Schedule
from ..splats.render import RenderSettings, render
from ..tokenizer.clips import decode_clip, encode_clip
from ..tokenizer.model import CosmosTokenizer
from .bounds import Bounds
from .report import Finding
from .scene import Stage, as_frames, as_video

SETTINGS = GenerateSettings(steps=8, guidance=0.0, solver="dpmpp_2m")  # of the clip from a standing camera
EVERY = 2  # paths that splats are drawn along: each costs a second on a CPU
POINTS_SIGMA = 20.0  # where the state tells next to nothing of the clip
STEPS_TOKENIZER = 2
STEPS_TEACHER = 3 + SETTINGS.steps

Step = Callable[[], None]


def at_least(name: str, found: float, least: float, unit: str = "dB") -> Finding:
    """A number that must not be small."""
    return Finding(name=name, found=f"{found:.1f} {unit}", works=found >= least, wanted=f"at least {least:g} {unit}")


def at_most(name: str, found: float, most: float) -> Finding:
    """A number that must not be large."""
    return Finding(name=name, found=f"{found:.3f}", works=found <= most, wanted=f"at most {most:g}")


def nearness(frames: Tensor, truth: Tensor) -> float:
    """Mean PSNR in dB of frames [F, H, W, 3]."""
    return float(psnr(frames.float(), truth.float().clamp(0, 1)).clamp_max(BEST).mean())


@torch.inference_mode()
def tokenizer_checks(tokenizer: CosmosTokenizer, stage: Stage, bounds: Bounds, step: Step) -> Iterator[Finding]:
    """A clip of the shipped picture's scene there and back, and what its latents look like."""
    frames = stage.film(stage.paths[0])
    latents = encode_clip(tokenizer, as_video(frames))
    step()
    low, high = bounds.deviation
    spread = float(latents.std())
    yield Finding(
        name="tokenizer: latent statistics", found=f"deviation {spread:.3g}", works=low <= spread <= high,
        wanted=f"{low:g} to {high:g}; 0.5 by their definition",
    )  # fmt: skip
    back = as_frames(decode_clip(tokenizer, latents[0]))
    yield at_least("tokenizer: there and back", nearness(back, frames), bounds.round_trip)
    step()


@torch.inference_mode()
def teacher_checks(
    teacher: Teacher, tokenizer: CosmosTokenizer, stage: Stage, bounds: Bounds, step: Step, alive: OnStep = no_progress
) -> Iterator[Finding]:
    """Noise taken off a known clip at three levels, and a clip from a camera that stands still."""
    known = Filmed.along(teacher, tokenizer, stage)
    for sigma, most in bounds.denoised.items():
        error, noise = known.error(teacher, sigma, alive), known.noise[:, :, 1:]
        yield at_most(f"teacher: noise {sigma:g} is taken off", float(error.norm() / (sigma * noise.norm())), most)
        step()
    error = known.error(teacher, POINTS_SIGMA, alive)
    share_left = float(error.norm() / known.x0[:, :, 1:].norm())
    yield at_most("teacher: the warped points are followed", share_left, bounds.points)
    step()
    scene = generate(
        teacher, tokenizer, stage.geometry, (stage.standing(),), settings=SETTINGS,
        device=stage.device, on_step=lambda *_: step(), on_block=alive,
    )  # fmt: skip
    frames = as_frames(decode_clip(tokenizer, scene.latents.values[0].to(stage.device)))
    truth = stage.geometry.frames.to(frames).expand_as(frames)
    yield at_least("teacher: a standing camera shows the picture", nearness(frames, truth), bounds.standing)


@dataclass(frozen=True, eq=False, kw_only=True)
class Filmed:
    """The first path's true clip in the teacher's space, and what the teacher is shown of it."""

    x0: Tensor  # [1, 16, T, h, w] diffusion space
    noise: Tensor  # [1, 16, T, h, w] unit
    first_noise: Tensor  # [1, 16, 1, h, w] unit
    conditions: Conditions

    @classmethod
    def along(cls, teacher: Teacher, tokenizer: CosmosTokenizer, stage: Stage) -> "Filmed":
        """Filmed, encoded and warped as ``generate`` does it."""
        config, path = teacher.config, stage.paths[0]
        noise = initial_noise((1, *config.latent_shape), SETTINGS.seed)
        shared = share(tokenizer, stage.geometry.to(stage.device), zero_text(config), noise, SETTINGS)
        drawn = shared.cache.render(path)
        warps = compose_warp_latents(partial(encode_clip, tokenizer), drawn.pixels[None], drawn.masks[None])
        return cls(
            x0=encode_clip(tokenizer, as_video(stage.film(path))),
            noise=shared.noise,
            first_noise=shared.condition_noise[:, :, :1].float(),
            conditions=Conditions(first=shared.first, warps=warps, text=shared.text, negative=shared.negative),
        )

    def error(self, teacher: Teacher, sigma: float, alive: OnStep) -> Tensor:
        """D(x0 + sigma e) - x0 of all frames but the given first, [1, 16, T - 1, h, w]."""
        first = self.conditions.first.float()
        network = partial(teacher.network, fps=teacher.config.fps, on_block=alive)
        x = replace_first(self.x0 + sigma * self.noise, first, self.first_noise, sigma)
        output = network_output(network, x, sigma, self.conditions, 0.0, teacher.dtype)
        return (denoised(x, output, first, sigma) - self.x0)[:, :, 1:]


def steps_recon(compare: bool) -> int:
    """How often ``recon_checks`` counts: each of the six paths, the splats, the plain kernels."""
    return 7 + compare


@torch.inference_mode()
def recon_checks(
    recon: Recon,
    tokenizer: CosmosTokenizer,
    stage: Stage,
    bounds: Bounds,
    step: Step,
    *,
    schedule: Schedule = DEFAULT,
    compare: bool = False,
    alive: OnStep = no_progress,
) -> Iterator[Finding]:
    """Splats of the true clips drawn into their own cameras; with ``compare`` also by plain torch alone."""
    scene, truth = encoded_scene(tokenizer, stage, step)
    cache = EncodeCache()
    draw = partial(drawn_back, recon, tokenizer, scene, cache=cache, alive=alive)
    frames = draw(schedule)
    near = [nearness(*pair) for pair in zip(frames[:, None], truth[:, None], strict=True)]
    worst = stage.paths[::EVERY][min(range(len(near)), key=near.__getitem__)].name
    found = at_least("splat decoder: splats at their own cameras", sum(near) / len(near), bounds.splats)
    yield replace(found, found=f"{found.found}, worst path '{worst}' {min(near):.1f} dB")
    step()
    if compare:
        plain = draw(replace(schedule, scan="torch", conv="torch", attention="torch"), RenderSettings(backend="torch"))
        yield at_least("plain against fast kernels", nearness(frames, plain), bounds.kernels)
        step()


def moment_of(frames: int) -> int:
    """A frame in the middle of a clip that ends a latent frame's span."""
    return COMPRESSION * ((frames - 1) // COMPRESSION // 2)


def encoded_scene(tokenizer: CosmosTokenizer, stage: Stage, step: Step) -> tuple[MultiViewLatents, Tensor]:
    """Latents of the true clips along all paths, on the CPU, and decoded frames [n, H, W, 3] of those drawn."""
    latents, decoded = [], []
    moment = moment_of(len(stage.paths[0]))
    for path in stage.paths:
        latents.append(encode_clip(tokenizer, as_video(stage.film(path))))
        if len(latents) % EVERY == 1:
            until = latents[-1][0, :, : moment // COMPRESSION + 1]  # causal: what follows changes nothing
            decoded.append(as_frames(decode_clip(tokenizer, until))[-1].cpu())
        latents[-1] = latents[-1].cpu()
        step()
    values = VideoLatents(values=torch.cat(latents))
    scene = MultiViewLatents(latents=values, cameras=stage.paths, family=tokenizer.family)
    return scene, torch.stack(decoded)


def drawn_back(
    recon: Recon,
    tokenizer: CosmosTokenizer,
    scene: MultiViewLatents,
    schedule: Schedule,
    settings: RenderSettings = RenderSettings(),  # noqa: B008  (frozen)
    *,
    cache: EncodeCache,
    alive: OnStep,
) -> Tensor:
    """Splats of the middle moment, drawn into some paths' cameras of that moment: [n, H, W, 3] on the CPU."""
    moment = moment_of(len(scene.cameras[0]))
    splats, cameras = reconstruct(
        recon, tokenizer, scene, (moment,), schedule=schedule, cache=cache, on_step=alive
    )  # fmt: skip
    (now,), device = splats.frames, splats.frames[0].means.device
    seen = [render(now, path[moment : moment + 1].to(device), settings).rgb for path in cameras[::EVERY]]
    return torch.cat(seen).cpu()

"""GEN3C's sampler: EDM steps whose first latent frame is replaced by the condition picture's (teacher.md 8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..callbacks import OnStep, no_progress
from ..configs import BUFFERS, CHANNELS
from ..latents import SIGMA_DATA
from ..shapes import check_shapes

SIGMA_MAX, SIGMA_MIN, RHO = 80.0, 0.0002, 7.0
CONDITION_SIGMA = 0.001  # noise on the condition frame; from this noise level down, the frame is left to the network

Solver = Literal["euler", "dpmpp_2m"]  # the latter is of second order, for fewer steps
SOLVERS = get_args(Solver)
Branch = Literal["cond", "uncond"]  # of guidance
Network = Callable[[Tensor, Tensor, Tensor, Branch], Tensor]
"""(c_in * state and conditions [B, 81, T, h, w], c_noise [B], text [B, M, D], branch) -> F [B, 16, T, h, w]."""
Pair = Callable[..., Sequence[Tensor]]
"""(shape, one or two functions that make a tensor of it, float32) -> those tensors; see ``team``."""


def check_solver(solver: str) -> None:
    """ValueError unless it is one of SOLVERS."""
    if solver not in SOLVERS:
        raise ValueError(f"solver '{solver}' is neither {' nor '.join(map(repr, SOLVERS))}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Conditions:
    """What steers a clip besides noise. Latents are in diffusion space."""

    first: Tensor  # [B, 16, 1, h, w] latent of the condition picture
    warps: Tensor  # [B, 64, T, h, w] of compose_warp_latents
    text: Tensor  # [B, M, D]
    negative: Tensor  # [B, N, D], for the branch without warps; M or N may be 0, for no text

    def __post_init__(self) -> None:
        check_shapes(
            self,
            first=f"B {CHANNELS} 1 h w",
            warps=f"B {BUFFERS * 2 * CHANNELS} T h w",
            text="B M D",
            negative="B N D",
        )


def karras_sigmas(steps: int) -> Tensor:
    """Noise levels [steps + 1] float64 from 80 to 0.0002, then 0."""
    if steps < 2:
        raise ValueError(f"steps is {steps}; the noise schedule needs at least 2 (35 is the reference's)")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return torch.cat((((high + ramp * (low - high)) ** RHO), ramp.new_zeros(1)))


def initial_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Unit noise for the state, the same on every device; use one for all paths of a scene."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def condition_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Unit noise for the condition frame, of numpy's old generator as in the reference; ``shape`` is the clip's."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def compose_warp_latents(encode: Callable[[Tensor], Tensor], images: Tensor, masks: Tensor) -> Tensor:
    """Condition channels [B, 64, T, h, w] of N <= 2 rendered cache buffers (teacher.md 7.2).

    ``encode`` maps a video [B, 3, F, H, W] in [-1, 1] to diffusion space; ``images`` [B, F, N, 3, H, W] in [-1, 1],
    ``masks`` [B, F, N, 1, H, W] in [0, 1]. Per buffer: its frames, then its mask; a buffer there is none of is zeros.
    """
    if not 1 <= images.shape[2] <= BUFFERS:
        raise ValueError(f"rendered cache: {images.shape[2]} buffers; the teacher takes 1 to {BUFFERS}")
    latents = []
    for image, mask in zip(images.unbind(2), masks.unbind(2), strict=True):
        latents.append(encode(image.transpose(1, 2)))
        latents.append(encode((2 * mask - 1).expand_as(image).transpose(1, 2)))
    latents += [torch.zeros_like(latents[0])] * (2 * BUFFERS - len(latents))
    return torch.cat(latents, dim=1)


def replace_first(x: Tensor, first: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """State [B, 16, T, h, w] whose frame 0 is the condition latent, noised a little and scaled to ``sigma``."""
    if sigma <= CONDITION_SIGMA:
        return x
    spread = (CONDITION_SIGMA**2 + SIGMA_DATA**2) ** 0.5
    x = x.clone()
    x[:, :, :1] = (first + CONDITION_SIGMA * noise) / spread * (sigma**2 + SIGMA_DATA**2) ** 0.5
    return x


def one_after_other(shape: torch.Size, *branches: Callable[[], Tensor]) -> list[Tensor]:
    """What the branches of guidance give, computed here."""
    return [branch() for branch in branches]


def network_output(
    network: Network,
    x: Tensor,
    sigma: float,
    conditions: Conditions,
    guidance: float,
    dtype: torch.dtype,
    pair: Pair = one_after_other,
) -> Tensor:
    """Guided F = Fc + guidance (Fc - Fu), float32; the unconditional branch sees no warps.

    So guidance 1 is what others call a scale of 2; 0 spares the second evaluation.
    """
    mask = torch.zeros_like(x[:, :1])
    mask[:, :, 0] = 1
    scaled = x / (sigma**2 + SIGMA_DATA**2) ** 0.5
    c_noise = x.new_full((len(x),), sigma).log() / 4

    def evaluate(warps: Tensor, text: Tensor, branch: Branch) -> Tensor:
        return network(torch.cat((scaled, mask, warps), dim=1).to(dtype), c_noise, text.to(dtype), branch).float()

    branches = [lambda: evaluate(conditions.warps, conditions.text, "cond")]
    if guidance:
        branches.append(lambda: evaluate(torch.zeros_like(conditions.warps), conditions.negative, "uncond"))
    outputs = [output.to(x.device) for output in pair(x.shape, *branches)]
    return outputs[0] + guidance * (outputs[0] - outputs[1]) if guidance else outputs[0]


def denoised(x: Tensor, output: Tensor, first: Tensor, sigma: float) -> Tensor:
    """The clip x0 [B, 16, T, h, w] = c_skip x + c_out F, with the condition latent as its frame 0."""
    variance = sigma**2 + SIGMA_DATA**2
    x0 = SIGMA_DATA**2 / variance * x + sigma * SIGMA_DATA / variance**0.5 * output
    if sigma > CONDITION_SIGMA:
        x0[:, :, :1] = first
    return x0


def extrapolated(x0: Tensor, earlier: Tensor, sigmas: list[float]) -> Tensor:
    """x0 at the middle of a step, from that at its start and at the previous one's: DPM-Solver++ 2M.

    ``sigmas`` are those of the previous, this and the next state; linear in -ln(sigma).
    """
    previous, now, following = np.log(sigmas)
    return x0 + (now - following) / (2 * (previous - now)) * (x0 - earlier)


@torch.inference_mode()
def sample(
    network: Network,
    conditions: Conditions,
    noise: Tensor,
    condition_noise: Tensor,
    *,
    steps: int = 35,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] = (0.0, float("inf")),
    solver: Solver = "euler",
    dtype: torch.dtype = torch.float32,
    late: tuple[float, Network] | None = None,
    pair: Pair = one_after_other,
    on_step: OnStep = no_progress,
    on_x0: Callable[[Tensor], None] = lambda x0: None,
) -> Tensor:
    """Latents [B, 16, T, h, w] in diffusion space, float32, from unit ``noise`` and ``condition_noise`` of that shape.

    The state stays in float32, ``dtype`` is that of what the network is shown. ``dpmpp_2m`` is of second order at the
    same price a step. Noise levels outside ``guidance_range`` are not guided. ``late`` is a noise level and the network
    that takes over below it. ``pair`` computes the branches of guidance. ``on_x0`` gets the clip as it looks at each
    step, before ``on_step``; both may raise.
    """
    check_solver(solver)
    expected = (*conditions.warps.shape[:1], CHANNELS, *conditions.warps.shape[2:])
    for name, tensor in (("noise", noise), ("condition noise", condition_noise)):
        if tensor.shape != expected:
            raise ValueError(f"{name}: expected {expected} to fit the warp latents, got {tuple(tensor.shape)}")
    sigmas = karras_sigmas(steps).tolist()
    first, first_noise = conditions.first.float(), condition_noise[:, :, :1].float()
    x, earlier = noise.float() * (SIGMA_MAX**2 + 1) ** 0.5, None
    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        x = replace_first(x, first, first_noise, sigma)
        current = late[1] if late and sigma < late[0] else network
        strength = guidance if guidance_range[0] <= sigma <= guidance_range[1] else 0.0
        x0 = denoised(x, network_output(current, x, sigma, conditions, strength, dtype, pair), first, sigma)
        target = x0
        if solver == "dpmpp_2m" and earlier is not None and following > 0:
            target = extrapolated(x0, earlier, sigmas[i - 1 : i + 2])
        x, earlier = x + (x - target) / sigma * (following - sigma), x0
        on_x0(x0)
        on_step(i + 1, steps)
    return x

"""Training the mini teacher on procedural scenes: GEN3C's network, as its sampler will use it (training.md 13.4)."""

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..configs import CHANNELS, TEACHER_PRESETS, TeacherConfig, told
from ..gen3c.load import Teacher, load_teacher, save_teacher
from ..gen3c.sampler import CONDITION_SIGMA, SIGMA_MAX, Conditions, condition_noise, initial_noise, sample
from ..gen3c.text import zero_text
from ..latents import SIGMA_DATA
from ..quality.scores import compare, sharpness
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..versions import RESULTS
from .data.clips import plain_attention, to_frames, to_latents, to_video
from .run.loop import Rows, Run
from .run.optimizer import OptimConfig
from .run.processes import Processes
from .world.draw_scenes import LENGTHS, SPLITS
from .world.filming import Filmed, film, film_mix, warped

if TYPE_CHECKING:
    from ..gen3c.dit import GEN3C

log = logging.getLogger("lyra")

LICENCE = "Apache-2.0"
DATA_SHARE = 0.45  # most of the time that making data may take
RESERVE = 30.0  # seconds kept for sampling and files
LOG_SIGMA = (-0.4, 1.4)  # mean and deviation of ln(sigma)
EVEN_SHARE = 0.2  # of the noise levels, drawn evenly in ln(sigma): the sampler visits them all
LEAST_SIGMA = 0.002


@dataclass(frozen=True, kw_only=True)
class TeacherTraining:
    """How the teacher is trained; the defaults are those of the shipped one."""

    seed: int = 0
    steps: int | None = told(None, "in all; by default as many as the time allows")
    scenes: int = told(2400, "how many to learn from")  # of the split "pretraining", six clips each
    validation: int = 8  # scenes, half of them on the longer paths
    batch: int = 128
    without_warps: float = 0.1  # share of the clips whose warps are hidden, for guidance
    lr: float = told(1e-3, "highest learning rate")
    warmup: int = 200
    sampling_steps: int = 16  # of validation


@dataclass(frozen=True, eq=False, kw_only=True)
class TeacherData:
    """Latents in diffusion space of N clips."""

    clips: Tensor  # [N, 16, T, h, w] float16, what the teacher is to make
    warps: Tensor  # [N, 32, T, h, w] float16, of what the 3D cache shows and of its mask


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOut:
    """Clips of unseen scenes."""

    latents: TeacherData
    truth: Tensor  # [N, F, H, W, 3] bytes
    visible: Tensor  # [N, F, H, W] bool


def train_teacher(
    out: Path | str,
    tokenizer: Path | str,
    *,
    init_from: Path | str | None = None,
    config: TeacherConfig = TEACHER_PRESETS["mini"],
    training: TeacherTraining = TeacherTraining(),  # noqa: B008  (frozen)
    max_seconds: float | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
) -> Path:
    """Train, or go on in folder ``out``, and write ``mini_teacher.safetensors`` there; its path is returned.

    ``tokenizer`` is the trained tokenizer's file, ``init_from`` a teacher's whose weights, and config, it begins with.
    ``max_seconds`` includes making the data. Checkpoints, log and pictures go to the same folder.
    """
    if training.validation < 1:
        raise ValueError(f"a teacher is validated on {training.validation} scenes; at least 1 is needed")
    begun = None
    if init_from is None:
        network = initial_teacher(config, training.seed)
    else:
        begun = load_teacher(Path(init_from), dtype=torch.float32)
        network, config = begun.network.train().requires_grad_(True), begun.config
    device = Processes(device).device
    frozen = load_tokenizer(Path(tokenizer)).float().to(device)
    about = {
        "teacher": asdict(config), "training": asdict(training), "tokenizer": frozen.identity,
        "init_from": begun and begun.fingerprint, "results": RESULTS,
    }  # fmt: skip
    optim = OptimConfig(
        lr=training.lr, final_lr=training.lr / 50, warmup=training.warmup, betas=(0.9, 0.99),
        steps=max(training.steps or 1_000_000, training.warmup + 1),
    )  # fmt: skip
    run = Run(
        network, optim, out, stage="teacher", config=about, seed=training.seed,
        device=device, steps=training.steps, max_seconds=max_seconds, reserve=RESERVE, resume=resume,
    )  # fmt: skip
    file = run.out / "mini_teacher.safetensors"
    with run, plain_attention():
        data, held_out = make_data(frozen, config, training, run)
        text = zero_text(config).prompt.to(run.device)
        score = partial(validate, tokenizer=frozen, config=config, held_out=held_out, training=training)
        run.train(
            lambda network, *drawn: losses(network, *drawn, text, config.fps),
            score,
            lambda: draw_batch(data, training, run),
        )
        run.save()
        if run.is_first:
            made = run.averaged().half()
            save_teacher(
                Teacher(network=made, config=config, fingerprint="", dtype=torch.float16, licence=LICENCE), file
            )
            network = load_teacher(file, dtype=torch.float32).network.to(run.device)
            run.check(score, network=network)
            guided = {f"guided_{name}": value for name, value in score(network, guidance=1.0)[0].items()}
            run.metrics |= guided
            run.say(guided)
            run.report(clips=len(data.clips))
    return file


def initial_teacher(config: TeacherConfig, seed: int) -> "GEN3C":
    """The network with random weights, at first without effect: gates and output are zero.

    The learned positions may not be: they are divided by their own length.
    """
    from ..gen3c.dit import GEN3C

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GEN3C(config)
        positions = network.learnable_pos_embed
        for table in (positions.pos_emb_t, positions.pos_emb_h, positions.pos_emb_w):
            nn.init.normal_(table, std=0.5)
    modulations = [norm for block in network.transformer_blocks for norm in (block.norm1, block.norm2, block.norm3)]
    for layer in (
        *(norm.linear_2 for norm in modulations),
        network.norm_out.linear_2,
        network.time_embed.t_embedder.linear_2,
        network.proj_out,
    ):
        nn.init.zeros_(layer.weight)
    return network


def make_data(
    tokenizer: CosmosTokenizer, config: TeacherConfig, training: TeacherTraining, run: Run
) -> tuple[TeacherData, HeldOut]:
    """Film scenes and their caches, keep the latents; pictures are kept of the held-out scenes only."""
    shape = {"size": config.trained_size, "frames": config.trained_frames, "device": run.device}
    half = training.validation // 2
    films = [
        film(list(seeds), lengths=lengths, **shape)
        for lengths, seeds in zip(
            LENGTHS, (SPLITS["validation"][:half], SPLITS["validation"][half : training.validation]), strict=True
        )
        if seeds  # one scene alone goes along the longer paths
    ]
    held_out = HeldOut(
        latents=join(encode(tokenizer, filmed) for filmed in films),
        truth=torch.cat([filmed.rgb.flatten(0, 1) for filmed in films]),
        visible=torch.cat([filmed.visible().flatten(0, 1) for filmed in films]),
    )
    seeds = run.processes.own(SPLITS["pretraining"][: training.scenes])
    parts = run.gather(film_mix(seeds, **shape), DATA_SHARE)
    data = join(encode(tokenizer, filmed) for filmed in parts)
    log.info("teacher: %d clips to learn from, %d held out", len(data.clips), len(held_out.truth))
    return data, held_out


def encode(tokenizer: CosmosTokenizer, filmed: Filmed) -> TeacherData:
    """Latents of the paths of some scenes, and of what their caches show."""
    pixels, drawn = warped(filmed)
    masks = (2 * drawn.float() - 1)[:, None].expand(-1, 3, -1, -1, -1)
    clips, shown, mask = (
        to_latents(tokenizer, video) for video in (to_video(filmed.rgb.flatten(0, 1)), to_video(pixels), masks)
    )
    return TeacherData(clips=clips.half(), warps=torch.cat((shown, mask), dim=1).half())


def join(parts: Iterator[TeacherData]) -> TeacherData:
    """Several sets as one."""
    pairs = [(part.clips, part.warps) for part in parts]
    clips, warps = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
    return TeacherData(clips=clips, warps=warps)


def draw_batch(data: TeacherData, training: TeacherTraining, run: Run) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clips [B, 16, T, h, w], their warps [B, 64, T, h, w], noise levels [B] and noise like the clips.

    The second buffer of the warps is empty, and some are hidden (zeros).
    """
    draw = partial(torch.rand, (training.batch,), generator=run.generator(), device=run.device)
    rows = (draw() * len(data.clips)).long()
    warps = data.warps[rows].float() * (draw() >= training.without_warps)[:, None, None, None, None]
    clips = data.clips[rows].float()
    sigma = draw_sigmas(len(clips), run.generator(), run.device)
    noise = torch.randn(clips.shape, generator=run.generator(), device=run.device)
    return clips, torch.cat((warps, torch.zeros_like(warps)), dim=1), sigma, noise


def draw_sigmas(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Noise levels [count]: log-normal, and some evenly over all that the sampler visits."""
    mean, deviation = LOG_SIGMA
    normal = mean + deviation * torch.randn(count, generator=generator, device=device)
    low, high = math.log(LEAST_SIGMA), math.log(SIGMA_MAX)
    even = low + (high - low) * torch.rand(count, generator=generator, device=device)
    is_even = torch.rand(count, generator=generator, device=device) < EVEN_SHARE
    return torch.where(is_even, even, normal.clamp(low, high)).exp()


def losses(
    network: nn.Module, clips: Tensor, warps: Tensor, sigma: Tensor, noise: Tensor, text: Tensor, fps: float
) -> dict[str, Tensor]:
    """Squared error of the network's output F at noise levels ``sigma`` [B], on the frames that are not given.

    The network is shown what ``sample`` shows it: the noised clip with the condition picture's latent, hardly noised,
    for its first frame.
    """
    sigma = sigma[:, None, None, None, None]
    spread = (sigma**2 + SIGMA_DATA**2).sqrt()
    scaled = (clips + sigma * noise) / spread
    given = (clips[:, :, :1] + CONDITION_SIGMA * noise[:, :, :1]) / (CONDITION_SIGMA**2 + SIGMA_DATA**2) ** 0.5
    mask = torch.zeros_like(clips[:, :1])
    mask[:, :, 0] = 1
    shown = torch.cat((given, scaled[:, :, 1:]), dim=2)
    dtype = network.proj_out.weight.dtype
    output = network(
        torch.cat((shown, mask, warps), dim=1).to(dtype),
        sigma.flatten().log() / 4,
        text.to(dtype).expand(len(clips), -1, -1),
        fps=fps,
    ).float()
    # F that makes c_skip x + c_out F the clip
    wanted = (clips - SIGMA_DATA**2 / spread * scaled) * spread / (sigma * SIGMA_DATA)
    error = (output - wanted)[:, :, 1:].square()
    each = error.mean((1, 2, 3, 4))
    noisy = (sigma.flatten() > 1).float()
    return {
        "loss": error.mean(),
        "noisy": (each * noisy).sum() / noisy.sum().clamp(min=1),
        "clean": (each * (1 - noisy)).sum() / (1 - noisy).sum().clamp(min=1),
    }


def generated(
    network: nn.Module, config: TeacherConfig, latents: TeacherData, steps: int, guidance: float, seed: int = 1
) -> Tensor:
    """Clips [N, 16, T, h, w] that the sampler makes from the first frames and warps of others, all of one noise."""
    warps, count = latents.warps.float(), len(latents.clips)
    shape, text = (1, *latents.clips.shape[1:]), zero_text(config).prompt.to(warps.device)
    conditions = Conditions(
        first=latents.clips[:, :, :1].float(),
        warps=torch.cat((warps, torch.zeros_like(warps)), dim=1),
        text=text.expand(count, -1, -1),
        negative=text.expand(count, -1, -1),
    )
    noise, first_noise = (
        drawn(shape, seed).to(warps.device).expand(count, -1, -1, -1, -1) for drawn in (initial_noise, condition_noise)
    )
    return sample(
        partial(network, fps=config.fps), conditions, noise, first_noise, steps=steps, guidance=guidance,
        solver="dpmpp_2m", dtype=network.proj_out.weight.dtype,
    )  # fmt: skip


def validate(
    network: nn.Module,
    *,
    tokenizer: CosmosTokenizer,
    config: TeacherConfig,
    held_out: HeldOut,
    training: TeacherTraining,
    guidance: float = 0.0,
) -> tuple[dict[str, float], Rows]:
    """PSNR and SSIM against the truth, in visible pixels and holes, share of the sharpness; and pictures."""
    latents = generated(network, config, held_out.latents, training.sampling_steps, guidance)
    frames = to_frames(tokenizer, latents).flatten(0, 1)
    truth = held_out.truth.flatten(0, 1).float() / 255
    scores = compare(frames, truth, held_out.visible.flatten(0, 1))
    found = {name: values[values.isfinite()].mean().item() for name, values in scores.items()}
    found["sharpness"] = (sharpness(frames).mean() / sharpness(truth).mean()).item()
    return found, pictured(tokenizer, held_out, frames.unflatten(0, held_out.truth.shape[:2]))


def pictured(tokenizer: CosmosTokenizer, held_out: HeldOut, frames: Tensor) -> Rows:
    """Rows of a contact sheet: some held-out clips, what the teacher is shown, and what it makes."""
    rows = []
    for i in range(0, len(frames), max(1, len(frames) // 5)):
        shown = to_frames(tokenizer, held_out.latents.warps[i : i + 1, :CHANNELS].float())[0]
        rows += [("scene", held_out.truth[i].float() / 255), ("cache", shown), ("teacher", frames[i])]
    return rows

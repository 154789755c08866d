"""Training the mini video tokenizer on procedural scenes, and on all else that goes through it (training.md 13.4).

Besides renders it sees what the 3D cache draws, with its black holes, masks, Pluecker coordinates and times: teacher
and splat decoder are shown all of them through the same encoder.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cameras.path import CameraTrajectory
from ..cameras.rays import plucker
from ..configs import CHANNELS, COMPRESSION, TOKENIZER_PRESETS, TokenizerConfig, told
from ..quality.scores import psnr, sharpness, ssim
from ..recon.inputs import relative_times, time_video
from ..tokenizer.model import CosmosTokenizer, build_autoencoder, load_tokenizer, save_tokenizer
from ..versions import RESULTS
from .data.clips import decode_clips, encode_clips, plain_attention, to_video
from .run.loop import Rows, Run
from .run.optimizer import OptimConfig
from .world.draw_scenes import SPLITS
from .world.filming import film, film_mix, warped

log = logging.getLogger("lyra")

LICENCE = "Apache-2.0"
SQUARED, GRADIENT, SMALL_LATENTS = 3.0, 0.25, 1e-3  # weights of the terms beside L1
DATA_SHARE = 0.4  # most of the time that making data may take
RESERVE = 15.0  # seconds kept for statistics and files
STATISTICS = 1024  # clips, about, that the statistics of the latents come from
AT_ONCE = 16  # scenes, or clips without gradients
PICTURED = 4  # clips that validation shows


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """How the tokenizer is trained; the defaults are those of the shipped one."""

    seed: int = 0
    steps: int | None = told(None, "in all; by default as many as the time allows")
    size: tuple[int, int] = (96, 160)
    frames: int = 17
    scenes: int = told(2400, "how many to learn from")  # of the split "pretraining", six clips each
    others: int = 64  # scenes whose warps, masks and cameras are shown too
    validation: int = 16  # clips
    renders_a_step: int = 25  # of each process
    warps_a_step: int = 3
    others_a_step: int = 4  # one in eight
    latent_noise: float = 0.05  # of each channel's deviation
    lr: float = told(2e-3, "highest learning rate")
    warmup: int = 200


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenizerData:
    """Clips that the tokenizer learns from, where it learns."""

    renders: Tensor  # [N, F, H, W, 3] bytes
    warps: Tensor  # [M, F, H, W, 3] bytes
    others: Tensor  # [O, 3, F, H, W] float16, any values
    held_out: Tensor  # [K, F, H, W, 3] bytes, of other scenes
    held_out_others: Tensor  # [2, 3, F, H, W] moments and directions


def train_tokenizer(
    out: Path | str,
    *,
    init_from: Path | str | None = None,
    config: TokenizerConfig = TOKENIZER_PRESETS["mini"],
    training: TokenizerTraining = TokenizerTraining(),  # noqa: B008  (frozen)
    max_seconds: float | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
) -> Path:
    """Train, or go on in folder ``out``, and write ``mini_tokenizer.safetensors`` there; its path is returned.

    ``init_from`` is a tokenizer's file whose weights, and config, it begins with. ``max_seconds`` includes making the
    data. Checkpoints, log and pictures go to the same folder.
    """
    if training.validation < 1:
        raise ValueError(f"a tokenizer is validated on {training.validation} clips; at least 1 is needed")
    begun = None
    if init_from is None:
        autoencoder = initial_autoencoder(config, training.seed)
    else:
        begun = load_tokenizer(Path(init_from)).float()
        autoencoder, config = begun.autoencoder.train().requires_grad_(True), begun.config
    about = {
        "tokenizer": asdict(config), "training": asdict(training), "init_from": begun and begun.identity,
        "results": RESULTS,
    }  # fmt: skip
    optim = OptimConfig(
        lr=training.lr, final_lr=training.lr / 50, warmup=training.warmup, betas=(0.9, 0.99),
        steps=max(training.steps or 1_000_000, training.warmup + 1),
    )  # fmt: skip
    run = Run(
        autoencoder, optim, out, stage="tokenizer", config=about, seed=training.seed,
        device=device, steps=training.steps, max_seconds=max_seconds, reserve=RESERVE, resume=resume,
    )  # fmt: skip
    file = run.out / "mini_tokenizer.safetensors"
    with run, plain_attention():
        data = make_data(training, run)
        run.train(losses, lambda network: validate(network, data), lambda: draw_batch(data, training, run))
        run.save()
        if run.is_first:
            ship(run.averaged(), config, data.renders[:: max(1, len(data.renders) // STATISTICS)], file)
            tokenizer = load_tokenizer(file).float().to(run.device)
            run.check(lambda network: validate(network, data), network=tokenizer.autoencoder)
            run.report(renders=len(data.renders), mean=tokenizer.mean.tolist(), std=tokenizer.std.tolist())
    return file


def initial_autoencoder(config: TokenizerConfig, seed: int) -> nn.Module:
    """The network with random weights, almost linear at first: residual branches and attention add nothing yet.

    All wavelet bands count alike on the way in, although the details are weaker than the mean, and stay weak on the
    way out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = build_autoencoder(config)
        for name, layer in autoencoder.named_modules():
            if isinstance(layer, nn.Conv3d):
                is_branch_end = name.endswith(("conv2.conv_t", "to_out.0"))
                nn.init.normal_(layer.weight, std=0.0 if is_branch_end else layer.weight[0].numel() ** -0.5)
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        inward, outward = autoencoder.encoder.conv_in.conv_s.weight, autoencoder.decoder.conv_out.conv_t.weight
        inward[:, :3] *= 2
        inward[:, 3:] *= 8
        outward[:3] *= 0.3
        outward[3:] *= 0.03
    return autoencoder


def make_data(training: TokenizerTraining, run: Run) -> TokenizerData:
    """Film the scenes, on the device of the run."""
    shape = {"size": training.size, "frames": training.frames, "device": run.device}
    seeds, some = (run.processes.own(SPLITS["pretraining"][:count]) for count in (training.scenes, training.others))
    renders = [part.rgb.flatten(0, 1) for part in run.gather(film_mix(seeds, **shape), DATA_SHARE)]
    others = [film(some[i : i + AT_ONCE], **shape) for i in range(0, len(some), AT_ONCE)]
    drawn = [warped(part) for part in others]
    masks = torch.cat([mask for _, mask in drawn])
    held_out = film(SPLITS["validation"][: training.validation], **shape)
    views = held_out.rgb.shape[1]
    log.info("tokenizer: %d clips of renders, %d warps", sum(map(len, renders)), len(masks))
    return TokenizerData(
        renders=torch.cat(renders),
        warps=torch.cat([pixels for pixels, _ in drawn]),
        others=torch.cat((
            *(torch.stack(camera_videos(path.to(run.device))) for part in others for path in sum(part.paths, ())),
            (2 * masks.half() - 1)[:, None].expand(-1, 3, -1, -1, -1),
            time_videos(training).to(run.device),
        )).half(),
        held_out=torch.stack([held_out.rgb[i, i % views] for i in range(training.validation)]),
        held_out_others=torch.stack(camera_videos(held_out.paths[0][-1].to(run.device))),
    )  # fmt: skip


def camera_videos(path: CameraTrajectory) -> tuple[Tensor, ...]:
    """The Pluecker coordinates of a path as two videos [3, F, H, W], moments and directions."""
    return plucker(path).transpose(0, 1).split(3)


def time_videos(training: TokenizerTraining) -> Tensor:
    """Videos [N, 3, F, H, W] of the times of a clip, and of single times: those the dynamic decoder is shown."""
    times = relative_times(training.frames)
    clips = [times] * 16 + [time.expand(training.frames) for time in times]
    return torch.cat([time_video(clip, *training.size, torch.float16) for clip in clips])


def draw_batch(data: TokenizerData, training: TokenizerTraining, run: Run) -> tuple[Tensor, Tensor]:
    """Clips [B, 3, F, H, W] of all kinds, and noise for their latents.

    Pictures are mirrored and played backwards every other time.
    """

    def some(clips: Tensor, count: int) -> Tensor:
        rows = torch.randint(len(clips), (count,), generator=run.generator(), device=run.device)
        return clips[rows]

    pictures = torch.cat((some(data.renders, training.renders_a_step), some(data.warps, training.warps_a_step)))
    axes = [axis for axis in (1, 3) if run.streams.python.random() < 0.5]
    video = torch.cat((to_video(pictures.flip(axes)), some(data.others, training.others_a_step).float()))
    b, _, f, h, w = video.shape
    shape = b, CHANNELS, 1 + (f - 1) // COMPRESSION, h // COMPRESSION, w // COMPRESSION
    noise = torch.randn(shape, generator=run.generator(), device=run.device)
    return video, training.latent_noise * noise


def losses(network: nn.Module, video: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Absolute and squared error, the error of the picture's gradients, and the size of the latents.

    ``noise`` on the latents, in deviations of each channel, is what their decoder learns to bear.
    """
    raw = encode_clips(network, video)
    spread = raw.detach().float().std((0, 2, 3, 4), keepdim=True)
    error = decode_clips(network, (raw + spread * noise).to(raw.dtype)).float() - video
    terms = {
        "l1": error.abs().mean(),
        "mse": error.square().mean(),
        "gradient": error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean(),
        "latents": raw.float().square().mean(),
    }
    total = terms["l1"] + SQUARED * terms["mse"] + GRADIENT * terms["gradient"] + SMALL_LATENTS * terms["latents"]
    return {"loss": total, **terms}


def validate(network: nn.Module, data: TokenizerData) -> tuple[dict[str, float], Rows]:
    """PSNR, SSIM and share of the sharpness kept on clips of unseen scenes; PSNR of moments and directions.

    And pictures of a few clips, each above what comes back.
    """
    truth = data.held_out.flatten(0, 1).float() / 255
    some = data.held_out.split(AT_ONCE)
    video = torch.cat([decode_clips(network, encode_clips(network, to_video(clips))) for clips in some])
    clips = (video.permute(0, 2, 3, 4, 1) + 1) / 2  # [K, F, H, W, 3]
    frames = clips.flatten(0, 1)
    cameras = decode_clips(network, encode_clips(network, data.held_out_others.float())) - data.held_out_others
    moments, directions = (-10 * (cameras / 2).square().mean((1, 2, 3, 4)).log10()).tolist()
    pairs = zip(data.held_out[:PICTURED].float() / 255, clips[:PICTURED], strict=True)
    rows = [row for scene, decoded in pairs for row in (("scene", scene), ("decoded", decoded))]
    return {
        "psnr": psnr(frames, truth).mean().item(),
        "psnr_worst_frame": psnr(frames, truth).min().item(),
        "ssim": ssim(frames.clamp(0, 1), truth).mean().item(),
        "sharpness": (sharpness(frames.clamp(0, 1)).mean() / sharpness(truth).mean()).item(),
        "psnr_moments": moments,
        "psnr_directions": directions,
    }, rows


@torch.no_grad()
def ship(autoencoder: nn.Module, config: TokenizerConfig, renders: Tensor, file: Path) -> None:
    """Measure the latents of renders [N, F, H, W, 3] (bytes), and write weights and statistics as float16."""
    raw = torch.cat([encode_clips(autoencoder, to_video(clips)) for clips in renders.split(AT_ONCE)])
    mean, std = raw.mean((0, 3, 4)), raw.std((0, 3, 4))  # [C, T]
    save_tokenizer(CosmosTokenizer(config, autoencoder.half(), mean.cpu(), std.cpu()), file, LICENCE)

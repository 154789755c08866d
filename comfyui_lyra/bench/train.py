"""Where the time of a training step of the mini splat decoder goes: its first time and its usual one."""

import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from torch import Tensor

from ..configs import RECON_PRESETS, ReconConfig
from ..quality.tpips import tokenizer_tpips
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..training.data.clips import plain_attention
from ..training.data.recon_batches import Encoder, draw_batch
from ..training.data.sdg_memory import film_scenes
from ..training.data.streams import Streams
from ..training.deferred import render_deferred
from ..training.stages import MINI_STAGES, Stage
from ..training.train_recon import AllSplats, ReconTraining, Trainer, decode, initial_recon
from ..weights.shipped import shipped_model

SCENES, STEPS = 4, 6
VIEWS = (1, 6)


class Stopwatch:
    """Seconds of named parts, each until the device has finished it."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, {}

    def __call__(self, name: str, part: Callable[[], object]) -> object:
        """Run one part and add its time; what it gives is given on."""
        start = time.perf_counter()
        found = part()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return found


@torch.enable_grad()
def rows(
    device: torch.device,
    config: ReconConfig = RECON_PRESETS["mini_static"],
    stage: Stage = MINI_STAGES["m4"],
    tokenizer: CosmosTokenizer | None = None,
) -> Iterator[str]:
    """Lines of a Markdown table: a stage with one view and with six, on filmed scenes and with new weights.

    Without a ``tokenizer``, the shipped one.
    """
    tokenizer = tokenizer or load_tokenizer(shipped_model("tokenizer"))
    tokenizer = tokenizer.float().to(device).requires_grad_(False)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    network = initial_recon(config, 0).to(device, dtype)
    shape = {"size": config.trained_size, "frames": config.trained_frames, "device": device}
    with plain_attention():
        scenes = [scene for part in film_scenes(tokenizer, range(SCENES), **shape) for scene in part]
        trainer = Trainer(ReconTraining(), Encoder(tokenizer, config, device), tokenizer_tpips(tokenizer), network)
        yield f"stage {stage.name}, batch {stage.batch}, {dtype}; seconds, first and median of {STEPS - 1} more"
        yield ""
        yield "| views | part | first | usual |"
        yield "|---|---|---|---|"
        for views in VIEWS:
            watch, streams = Stopwatch(device), Streams(0, device)
            for _ in range(STEPS):
                step(trainer, watch, lambda streams=streams, views=views: draw_batch(scenes, stage, streams, 0, views))
            for name, (first, *more) in watch.seconds.items():
                yield f"| {views} | {name} | {first:.3f} | {median(more):.3f} |"


def step(trainer: Trainer, watch: Stopwatch, draw: Callable[[], list]) -> None:
    """One step in its parts, without the optimiser; all splats are drawn."""
    network = trainer.network
    samples = watch("samples", draw)
    inputs = watch("inputs", lambda: trainer.encoder.inputs(samples, network.enc_norm.weight.dtype))
    call = trainer.replayed if trainer.encoder.device.type == "cuda" else AllSplats(network)
    clouds = watch("network", lambda: decode(call, inputs, 1.0, fusion=True))

    def draw_all() -> Tensor:
        pairs = zip(clouds, samples, strict=True)
        return torch.stack([render_deferred(cloud, sample.target_cameras, at_once=32).rgb for cloud, sample in pairs])

    pictures = watch("rendering", draw_all)
    targets = torch.stack([sample.targets for sample in samples]).to(pictures)
    distance = watch("perceptual term", lambda: trainer.perceptual(pictures, targets, 64).mean())
    (slope,) = watch("perceptual term, backward", lambda: torch.autograd.grad(distance, pictures))
    fields = [getattr(cloud, name) for cloud in clouds for name in ("means", "scales", "quats", "opacities", "colors")]
    grads = watch("rendering, backward", lambda: torch.autograd.grad(pictures, fields, slope))
    watch("network, backward", lambda: torch.autograd.backward(fields, grads))
    network.zero_grad(set_to_none=True)

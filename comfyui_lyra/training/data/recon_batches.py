"""What one step of the splat decoder's training sees: samples drawn from memory or disk, and the network's inputs."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ....kernels_glue.devices import by_device
from ...cameras.path import CameraTrajectory
from ...cameras.rays import plucker
from ...configs import ReconConfig
from ...latents import VideoLatents
from ...recon.inputs import EncodeCache, ReconInputs, splat_rays, time_latents
from ...tokenizer.clips import statistics
from ...tokenizer.model import CosmosTokenizer
from ..stages import Stage
from .clips import AT_ONCE, encode_clips
from .dataset import SdgDataset
from .samples import ClipScene, Sample, make_sample
from .sampling import draw_dynamic, draw_static
from .sdg_memory import join
from .streams import Streams

log = logging.getLogger("lyra")

VALIDATION_SEED = 1

Batches = Callable[[Stage, Streams, int], list[Sample]]  # stage, random numbers, step -> the samples of the step
HeldOut = Callable[[Stage], list[Sample]]  # stage -> samples of scenes that are not learnt from, always the same


def from_memory(scenes: Sequence[ClipScene]) -> Batches:
    """Random scenes out of some in memory; the samples of a step have equally many views, to be one batch."""
    return partial(draw_batch, scenes)


def draw_batch(
    scenes: Sequence[ClipScene], stage: Stage, streams: Streams, step: int = 0, views: int | None = None
) -> list[Sample]:
    """A step's samples of scenes in memory, of so many ``views`` or, as in training, of 1 to the stage's most."""
    paths, frames = scenes[0].paths, scenes[0].frames
    views = views or min(int(streams.numpy.randint(1, stage.max_views + 1)), paths)
    make = draw_dynamic if stage.dynamic else draw_static
    chosen = streams.numpy.randint(len(scenes), size=stage.batch).tolist()
    return [make_sample(stage, scenes[i], make(stage, streams, frames, paths, views)) for i in chosen]


def held_out_of(scenes: Sequence[ClipScene], stage: Stage) -> list[Sample]:
    """A sample of each scene in memory, with as many views as the stage has at most."""
    streams, alike = Streams(VALIDATION_SEED), replace(stage, batch=1)
    drawn = [draw_batch([scene], alike, streams, views=min(stage.max_views, scene.paths)) for scene in scenes]
    return [sample for samples in drawn for sample in samples]


class FromDisk:
    """Samples of generated scenes in folders and tars; a step's are decided by its number and by the process.

    ``state`` is the process's own folder, see SdgDataset.
    """

    def __init__(
        self, roots: Sequence[Path | str], state: Path | str, seed: int, rank: int = 0, count: int = 1, paths: int = 6
    ):
        self.of_split = partial(SdgDataset, roots, state=state, seed=seed, paths=paths)
        self.rank, self.count, self.paths = rank, count, paths  # this process, and how many there are
        self._datasets: dict[str, SdgDataset] = {}

    def dataset(self, stage: Stage) -> SdgDataset:
        """The scenes that a stage learns from."""
        if stage.name not in self._datasets:
            self._datasets[stage.name] = self.of_split(stage)
        return self._datasets[stage.name]

    def __call__(self, stage: Stage, streams: Streams, step: int) -> list[Sample]:
        """The samples of a step."""
        first = (step * self.count + self.rank) * stage.batch
        return [self.dataset(stage).sample(first + i) for i in range(stage.batch)]

    def held_out(self, stage: Stage, most: int) -> list[Sample]:
        """A sample of each of the first scenes of the split "validation" that can be read, if there are any."""
        if not self.dataset(stage).splits["validation"]:
            return []
        dataset = self.of_split(stage, split="validation")
        views, found = min(stage.max_views, self.paths), []
        for position in range(min(most, len(dataset))):
            try:
                found.append(dataset.sample(position, views))
            except RuntimeError as error:  # of scenes to learn from there may be enough
                log.warning("held-out scenes: %s", error)
        return found


def by_views(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples with equally many input views and targets together."""
    groups: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((len(sample.cameras), len(sample.targets)), []).append(sample)
    return list(groups.values())


class Encoder:
    """Makes the network's inputs of samples. Pluecker latents of whole paths are kept: they come again every epoch."""

    def __init__(self, tokenizer: CosmosTokenizer, config: ReconConfig, device: torch.device | str):
        self.tokenizer, self.config, self.device = tokenizer, config, torch.device(device)
        self._plucker: dict[bytes, Tensor] = {}
        self._times = EncodeCache(2**26)

    @torch.no_grad()
    def inputs(self, samples: Sequence[Sample], dtype: torch.dtype) -> ReconInputs:
        """Inputs of B samples of V views each, where the tokenizer is."""
        count, views, frames = len(samples), len(samples[0].cameras), len(samples[0].cameras[0])
        paths = [path for sample in samples for path in sample.cameras]
        shape = (count, views)
        joined = join(paths).to(self.device)
        origins, directions = splat_rays(joined, self.config.pixels_per_splat, bf16=False)
        encoded = self.plucker(paths, keep=samples[0].latents is not None)
        times = {}
        if self.config.dynamic:
            times = {
                "time_source": torch.cat([self.times(sample.times, paths[0], dtype) for sample in samples]),
                "time_target": torch.cat([self.times(sample.time, paths[0], dtype) for sample in samples]),
            }
        return ReconInputs(
            latents=self.latents(samples).to(dtype),
            plucker=encoded.unflatten(0, shape).to(dtype),
            origins=origins.unflatten(0, (*shape, frames)),
            directions=directions.unflatten(0, (*shape, frames)),
            **times,
        )

    def latents(self, samples: Sequence[Sample]) -> Tensor:
        """Raw latents [B, V, C, T, h, w], the teacher's or those of the pictures."""
        shape = len(samples), len(samples[0].cameras)
        if samples[0].latents is None:
            pictures = torch.cat([sample.pictures for sample in samples]).to(self.device).float()
            return self.encode(2 * pictures.permute(0, 4, 1, 2, 3) - 1).unflatten(0, shape)
        values = torch.cat([sample.latents for sample in samples]).to(self.device).float()
        return VideoLatents(values=values).to_tokenizer(*statistics(self.tokenizer, values)).values.unflatten(0, shape)

    def plucker(self, paths: Sequence[CameraTrajectory], keep: bool) -> Tensor:
        """Pluecker latents [N, 2 C, T, h, w] of paths: encoded moments, then encoded directions."""
        keys = [b"%d " % path.height + path.c2w.numpy().tobytes() + path.K.numpy().tobytes() for path in paths]
        known = self._plucker if keep else {}
        if new := {key: path for key, path in zip(keys, paths, strict=True) if key not in known}:
            coordinates = plucker(join(list(new.values())).to(self.device))
            halves = coordinates.unflatten(0, (len(new), -1)).transpose(1, 2).split(3, 1)  # [N, 3, F, H, W] each
            made = torch.cat([self.encode(half) for half in halves], 1).half()
            known |= dict(zip(new, made, strict=True))
        return torch.stack([known[key] for key in keys])

    def times(self, times: Tensor, like: CameraTrajectory, dtype: torch.dtype) -> Tensor:
        """Encoded time pictures [1, C, T, h, w] of the times of a clip, or of one."""
        place = torch.empty(0, dtype=dtype, device=self.device)
        return time_latents(times.cpu(), like.height, like.width, self.tokenizer, place, self._times)

    def encode(self, video: Tensor) -> Tensor:
        """Raw latents of clips [N, 3, F, H, W], some at a time."""
        at_once = by_device(AT_ONCE, self.device)
        return torch.cat([encode_clips(self.tokenizer.autoencoder, some) for some in video.split(at_once)])


def each_alone(inputs: ReconInputs) -> ReconInputs:
    """B scenes of V views as B V scenes of one view: the decoder without fusion."""
    views = inputs.latents.shape[1]
    single = {
        name: getattr(inputs, name).flatten(0, 1)[:, None] for name in ("latents", "plucker", "origins", "directions")
    }
    times = {
        name: encoded if encoded is None or len(encoded) == 1 else encoded.repeat_interleave(views, 0)
        for name, encoded in (("time_source", inputs.time_source), ("time_target", inputs.time_target))
    }
    return replace(inputs, **single, **times)

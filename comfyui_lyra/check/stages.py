"""The mini models through every stage, on a device against the CPU: where a stage goes wrong, it is named.

Each stage is given what the CPU's stage before gave, so that a fault shows where it is and nowhere else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor

from ..callbacks import OnStep, no_progress
from ..cameras.path import CameraTrajectory
from ..files.scenes.sample import shipped_sample
from ..gen3c.cache.cache3d import Cache3D
from ..gen3c.generate import GenerateSettings, generate
from ..gen3c.load import Teacher, load_teacher
from ..geometry.fit import condition_frame
from ..geometry.geometry import Geometry
from ..latents import MultiViewLatents
from ..pipeline import paths_for
from ..quality.scores import BEST, psnr
from ..recon.inputs import EncodeCache
from ..recon.load import load_recon
from ..recon.model import Recon
from ..recon.reconstruct import reconstruct
from ..splats.gaussians import Gaussians
from ..splats.render import render
from ..tokenizer.clips import decode, encode_clip
from ..tokenizer.model import CosmosTokenizer, load_tokenizer
from ..weights.shipped import shipped_model
from .report import Finding, Section, Tell, tell_nobody

Made = TypeVar("Made")
QUICK = GenerateSettings(steps=3, guidance=0.0, solver="dpmpp_2m")
MOMENT = 8  # the frame of every path that is drawn, and the bullet time of the dynamic decoder
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)  # the last is what the mini files store
FAULTS = (RuntimeError, ValueError, OSError, ImportError)  # what a broken kernel, library or driver raises
NUMBERS = ("encode", "generate")  # stages whose result is no picture: compared by relative error

# dB to the CPU's pictures, and error of latents relative to their deviation. On the CPU itself bfloat16 is 58 dB and
# 0.018 from float32, float16 67 dB and 0.002; float32 on a GPU convolves in TF32, which is as coarse as float16.
LEAST = 40.0
MOST = {torch.float32: 0.02, torch.bfloat16: 0.1, torch.float16: 0.02}
# Mean and deviation of each stage's result on the CPU in float32, and how far off they may be, in deviations. They
# belong to the shipped weights: with others, the report shows what to write here.
EXPECTED = {
    "warp": (0.4176, 0.2725),
    "encode": (0.0598, 0.5491),
    "generate": (0.0531, 0.5418),
    "decode": (0.5475, 0.1837),
    "splats, static decoder": (0.5390, 0.1696),
    "splats, dynamic decoder": (0.5375, 0.1708),
    "render": (0.5390, 0.1696),
}
NEAR = 0.01


@dataclass(frozen=True, eq=False, kw_only=True)
class Minis:
    """The mini models where, and in the precision that, they compute."""

    teacher: Teacher
    tokenizer: CosmosTokenizer
    static: Recon
    dynamic: Recon

    @classmethod
    def load(cls, device: torch.device, dtype: torch.dtype) -> "Minis":
        """The shipped files."""
        teacher = load_teacher(shipped_model("teacher"), dtype=dtype)
        teacher.to(device)
        return cls(
            teacher=teacher,
            tokenizer=load_tokenizer(shipped_model("tokenizer")).to(device, dtype),
            static=load_recon(shipped_model("recon_static")).to(device, dtype),
            dynamic=load_recon(shipped_model("recon_dynamic")).to(device, dtype),
        )


@dataclass(eq=False)
class Known:
    """What the CPU's stages gave, which every device's stages begin from."""

    geometry: Geometry
    paths: tuple[CameraTrajectory, ...]
    latents: MultiViewLatents | None = None
    splats: Gaussians | None = None
    cameras: tuple[CameraTrajectory, ...] = ()


def stages(
    device: torch.device,
    precisions: Sequence[torch.dtype] = PRECISIONS,
    tell: Tell = tell_nobody,
    on_step: OnStep = no_progress,
) -> tuple[Section, ...]:
    """The mini models through all stages on the CPU against stored numbers, then on ``device`` against the CPU.

    The device computes in each of the ``precisions``: float32, and what the nodes choose and the files store.
    ``on_step`` counts stages, and may raise to stop; ``tell`` is told what begins.
    """
    rounds = 1 + (len(precisions) if device.type != "cpu" else 0)
    step = counted(on_step, rounds * len(EXPECTED))
    tell("The mini models, all stages, on the CPU")
    models = Minis.load(torch.device("cpu"), torch.float32)
    geometry = shipped_sample("picture")
    known, reference, found = Known(geometry=geometry, paths=paths_for(geometry, models.teacher.config)), {}, []
    for name, run in runs(models, torch.device("cpu"), known):
        start = perf_counter()
        reference[name] = run()
        found.append(against_stored(name, reference[name], perf_counter() - start))
        step()
    del models
    note = "" if rounds > 1 else "There is no GPU that torch can use here, so nothing could be compared with one."
    sections = [Section(title="Mini models on the CPU, float32", note=note, findings=tuple(found))]
    for dtype in precisions if rounds > 1 else ():
        word = str(dtype).removeprefix("torch.")
        tell(f"The same on {device} in {word}")
        findings = tuple(compared(device, dtype, known, reference, step))
        sections.append(Section(title=f"Mini models on {device}, {word}", findings=findings))
    return tuple(sections)


def counted(on_step: OnStep, total: int) -> Callable[[], None]:
    """A function that counts its calls to ``on_step``."""
    steps = count(1)
    return lambda: on_step(next(steps), total)


def compared(
    device: torch.device, dtype: torch.dtype, known: Known, reference: Mapping[str, Tensor], step: Callable[[], None]
) -> Iterator[Finding]:
    """Each stage on a device beside the CPU's; what raises fails, and so does all after a device that was lost."""
    lost, models = "", None
    try:
        models = Minis.load(device, dtype)
    except FAULTS as error:
        lost = f"the models could not be brought there: {first_line(error)}"
    for name, run in runs(models, device, known):
        start = perf_counter()
        try:
            if lost:
                raise RuntimeError(lost)
            yield against_cpu(name, run(), reference[name], dtype, perf_counter() - start)
        except FAULTS as error:
            yield Finding(name=name, found=first_line(error), works=False, wanted="no error")
            lost = lost or (f"not run, since the device failed in '{name}'" if is_lost(device) else "")
        step()


def is_lost(device: torch.device) -> bool:
    """Whether a device computes nothing any more, as after an illegal memory access."""
    try:
        return float(torch.ones(2, device=device).sum()) != 2
    except RuntimeError:
        return True


def first_line(error: Exception) -> str:
    """What kind of error, and how its message begins."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def against_stored(name: str, result: Tensor, seconds: float) -> Finding:
    """Mean and deviation of a stage's result, beside those that were found when the weights were made."""
    mean, std = result.mean().item(), result.std().item()
    wanted_mean, wanted_std = EXPECTED[name]
    near = NEAR * wanted_std
    return Finding(
        name=name, found=f"mean {mean:.4f}, deviation {std:.4f}; {seconds:.1f} s",
        works=abs(mean - wanted_mean) <= near and abs(std - wanted_std) <= near,
        wanted=f"{wanted_mean:.4f} and {wanted_std:.4f}, within {near:.4f}",
    )  # fmt: skip


def against_cpu(name: str, result: Tensor, reference: Tensor, dtype: torch.dtype, seconds: float) -> Finding:
    """How near a stage's result is to the CPU's."""
    if name in NUMBERS:
        error = float((result.float() - reference).std() / reference.std())
        found, works, wanted = f"relative error {error:.1e}", error <= MOST[dtype], f"at most {MOST[dtype]:g}"
    else:
        near = float(psnr(result.float(), reference.clamp(0, 1)).clamp_max(BEST).mean())
        found, works, wanted = f"{near:.1f} dB", near >= LEAST, f"at least {LEAST:g} dB"
    return Finding(name=name, found=f"{found} to the CPU's; {seconds:.1f} s", works=works, wanted=wanted)


def runs(models: Minis | None, device: torch.device, known: Known) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Each stage's name and what runs it, giving pictures [F, H, W, 3] or numbers on the CPU.

    The first run fills ``known`` stage by stage, later ones only read it. ``models`` of None serve for the names.
    """
    encoded = EncodeCache()
    yield "warp", lambda: warp(known, device)
    yield (
        "encode",
        lambda: encode(made(models), known, device),
    )
    yield "generate", lambda: film(made(models), known)
    yield "decode", lambda: decode(made(models).tokenizer, made(known.latents).to(device), 0).float().cpu()
    yield "splats, static decoder", lambda: build(made(models), made(models).static, encoded, known)
    yield "splats, dynamic decoder", lambda: build(made(models), made(models).dynamic, encoded, known)
    yield "render", lambda: draw(made(known.splats).to(device), known.cameras)


def made(what: Made | None) -> Made:
    """What loading or a stage before has made; after one that failed no stage is run."""
    assert what is not None
    return what


def warp(known: Known, device: torch.device) -> Tensor:
    """The picture's points seen along the first path, [F, H, W, 3]."""
    drawn = Cache3D.of(known.geometry.to(device)).render(known.paths[0])
    return (drawn.pixels[:, 0].movedim(1, -1).cpu() + 1) / 2


def encode(models: Minis, known: Known, device: torch.device) -> Tensor:
    """Latents of the picture as a clip's first frame, on the CPU."""
    return encode_clip(models.tokenizer, condition_frame(known.geometry.to(device))).float().cpu()


def film(models: Minis, known: Known) -> Tensor:
    """Latents [V, C, T, h, w] along the paths, in few steps."""
    latents = generate(models.teacher, models.tokenizer, known.geometry, known.paths, settings=QUICK)
    known.latents = known.latents or latents
    return latents.latents.values


def build(models: Minis, recon: Recon, encoded: EncodeCache, known: Known) -> Tensor:
    """Splats of the CPU's latents, drawn into their own cameras: [F, H, W, 3]."""
    splats, cameras = reconstruct(recon, models.tokenizer, made(known.latents), (MOMENT,), cache=encoded)
    if known.splats is None:
        known.splats, known.cameras = splats.frames[0], cameras
    return draw(splats.frames[0], cameras)


def draw(splats: Gaussians, cameras: tuple[CameraTrajectory, ...]) -> Tensor:
    """One frame of every path, [V, H, W, 3] on the CPU."""
    seen = torch.cat([render(splats, path[MOMENT : MOMENT + 1].to(splats.means.device)).rgb for path in cameras])
    return seen.cpu()

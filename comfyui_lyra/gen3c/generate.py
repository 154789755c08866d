"""The teacher's two flows: from one picture, or from a clip, to the latents of several camera paths (teacher.md 1, 2).

What all paths share is made once: the 3D cache, the latent of the condition picture, text and initial noise. Each path
is then drawn from the cache, encoded, sampled and stored before the next one begins.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from ...kernels_glue.attention import attention
from ..callbacks import CheckFrames, OnStep, no_progress, part
from ..cameras.path import CameraTrajectory
from ..configs import told
from ..files.scenes.sdg_writer import PathStore
from ..geometry.fit import REFERENCE_BACKGROUND, condition_frame
from ..geometry.geometry import Geometry
from ..latents import MultiViewLatents, VideoLatents
from ..tokenizer.clips import decode_clip, encode_clip
from ..tokenizer.model import to_uint8
from ..tokenizer.protocol import Tokenizer
from ..versions import RESULTS
from ..weights.load import fingerprint
from .cache.cache3d import Cache3D
from .eight_bit import Linears
from .load import Teacher
from .requirements import check_inputs
from .sampler import (
    Conditions,
    Pair,
    Solver,
    check_solver,
    compose_warp_latents,
    condition_noise,
    initial_noise,
    one_after_other,
    sample,
)
from .team import ALONE, Team
from .text import TextEmbeddings, said, zero_text

log = logging.getLogger("lyra")

OnPreview = Callable[[int, Tensor], None]  # (path, x0 [16, T, h, w] as it looks after a step)
OnFrames = Callable[[int, Tensor], None]  # (path, frames [F, H, W, 3] as its video has them: bytes, or in [0, 1])
WITHOUT_CHOICE = {"reliable": "None", "cache_noise": "0.0"}  # of recipes; the keys of what is stored hold them
LATER = {
    "guidance_range": (0.0, float("inf")),
    "late_attention": "",
    "late_below": 0.0,
    "linears": "exact",
}  # in recipes if they differ
EstimateDepth = Callable[[Tensor], Tensor]  # picture [H, W, 3] in [0, 1] -> depth [H, W], inf where background


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """How latents are made. The defaults are the reference's."""

    steps: int = 35
    guidance: float = told(1.0, "1 is what others call a scale of 2; 0 halves the time")  # Fc + guidance (Fc - Fu)
    solver: Solver = told("euler", "dpmpp_2m needs fewer steps")
    seed: int = told(1, "of the noise")
    foreground_masking: bool = True  # hides the background behind stretched foreground
    step_cache: float = told(0.0, "reuse blocks that change less; 0 computes all")  # relatively, from step to step
    attention: str = told("auto", "auto is exact; int8 is for cards slow in bfloat16, sol is sparse: both deviate")
    guidance_range: tuple[float, float] = (0.0, float("inf"))  # noise levels that are guided; the others are one pass
    late_attention: str = ""  # backend below the noise level ``late_below``; none: the same throughout
    late_below: float = 0.0
    linears: Linears = told("exact", "fp8, int8: the blocks' products in 8 bits, which deviate by 4 and 1 percent")

    def __post_init__(self) -> None:
        if self.steps < 2 or not 0 <= self.seed < 2**32:
            raise ValueError(f"steps {self.steps} must be 2 or more, seed {self.seed} lie in 0..{2**32 - 1}")
        check_solver(self.solver)
        if self.attention not in attention.choices:
            raise ValueError(f"attention '{self.attention}': use one of {', '.join(attention.choices)}")
        if self.late_attention and self.late_attention not in attention.backends:
            raise ValueError(f"late_attention '{self.late_attention}': use one of {', '.join(attention.backends)}")
        if self.linears not in get_args(Linears):
            raise ValueError(f"linears '{self.linears}': use one of {', '.join(get_args(Linears))}")
        if not min(self.guidance, self.step_cache, self.late_below) >= 0:
            raise ValueError("guidance, step_cache and late_below must not be negative")
        if not 0 <= self.guidance_range[0] <= self.guidance_range[1]:
            raise ValueError(f"guidance_range {self.guidance_range}: the lower noise level first")


@dataclass(frozen=True, eq=False, kw_only=True)
class Shared:
    """What the paths of a scene have in common, where the teacher computes."""

    cache: Cache3D
    first: Tensor  # [1, 16, 1, h, w] latent of the picture that every path starts from
    text: Tensor  # [1, M, D]
    negative: Tensor  # [1, M, D]
    noise: Tensor  # [n, 16, T, h, w] unit noise of each chunk
    condition_noise: Tensor  # [1, 16, T, h, w]


@torch.inference_mode()
def generate(
    teacher: Teacher,
    tokenizer: Tokenizer,
    geometry: Geometry,
    cameras: Sequence[CameraTrajectory],
    *,
    settings: GenerateSettings = GenerateSettings(),  # noqa: B008  (frozen)
    text: TextEmbeddings | None = None,
    noise: Tensor | None = None,
    estimate_depth: EstimateDepth | None = None,
    check_frames: CheckFrames | None = None,
    device: torch.device | None = None,
    store: PathStore | None = None,
    team: Team = ALONE,
    on_step: OnStep = no_progress,
    on_preview: OnPreview = lambda path, x0: None,
    on_frames: OnFrames = lambda path, frames: None,
    on_block: OnStep = no_progress,
) -> MultiViewLatents:
    """Latents along each camera path of a picture's or clip's geometry, in float32 on the CPU.

    Geometry and paths have the teacher's trained size. Paths have its trained length or several times that, joined at
    a frame (see ``MultiViewLatents.chunks``): each chunk after the first starts from the last frame made, whose depth,
    for a picture, comes from ``estimate_depth``. A clip has a frame for each of the paths'. Text is none by default.
    ``noise`` [chunks, 16, T, h, w] stands in for the seed's, ``device`` is the teacher's by default.

    ``store`` keeps each path as soon as it is finished, and gives it back to a later call with equal inputs (functions
    do not count); where it wants videos, ``check_frames`` sees them first, then ``on_frames``. ``on_step`` counts steps
    over all paths, ``on_block`` the transformer's blocks of each pass; both may raise to stop. A ``team`` shares
    the paths, and needs a store; each of its members gets all of them.
    """
    cameras = tuple(cameras)
    teacher.network.use_linears(settings.linears)  # with its errors, before anything is made
    config, device = teacher.config, device or teacher.device
    text = text or zero_text(config)
    parts = check_inputs(config, tokenizer, geometry, cameras, text, estimate_depth is not None)
    shape = (len(parts), *config.latent_shape)
    noise = initial_noise(shape, settings.seed) if noise is None else noise.float().cpu()
    if noise.shape != shape:
        raise ValueError(f"noise: expected [chunks 16 T h w] = {shape}, got {tuple(noise.shape)}")
    recipe = describe(teacher, tokenizer, geometry, text, noise, settings)
    found: list[MultiViewLatents | None] = [None] * len(cameras)
    if team.count > 1 and not store:
        raise ValueError("a team of processes needs a store, through which they share what they made")
    if store:
        if team.is_first:
            store.begin(recipe, cameras, latents=noise.numel())
        team.wait()
        found = [store.load(index) for index in range(len(cameras))]
        team.wait()  # so that none finds what another has made meanwhile
    missing = [index for index, scene in enumerate(found) if scene is None]
    shared, scenes = None, []
    total = len(cameras) * len(parts) * settings.steps
    for index, path in enumerate(cameras):
        done = index * len(parts) * settings.steps
        if (scene := found[index]) is None:
            if not team.films(missing.index(index)):
                continue
            shared = shared or share(tokenizer, geometry.to(device), text, noise, settings)
            if len(cameras) > 1:
                log.info("path %d of %d: %s", index + 1, len(cameras), path.name)
            values = follow(
                teacher, tokenizer, shared, path, parts, settings, estimate_depth,
                on_step=lambda step, done=done: on_step(done + step, total),
                on_x0=partial(on_preview, index), on_block=on_block, pair=team.pair,
            )  # fmt: skip
            scene = MultiViewLatents(
                latents=VideoLatents(values=values.cpu()),
                cameras=(path,),
                family=config.family,
                dynamic=len(geometry.frames) > 1,
                provenance=recipe,
            )
        else:
            on_step(done + len(parts) * settings.steps, total)
        if store and team.stores:
            store.save(
                index, scene, partial(frames_of, tokenizer, scene, device, check_frames, partial(on_frames, index)),
                beside=True,
            )  # fmt: skip
        scenes.append(scene)
    if store:
        store.finish()
    if store and team.count > 1:
        team.wait()
        on_step(total, total)  # the others' paths are done too
        scenes = [scene for index in range(len(cameras)) if (scene := store.load(index))]
    values = torch.cat([scene.latents.values for scene in scenes])
    return replace(scenes[0], latents=VideoLatents(values=values), cameras=cameras, provenance=recipe)


def share(
    tokenizer: Tokenizer, geometry: Geometry, text: TextEmbeddings, noise: Tensor, settings: GenerateSettings
) -> Shared:
    """What the paths have in common, where the geometry lies."""
    device = geometry.depth.device
    return Shared(
        cache=Cache3D.of(geometry),
        first=encode_clip(tokenizer, condition_frame(geometry)),  # alone: what follows cannot change its latent
        text=said(text.prompt).to(device),
        negative=said(text.negative).to(device),
        noise=noise.to(device),
        condition_noise=condition_noise((1, *noise.shape[1:]), settings.seed).to(device),
    )


def follow(
    teacher: Teacher,
    tokenizer: Tokenizer,
    shared: Shared,
    path: CameraTrajectory,
    parts: Sequence[slice],
    settings: GenerateSettings,
    estimate_depth: EstimateDepth | None,
    *,
    on_step: Callable[[int], None],
    on_x0: Callable[[Tensor], None],
    on_block: OnStep,
    pair: Pair = one_after_other,
) -> Tensor:
    """Latents [1, 16, chunks T, h, w] along one path, chunk after chunk."""
    cache, first, latents = shared.cache, shared.first, []
    for number, piece in enumerate(parts):
        if number:
            frame = to_uint8(decode_clip(tokenizer, latents[-1][0])[:, -1:]).float() / 255  # [1, H, W, 3]
            picture = frame.permute(0, 3, 1, 2) * 2 - 1
            first = encode_clip(tokenizer, picture[:, :, None])
            if not cache.is_dynamic:
                assert estimate_depth is not None  # check_inputs saw to it
                depth = estimate_depth(frame[0]).to(frame)[None]
                depth = depth.masked_fill(depth.isinf(), REFERENCE_BACKGROUND)
                camera = path[piece][:1].to(frame.device)
                cache = cache.updated(picture, depth, camera)
        drawn = cache[piece].render(path[piece], settings.foreground_masking)
        warps = compose_warp_latents(partial(encode_clip, tokenizer), drawn.pixels[None], drawn.masks[None])
        del drawn
        conditions = Conditions(first=first, warps=warps, text=shared.text, negative=shared.negative)
        latents.append(
            sample_clips(
                teacher, conditions, shared.noise[number : number + 1], shared.condition_noise, settings, pair=pair,
                on_step=lambda step, _, before=number * settings.steps: on_step(before + step),
                on_x0=lambda x0: on_x0(x0[0]), on_block=on_block,
            )
        )  # fmt: skip
    return torch.cat(latents, dim=2)


def sample_clips(
    teacher: Teacher,
    conditions: Conditions,
    noise: Tensor,
    condition_noise: Tensor,
    settings: GenerateSettings,
    *,
    pair: Pair = one_after_other,
    on_step: OnStep = no_progress,
    on_x0: Callable[[Tensor], None] = lambda x0: None,
    on_block: OnStep = no_progress,
) -> Tensor:
    """Latents [B, 16, T, h, w] of clips, sampled in the way that the settings say; their seed is the noise's.

    A step cache decides for all clips at once: film each alone where it shall not depend on the others. Products are
    what ``GEN3C.use_linears`` was told. See ``sample`` for the rest.
    """
    network = partial(teacher.network, fps=teacher.config.fps, on_block=on_block)
    late = settings.late_attention or settings.attention
    with teacher.network.step_cache(settings.step_cache) if settings.step_cache else nullcontext():
        return sample(
            partial(network, backend=settings.attention), conditions, noise, condition_noise,
            steps=settings.steps, guidance=settings.guidance, guidance_range=settings.guidance_range,
            solver=settings.solver, dtype=teacher.dtype, late=(settings.late_below, partial(network, backend=late)),
            pair=pair, on_step=on_step, on_x0=on_x0,
        )  # fmt: skip


def frames_of(
    tokenizer: Tokenizer,
    scene: MultiViewLatents,
    device: torch.device,
    check_frames: CheckFrames | None = None,
    on_frames: Callable[[Tensor], None] = lambda frames: None,
) -> Tensor:
    """Frames [F, H, W, 3] of the one view of a scene, on the CPU: bytes, or what a check gives back in [0, 1]."""
    video = decode_clip(tokenizer, scene.latents.values[0].to(device), scene.chunks)
    with part("frames to bytes"):
        frames = to_uint8(video).cpu()
    frames = check_frames(frames.float() / 255) if check_frames else frames
    on_frames(frames)
    return frames


def describe(
    teacher: Teacher,
    tokenizer: Tokenizer,
    geometry: Geometry,
    text: TextEmbeddings,
    noise: Tensor,
    settings: GenerateSettings,
) -> dict[str, str]:
    """Everything besides the camera path that the latents depend on, and the geometry's scale."""
    seen = {name: getattr(geometry, name) for name in ("frames", "depth", "valid")}
    seen |= {"c2w": geometry.cameras.c2w, "K": geometry.cameras.K}
    return {
        "teacher": teacher.identity,
        "tokenizer": tokenizer.identity,
        "geometry": fingerprint(seen),
        "scale": repr(geometry.scale),
        **({} if geometry.metric else {"metric": "0"}),
        "text": fingerprint({"prompt": text.prompt, "negative": text.negative}),
        "noise": fingerprint({"noise": noise}),
        **in_recipe(settings),
        **WITHOUT_CHOICE,
        "results": str(RESULTS),
    }


def in_recipe(settings: GenerateSettings) -> dict[str, str]:
    """What a recipe says of settings; of younger ones only what differs from the default."""
    return {name: str(value) for name, value in asdict(settings).items() if name not in LATER or value != LATER[name]}

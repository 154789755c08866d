"""Our socket types, and conversion to and from ComfyUI's own."""

from collections.abc import Sequence
from pathlib import Path

import torch
from comfy_api.latest import Types, io
from torch import Tensor

from ...comfyui_lyra.cameras.path import CameraTrajectory
from ...comfyui_lyra.configs import COMPRESSION
from ...comfyui_lyra.files.media.depth_values import grey
from ...comfyui_lyra.files.splats.formats import READ
from ...comfyui_lyra.latents import MultiViewLatents, VideoLatents
from ...comfyui_lyra.recon.times import parse_times
from ...comfyui_lyra.splats.gaussians import Gaussians
from . import devices

SH_C0 = 0.28209479177387814  # SH band 0, 1 / (2 sqrt(pi))

Geometry = io.Custom("LYRA_GEOMETRY")  # Geometry
Cameras = io.Custom("LYRA_CAMERAS")  # tuple of CameraTrajectory, one or more
Latents = io.Custom("LYRA_LATENTS")  # MultiViewLatents
Teacher = io.Custom("LYRA_TEACHER")  # a model in a ModelPatcher, with its configuration
Tokenizer = io.Custom("LYRA_TOKENIZER")
Recon = io.Custom("LYRA_RECON")

# Core's own, which its node files declare: dictionaries of tensors, and MoGe's model
MogeGeometry = io.Custom("MOGE_GEOMETRY")
Da3Geometry = io.Custom("DA3_GEOMETRY")
MogeModel = io.Custom("MOGE_MODEL")


class TimedSplat(Types.SPLAT):
    """Core's SPLAT that knows the moments it shows. What core's nodes make of it is a plain one, which does not."""

    bullet_times: tuple[int, ...] = ()  # frame of the source clip that each batch item shows; none where it is unknown


def to_splat(frames: Sequence[Gaussians], times: Sequence[int] = ()) -> TimedSplat:
    """Core's SPLAT with one batch item for each set of Gaussians, which are those of these bullet times."""
    if times and len(times) != len(frames):
        raise ValueError(f"{len(frames)} sets of splats for the bullet times {list(times)}; name one for each")
    counts = [len(frame) for frame in frames]
    bands = max(0 if frame.sh_rest is None else frame.sh_rest.shape[1] for frame in frames)
    device = devices.intermediate_device()

    def batch(field, *shape: int) -> Tensor:
        padded = torch.zeros(len(frames), max(counts), *shape, device=device)
        for row, frame in zip(padded, frames, strict=True):
            values = field(frame)
            row[tuple(slice(size) for size in values.shape)] = values.to(row)
        return padded

    sh = batch(lambda f: ((f.colors - 0.5) / SH_C0)[:, None], 1 + bands, 3)
    if bands:
        sh[:, :, 1:] = batch(lambda f: f.means.new_zeros(0, 0, 0) if f.sh_rest is None else f.sh_rest, bands, 3)
    splat = TimedSplat(
        batch(lambda f: f.means, 3),
        batch(lambda f: f.scales, 3),
        batch(lambda f: f.quats, 4),
        batch(lambda f: f.opacities[:, None], 1),
        sh,
        counts=torch.tensor(counts, device=device) if len(set(counts)) > 1 else None,
    )
    splat.bullet_times = tuple(times)
    return splat


def times_of(splat, written: str = "") -> tuple[int, ...]:
    """The bullet time of each item: as a person has written them, or as they came with the splats; empty if neither."""
    known = getattr(splat, "bullet_times", ())
    return parse_times(written) if written.strip() else known if len(known) == len(_lengths(splat)) else ()


def from_splat(splat) -> tuple[Gaussians, ...]:
    """One set of Gaussians for each batch item of core's SPLAT, quaternions made unit length."""
    return tuple(_item(splat, index, length) for index, length in enumerate(_lengths(splat)))


def _lengths(splat) -> list[int]:
    """How many splats each batch item holds; the rest is padding."""
    count, length = splat.positions.shape[:2]
    return [length] * count if splat.counts is None else [int(found) for found in splat.counts]


def _item(splat, index: int, length: int) -> Gaussians:
    """The first ``length`` splats of one batch item."""
    positions, scales, rotations, opacities, sh = (
        getattr(splat, name)[index, :length].float() for name in ("positions", "scales", "rotations", "opacities", "sh")
    )
    return Gaussians(
        means=positions,
        scales=scales,
        quats=torch.nn.functional.normalize(rotations, dim=-1),
        opacities=opacities[:, 0],
        colors=sh[:, 0] * SH_C0 + 0.5,
        sh_rest=sh[:, 1:] if sh.shape[1] > 1 else None,
    ).check_finite()


def moment(splat, index: int) -> Gaussians:
    """One set of Gaussians of a SPLAT; ValueError where it holds no such."""
    lengths = _lengths(splat)
    if index >= len(lengths):
        raise ValueError(f"bullet time {index}: this SPLAT holds {len(lengths)}, counted from 0")
    return _item(splat, index, lengths[index])


def single(splat, remedy: str) -> Gaussians:
    """The one set of Gaussians of a SPLAT; ValueError with the remedy where it holds several bullet times."""
    items = from_splat(splat)
    if len(items) != 1:
        raise ValueError(f"this SPLAT holds {len(items)} bullet times and the node takes one: {remedy}")
    return items[0]


def to_image(frames: Tensor) -> Tensor:
    """IMAGE [F, H, W, 3] in [0, 1]."""
    return frames.clamp(0, 1).to(devices.intermediate_device(), devices.intermediate_dtype())


def to_mask(alpha: Tensor) -> Tensor:
    """MASK [F, H, W] in [0, 1]."""
    return alpha.clamp(0, 1).to(devices.intermediate_device(), devices.intermediate_dtype())


def to_depth_image(depth: Tensor) -> Tensor:
    """IMAGE [F, H, W, 3] that holds depth [F, H, W] in scene units as it is, in float32.

    Its colours are three numbers each, not one seen three times: other nodes write into pictures.
    """
    return depth.to(devices.intermediate_device()).float()[..., None].expand(*depth.shape, 3).contiguous()


def from_image(image: Tensor) -> Tensor:
    """Frames [F, H, W, 3] in float32 of core's IMAGE, transparent parts over white."""
    if image.shape[-1] not in (3, 4):
        raise ValueError(f"expected pictures of 3 or 4 channels, got {tuple(image.shape)}")
    color, alpha = image[..., :3].float(), image[..., 3:].float()
    return color * alpha + (1 - alpha) if image.shape[-1] == 4 else color


def from_depth_image(depth: Tensor) -> Tensor:
    """Values [F, H, W] of depth in core's MASK, or in an IMAGE, whose colours must be equal, NaN where alpha is 0."""
    return depth.float() if depth.ndim == 3 else grey(depth)


def file_3d(path: Path):
    """Core's 3D file object, left on disk."""
    return Types.File3D(str(path))


def splats_of(file) -> tuple[Path | bytes, str]:
    """Where core's 3D file object lies on disk, or its bytes, and the ending of its name."""
    suffix = f".{file.format}"
    if suffix not in READ:
        raise ValueError(f"expected splats as {', '.join(READ)}, got {suffix}; core's Get Splat reads .ksplat")
    return (Path(file.get_source()) if file.is_disk_backed else file.get_bytes()), suffix


def chosen(cameras: Sequence[CameraTrajectory], index: int) -> CameraTrajectory:
    """One path of a set."""
    if index >= len(cameras):
        names = ", ".join(f"{i} {path.name}" for i, path in enumerate(cameras))
        raise ValueError(f"path {index}: the set holds {len(cameras)} ({names})")
    return cameras[index]


def only_path(cameras: Sequence[CameraTrajectory]) -> CameraTrajectory:
    """The path of a set of one."""
    if len(cameras) != 1:
        raise ValueError(f"expected one camera path, with a camera for each picture; this set holds {len(cameras)}")
    return cameras[0]


def rgb(color: str) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of ``#RRGGBB``."""
    digits = color.strip().removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError as error:
        raise ValueError(f"colour '{color}' is not of the form #RRGGBB") from error
    return red / 255, green / 255, blue / 255


def to_latent(latents: MultiViewLatents) -> dict[str, Tensor]:
    """Core's LATENT of Cosmos: one batch item a view, in diffusion space, as core's Cosmos VAE emits it."""
    if latents.latents.space != "diffusion":
        raise ValueError(f"these latents are in {latents.latents.space} space; core's are in diffusion space")
    return {"samples": latents.latents.values.to(devices.intermediate_device())}


def from_latent(latent: dict, cameras: Sequence[CameraTrajectory], family: str, dynamic: bool) -> MultiViewLatents:
    """Latents of one camera path each from core's LATENT, which knows no cameras."""
    values, path = latent["samples"], cameras[0]
    if getattr(values, "is_nested", False) or values.ndim != 5:
        raise ValueError("this LATENT is no video of Cosmos: expected [views C T h w]; make it with Cosmos' VAE")
    size = ((len(path) - 1) // COMPRESSION + 1, path.height // COMPRESSION, path.width // COMPRESSION)
    if len(values) != len(cameras) or values.shape[2:] != size:
        raise ValueError(
            f"a LATENT of {len(values)} clips of latent size (T, h, w) {tuple(values.shape[2:])} does not fit "
            f"{len(cameras)} camera paths of {len(path)} frames of {path.width}x{path.height}, which make {size}"
        )
    return MultiViewLatents(
        latents=VideoLatents(values=values.float().cpu()), cameras=tuple(cameras), family=family, dynamic=dynamic,
        provenance={"source": "LATENT"},
    )  # fmt: skip

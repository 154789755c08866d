"""Pictures in and out, upright, as RGB floats in [0, 1]."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..atomic import replacing
from ..reading import reading

log = logging.getLogger("lyra")

PHOTOMETRIC, YCBCR = 262, 6  # a TIFF's tag for what its samples mean, and one of its values


def load_image(path: Path | str, most: int | None = None) -> Tensor:
    """Read a picture [H, W, 3]: turned as its EXIF tag says, transparent parts over white, any Pillow mode.

    One of more than ``most`` pixels is averaged down by the least whole factor that brings it there.
    """
    with reading(path) as file, opened(file) as image:
        turned = upright(image)
        factor = math.ceil(math.sqrt(turned.width * turned.height / most)) if most else 1
        return to_rgb(smaller(turned, factor) if factor > 1 else turned)


def smaller(image: Image.Image, factor: int) -> Image.Image:
    """A picture at a whole fraction of its size; the log says so."""
    if image.mode in ("1", "P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "L" if image.mode == "1" else "RGB")
    found = (image.convert("I") if image.mode.startswith("I;16") else image).reduce(factor)
    log.warning(
        "a picture of %dx%d is read at 1 / %d of that: %dx%d is more than enough for the models",
        *image.size, factor, *found.size,
    )  # fmt: skip
    return found


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """Pillow's picture; what is wrong with it, also while it is decoded, is a ValueError.

    It is opened as a stream, since Pillow maps an uncompressed TIFF that it knows by name and then does not turn it.
    """
    try:
        with file.open("rb") as stream, Image.open(stream) as image:
            yield image
    except UnidentifiedImageError as error:
        raise ValueError("not a picture that Pillow can read") from error
    except (OSError, SyntaxError) as error:  # Pillow's way to say that a PNG is broken
        raise ValueError(f"damaged picture: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF tag says.

    Pillow before 13, the last one for Python 3.10, takes an uncompressed YCbCr TIFF for RGB of four bytes a pixel.
    """
    tiles = getattr(image, "tile", [])
    is_misread = (
        image.format == "TIFF" and image.mode == "RGB" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == YCBCR
    )
    if not (is_misread and tiles and all(tile[0] == "raw" and tile[3][0] == "RGBX" for tile in tiles)):
        return ImageOps.exif_transpose(image)
    stored: Any = image
    stored.tile = [tile._replace(args=("RGB", *tile.args[1:])) for tile in tiles]
    return Image.merge("YCbCr", ImageOps.exif_transpose(image).split())


def to_rgb(image: Image.Image) -> Tensor:
    """Colours [H, W, 3] of a picture over white."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip to 8
        gray = torch.from_numpy(np.array(image).astype(np.float32) / 65535)
        return gray[:, :, None].expand(-1, -1, 3).contiguous()
    if not image.has_transparency_data:
        return torch.from_numpy(np.array(image.convert("RGB"))).float().div_(255)
    rgba = torch.from_numpy(np.array(image.convert("RGBA"))).float() / 255
    color, alpha = rgba[..., :3], rgba[..., 3:]
    return color * alpha + (1 - alpha)


def save_image(path: Path | str, frame: Tensor) -> None:
    """Write a picture [H, W, 3] in [0, 1]; the suffix names the format."""
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise ValueError(f"{path}: unknown picture format; use .png, .jpg or .webp")
    with replacing(path) as temporary:
        Image.fromarray(to_bytes(frame)).save(temporary, kind, quality=95)


def to_bytes(frame: Tensor) -> np.ndarray:
    """Colours [H, W, 3] in [0, 1] as bytes, rounded; what lies outside is clipped. Bytes stay as they are."""
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"expected a frame [H W 3], got {tuple(frame.shape)}")
    if frame.dtype == torch.uint8:
        return frame.cpu().numpy()
    return (frame.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

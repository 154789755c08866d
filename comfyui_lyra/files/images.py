"""Pictures in and out, upright, as RGB floats in [0, 1]."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .atomic import replacing
from .reading import reading

PHOTOMETRIC, YCBCR = 262, 6  # a TIFF's tag for what its samples mean, and one of its values


def load_image(path: Path | str) -> Tensor:
    """Read a picture [H, W, 3]: turned as its EXIF tag says, transparent parts over white, any Pillow mode."""
    with reading(path) as file:
        try:
            with Image.open(file) as image:
                return to_rgb(upright(image))
        except UnidentifiedImageError as error:
            raise ValueError("not a picture that Pillow can read") from error
        except (OSError, SyntaxError) as error:  # Pillow's way to say that a PNG is broken
            raise ValueError(f"damaged picture: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF tag says.

    Pillow before 13, the last one for Python 3.10, takes an uncompressed YCbCr TIFF for RGB of four bytes a pixel.
    """
    tiles = getattr(image, "tile", [])
    is_misread = image.format == "TIFF" and image.mode == "RGB" and image.tag_v2.get(PHOTOMETRIC) == YCBCR
    if not (is_misread and tiles and all(tile[0] == "raw" and tile[3][0] == "RGBX" for tile in tiles)):
        return ImageOps.exif_transpose(image)
    image.tile = [tile._replace(args=("RGB", *tile.args[1:])) for tile in tiles]
    return Image.merge("YCbCr", ImageOps.exif_transpose(image).split())


def to_rgb(image: Image.Image) -> Tensor:
    """Colours [H, W, 3] of a picture over white."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip to 8
        gray = torch.from_numpy(np.array(image).astype(np.float32) / 65535)
        return gray[:, :, None].expand(-1, -1, 3).contiguous()
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
    """Colours [H, W, 3] in [0, 1] as bytes, rounded; what lies outside is clipped."""
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"expected a frame [H W 3], got {tuple(frame.shape)}")
    return (frame.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

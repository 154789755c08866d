"""Pictures in and out, upright, as RGB floats in [0, 1]."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .atomic import replacing
from .reading import reading


def load_image(path: Path | str) -> Tensor:
    """Read a picture [H, W, 3]: turned as its EXIF tag says, transparent parts over white, any Pillow mode."""
    with reading(path) as file:
        try:
            with Image.open(file) as image:
                refuse_raw_ycbcr(image)
                return to_rgb(ImageOps.exif_transpose(image))
        except UnidentifiedImageError as error:
            raise ValueError("not a picture that Pillow can read") from error
        except (OSError, SyntaxError) as error:  # Pillow's way to say that a PNG is broken
            raise ValueError(f"damaged picture: {error}") from error


def refuse_raw_ycbcr(image: Image.Image) -> None:
    """Raise ValueError for the one TIFF that Pillow before 13, Python 3.10's last, reads four bytes a pixel of."""
    if image.mode == "YCbCr" and any(tile[0] == "raw" and "RGBX" in tile[3] for tile in getattr(image, "tile", [])):
        raise ValueError("an uncompressed YCbCr TIFF, which needs Pillow 13 or newer; save it as RGB or as PNG")


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

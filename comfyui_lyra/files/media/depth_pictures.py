"""Depth in picture files: PNG, TIFF, JPEG and what else Pillow reads, and PFM."""

import logging
import re
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError
from PIL import Image

from .depth_values import grey
from .images import opened, upright
from .video import ALONE, pictures_in

log = logging.getLogger("lyra")

MOST_PIXELS = 1 << 28  # a PFM that claims more is damaged
PFM = re.compile(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,30})\s")


def read_picture(file: Path) -> tuple[np.ndarray, int | None]:
    """Values [H, W] as the file has them, NaN where alpha is 0, and what they count up to: 255, 65535, None of lengths.

    A coloured picture is refused. Of several pages the first is read, with a warning.
    """
    if file.suffix.lower() == ".pfm":
        return read_pfm(file), None
    with opened(file) as image:
        if (pages := getattr(image, "n_frames", 1)) > 1:
            log.warning("%s: holds %d pages; the first is read", file, pages)
        if has_deep_colors(file):
            return read_deep_png(file), 65535
        return read_levels(upright(image))


def read_levels(image: Image.Image) -> tuple[np.ndarray, int | None]:
    """Values and largest level of a picture of any mode."""
    if image.mode == "F":
        return np.array(image), None
    if image.mode.startswith("I"):
        values = np.array(image).astype(np.float32)
        clear = image.info.get("transparency")
        values[values == clear if isinstance(clear, int) else np.zeros_like(values, bool)] = np.nan
        is_short = image.mode != "I" or image.format == "PNG"  # Pillow once opened 16 bits as 32
        return values, 65535 if is_short else None
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return np.array(image.convert("L")).astype(np.float32), 255
    pixels = torch.from_numpy(np.array(image.convert("RGBA"))).float()
    return (grey(pixels / 255) * 255).numpy(), 255


def has_deep_colors(file: Path) -> bool:
    """Whether a PNG has 16 bits a channel and more channels than one, which Pillow reads as 8 bits."""
    with file.open("rb") as stream:
        head = stream.read(26)
    return head[:4] == b"\x89PNG" and head[24:25] == b"\x10" and head[25:26] in (b"\2", b"\4", b"\6")


def read_deep_png(file: Path) -> np.ndarray:
    """Values [H, W], 0 to 65535, of a PNG with 16 bits in each of several channels."""
    try:
        with av.open(str(file)) as container:
            pixels = next(container.decode(pictures_in(container))).to_ndarray(format="rgba64le", **ALONE)
    except (FFmpegError, StopIteration, ValueError) as error:
        raise ValueError(f"damaged picture: {error}") from error
    return (grey(torch.from_numpy(pixels.astype(np.float32)) / 65535) * 65535).numpy()


def read_pfm(file: Path) -> np.ndarray:
    """Values [H, W] of a portable float map: Pf or PF, size, a scale whose sign is the byte order, rows upward."""
    data = file.read_bytes()
    head = PFM.match(data)
    if head is None:
        raise ValueError("not a PFM, or a damaged one: expected Pf, width, height and scale")
    kind, width, height, scale = head[1], int(head[2]), int(head[3]), head[4]
    if min(width, height) < 1 or width * height > MOST_PIXELS:
        raise ValueError(f"not a PFM, or a damaged one: claims {width}x{height}")
    channels = 3 if kind == b"PF" else 1
    body = data[head.end() :]
    if len(body) < 4 * channels * width * height:
        raise ValueError(f"cut short: {len(body)} of {4 * channels * width * height} bytes of a PFM are there")
    values = np.frombuffer(body, "<f4" if scale.startswith(b"-") else ">f4", channels * width * height).astype(
        np.float32
    )
    pixels = values.reshape(height, width, channels)[::-1].copy()
    return pixels[..., 0] if channels == 1 else grey(torch.from_numpy(pixels)).numpy()

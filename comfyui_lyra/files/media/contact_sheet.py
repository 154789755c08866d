"""Contact sheets: frames of several clips side by side, one labelled row a clip."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MARGIN, LABEL = 6, 20  # pixels between pictures, and the height of a row's label
PAPER, INK = (24, 26, 30), (225, 228, 232)


def contact_sheet(rows: Sequence[tuple[str, Tensor]], columns: int = 6) -> Tensor:
    """One picture [H, W, 3] in [0, 1] of labelled clips [F, h, w, 3]: ``columns`` frames of each, first to last."""
    if not rows:
        raise ValueError("a contact sheet needs at least one clip")
    strips = [_strip(label, frames, columns) for label, frames in rows]
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips) + MARGIN), PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return torch.from_numpy(np.asarray(sheet).copy()).float() / 255


def _strip(label: str, frames: Tensor, columns: int) -> Image.Image:
    """One row: the label above evenly spaced frames."""
    count, height, width, _ = frames.shape
    picked = torch.linspace(0, count - 1, min(columns, count)).round().long()
    strip = Image.new("RGB", (MARGIN + len(picked) * (width + MARGIN), LABEL + height + MARGIN), PAPER)
    ImageDraw.Draw(strip).text((MARGIN, 3), label, fill=INK, font=ImageFont.load_default(size=12))
    for column, index in enumerate(picked.tolist()):
        pixels = (frames[index].clamp(0, 1) * 255).round().byte().cpu().numpy()
        strip.paste(Image.fromarray(pixels), (MARGIN + column * (width + MARGIN), LABEL))
    return strip

"""A picture of camera paths: from above and from the side, with view frusta and the scene's points behind."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from .path import CameraTrajectory

SUPERSAMPLE = 3  # drawn so many times larger, then shrunk: PIL's lines are not anti-aliased
MAX_POINTS = 60_000  # more do not show
FRUSTA = 4  # drawn a path, besides the one at its start
DOT = 3.5 * SUPERSAMPLE  # radius of the dot at a start
GRAIN = 2 * SUPERSAMPLE  # width of a scene point
PAGE, PANEL, GRID, AXIS, FAINT, TEXT, BRIGHT = (
    "#14161a", "#1b1e24", "#282c35", "#3d4350", "#868d9c", "#c3c8d2", "#f2f4f8",
)  # fmt: skip
COLORS = ("#5aa9ff", "#ffa24c", "#6fdc8c", "#ff7eb6", "#b79bff", "#ffe066", "#4fd6d2", "#ff6b6b")
AXES = ("x, right", "y, down", "z, forward")


@dataclass(frozen=True, kw_only=True)
class View:
    """A parallel projection of the world onto a rectangle of the picture: world axes, where they go, and the scale."""

    title: str
    across: int  # world axis that points right
    along: int  # world axis that points up (flip -1) or down (flip 1)
    flip: int
    box: tuple[float, float, float, float]  # left, top, right, bottom in pixels
    middle: np.ndarray  # [3] the world point in the middle
    scale: float  # pixels a scene unit

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Pixels [..., 2] of world points [..., 3]."""
        left, top, right, bottom = self.box
        offset = (points - self.middle) * self.scale
        return np.stack(
            ((left + right) / 2 + offset[..., self.across], (top + bottom) / 2 + self.flip * offset[..., self.along]),
            -1,
        )

    def limits(self, axis: int) -> tuple[float, float]:
        """The world coordinates of ``axis`` at the two ends of the rectangle, lower first."""
        left, top, right, bottom = self.box
        half = (right - left if axis == self.across else bottom - top) / 2 / self.scale
        return self.middle[axis] - half, self.middle[axis] + half


def draw_paths(
    paths: Sequence[CameraTrajectory],
    points: Tensor | None = None,
    colors: Tensor | None = None,
    width: int = 1024,
    height: int = 512,
) -> Tensor:
    """Camera paths from above (x right, z up) and from the side (z right, y down), RGB [H, W, 3] in [0, 1].

    Each path has its colour, a white frustum and dot at its start, coloured frusta later and an arrow head at its end.
    ``points`` [P, 3] and their ``colors`` [P, 3] in 0..1 show the scene behind, dimmed.
    """
    if not paths:
        raise ValueError("no camera paths to draw")
    if width < 256 or height < 160:
        raise ValueError(f"a picture of {width}x{height} is too small to read; use 256x160 or more")
    if points is not None and (points.ndim != 2 or points.shape[1] != 3):
        raise ValueError(f"points: expected [P 3], got {tuple(points.shape)}")
    if colors is not None and (points is None or colors.shape != points.shape):
        raise ValueError(f"colors: expected one a point, got {tuple(colors.shape)}")
    for path in paths:
        if not (torch.isfinite(path.c2w).all() and torch.isfinite(path.K).all()):
            raise ValueError(f"camera path '{path.name}' holds NaN or infinity")

    centres = [path.c2w[:, :3, 3].double().cpu().numpy() for path in paths]
    cloud, shades = _cloud(points, colors)
    low, high = _span(np.concatenate(centres), cloud)
    shown, moved = np.linalg.norm(high - low), np.linalg.norm(np.ptp(np.concatenate(centres), axis=0))
    reach = float(np.clip(0.1 * moved, 0.03 * shown, 0.1 * shown))  # length of a frustum
    k = SUPERSAMPLE
    font: Any = ImageFont.load_default(size=k * max(10, round(height / 40)))
    canvas = Image.new("RGB", (width * k, height * k), PAGE)
    legend_top = _legend(canvas, paths, font)
    for view in _views(low - reach, high + reach, width * k, legend_top, font):
        _panel(canvas, view, font, cloud, shades)
        _paths(ImageDraw.Draw(canvas), view, paths, centres, reach)
    canvas = canvas.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(canvas).copy()).float() / 255


def _cloud(points: Tensor | None, colors: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_POINTS finite points [P, 3] and their dimmed colours [P, 3] in 0..255."""
    if points is None:
        return np.zeros((0, 3)), np.zeros((0, 3))
    step = max(1, math.ceil(points.shape[0] / MAX_POINTS))
    cloud = points[::step].detach().double().cpu().numpy()
    shades = np.full_like(cloud, 0.6) if colors is None else colors[::step].detach().double().cpu().numpy()
    known = np.isfinite(cloud).all(1) & np.isfinite(shades).all(1)
    panel = np.array(ImageColor.getrgb(PANEL))
    return cloud[known], panel + 0.55 * (255 * shades[known].clip(0, 1) - panel)


def _span(centres: np.ndarray, cloud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two corners [3] of what is worth showing: all cameras, and the half of the scene that is nearer to them."""
    low, high = centres.min(0), centres.max(0)
    if len(cloud):
        distance = np.linalg.norm(cloud - centres.mean(0), axis=1)
        near, far = np.quantile(cloud[distance <= np.median(distance)], (0.02, 0.98), axis=0)
        low, high = np.minimum(low, near), np.maximum(high, far)
    if np.linalg.norm(high - low) < 1e-6:
        low, high = low - 0.5, high + 0.5
    return low, high


def _views(low: np.ndarray, high: np.ndarray, width: int, bottom: float, font: ImageFont.FreeTypeFont) -> list[View]:
    """The two views side by side above ``bottom``, in one scale that fits the corners ``low`` and ``high`` [3]."""
    em = font.size
    boxes = [(left + 3 * em, 2.4 * em, left + width / 2 - em / 2, bottom - 2 * em) for left in (0, width / 2 - em / 2)]
    wide, tall = boxes[0][2] - boxes[0][0], boxes[0][3] - boxes[0][1]
    x, y, z = high - low
    scale = min(wide / x, tall / z, wide / z, tall / y)
    middle = (low + high) / 2
    return [
        View(title="From above", across=0, along=2, flip=-1, box=boxes[0], middle=middle, scale=scale),
        View(title="From the side", across=2, along=1, flip=1, box=boxes[1], middle=middle, scale=scale),
    ]


def _panel(
    canvas: Image.Image, view: View, font: ImageFont.FreeTypeFont, cloud: np.ndarray, shades: np.ndarray
) -> None:
    """Background, points, grid, ticks and names of the axes of one view."""
    draw, em = ImageDraw.Draw(canvas), font.size
    left, top, right, bottom = view.box
    draw.rectangle(view.box, fill=PANEL)
    _scatter(canvas, view, cloud, shades)
    step = _tick_step(view, 5 * em)
    for axis in (view.across, view.along):
        low, high = view.limits(axis)
        for tick in range(math.ceil(low / step), math.floor(high / step) + 1):
            x, y = view(np.where(np.arange(3) == axis, tick * step, view.middle))
            color, label = GRID if tick else AXIS, f"{tick * step:g}"
            if axis == view.across:
                draw.line((x, top, x, bottom), color, SUPERSAMPLE)
                draw.text((x, bottom + 0.4 * em), label, FAINT, font, anchor="mt")
            else:
                draw.line((left, y, right, y), color, SUPERSAMPLE)
                draw.text((left - 0.4 * em, y), label, FAINT, font, anchor="rm")
    draw.rectangle(view.box, outline=AXIS, width=SUPERSAMPLE)
    draw.text((left, top - 0.7 * em), view.title, BRIGHT, font, anchor="ls")
    if right - left > 14 * em:
        draw.text((right, top - 0.7 * em), "scene units", FAINT, font, anchor="rs")
    draw.text((right - 0.5 * em, bottom - 0.5 * em), AXES[view.across], TEXT, font, anchor="rs")
    end, anchor = (top + 0.5 * em, "lt") if view.flip < 0 else (bottom - 0.5 * em, "ls")
    draw.text((left + 0.5 * em, end), AXES[view.along], TEXT, font, anchor=anchor)


def _scatter(canvas: Image.Image, view: View, cloud: np.ndarray, shades: np.ndarray) -> None:
    """Points as small squares, what is nearer to the eye of the view last."""
    left, top, right, bottom = (round(edge) for edge in view.box)
    away = 3 - view.across - view.along  # seen from above and from the right: y grows away, x towards the eye
    order = np.argsort(cloud[:, away] * (-1 if away == 1 else 1))
    corner = np.floor(view(cloud[order])).astype(int) - (left, top)
    area = np.asarray(canvas.crop((left, top, right, bottom))).copy()
    for dy, dx in np.ndindex(GRAIN, GRAIN):
        x, y = corner[:, 0] + dx, corner[:, 1] + dy
        inside = (x >= 0) & (x < area.shape[1]) & (y >= 0) & (y < area.shape[0])
        area[y[inside], x[inside]] = shades[order][inside]
    canvas.paste(Image.fromarray(area), (left, top))


def _tick_step(view: View, pixels: float) -> float:
    """The round distance, 1, 2 or 5 times a power of ten, that is nearest to a number of pixels."""
    rough = pixels / view.scale
    power = 10.0 ** math.floor(math.log10(rough))
    return power * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * power / rough)))


def _paths(
    draw: ImageDraw.ImageDraw,
    view: View,
    paths: Sequence[CameraTrajectory],
    centres: Sequence[np.ndarray],
    reach: float,
) -> None:
    """All paths in one view: later frusta below, starts and lines above them, the dots of the starts on top."""
    for index, path in enumerate(paths):
        color = _mix(PANEL, COLORS[index % len(COLORS)], 0.6)
        for part in range(1, FRUSTA + 1):
            _frustum(draw, view, path, round(part * (len(path) - 1) / FRUSTA), reach, color)
    for index, path in enumerate(paths):
        _frustum(draw, view, path, 0, reach, TEXT)
        _line(draw, view(centres[index]), COLORS[index % len(COLORS)])
    for line in centres:
        x, y = view(line[0])
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=BRIGHT)


def _line(draw: ImageDraw.ImageDraw, line: np.ndarray, color: str) -> None:
    """The line [F, 2] of a path's centres in pixels, with an arrow head where it ends."""
    k = SUPERSAMPLE
    draw.line([tuple(point) for point in line.tolist()], color, 2 * k + 1, joint="curve")
    away = np.linalg.norm(line - line[-1], axis=1) > 2 * k
    if away.any():
        way = line[-1] - line[np.flatnonzero(away)[-1]]
        way = way / np.linalg.norm(way) * 8 * k
        side = np.array([-way[1], way[0]]) / 2
        draw.polygon([tuple(point) for point in (line[-1] + way, line[-1] + side, line[-1] - side)], fill=color)


def _frustum(
    draw: ImageDraw.ImageDraw,
    view: View,
    path: CameraTrajectory,
    frame: int,
    reach: float,
    color: str | tuple[int, ...],
) -> None:
    """The pyramid from one camera's centre to the corners of its picture at depth ``reach``."""
    c2w, K = path.c2w[frame].double().cpu(), path.K[frame].double().cpu()
    corners = torch.tensor([[0, 0, 1], [path.width, 0, 1], [path.width, path.height, 1], [0, path.height, 1]])
    local = reach * torch.linalg.inv(K) @ corners.double().T  # [3, 4]
    world = (c2w[:3, :3] @ local).T + c2w[:3, 3]
    tip, *edge = [tuple(point) for point in view(torch.cat((c2w[None, :3, 3], world)).numpy()).tolist()]
    for corner, following in zip(edge, edge[1:] + edge[:1], strict=True):
        draw.line((tip, corner, following), color, SUPERSAMPLE + 1, joint="curve")


def _mix(back: str, front: str, share: float) -> tuple[int, ...]:
    """A colour laid over another one."""
    pairs = zip(ImageColor.getrgb(back), ImageColor.getrgb(front), strict=True)
    return tuple(round(b + share * (f - b)) for b, f in pairs)


def _legend(canvas: Image.Image, paths: Sequence[CameraTrajectory], font: ImageFont.FreeTypeFont) -> float:
    """Names of the paths in rows along the lower edge, as many as fit its third; returns where the first row begins."""
    draw, em, (width, height) = ImageDraw.Draw(canvas), font.size, canvas.size
    names = [path.name if len(path.name) <= 24 else f"{path.name[:21]}..." for path in paths]
    cell = max(draw.textlength(name, font) for name in names) + 4 * em
    columns = max(1, min(len(names), int((width - 2 * em) // cell)))
    rows = min(math.ceil(len(names) / columns), int(height / 3 / (1.7 * em)))
    if len(names) > rows * columns:
        names[rows * columns - 1 :] = [f"and {len(names) - rows * columns + 1} more"]
    left, top = (width - columns * cell + em) / 2, height - 1.7 * em * rows - 0.3 * em
    for index, name in enumerate(names):
        x, y = left + index % columns * cell, top + (index // columns + 0.5) * 1.7 * em
        draw.line((x, y, x + 1.4 * em, y), COLORS[index % len(COLORS)], 3 * SUPERSAMPLE)
        draw.text((x + 1.9 * em, y), name, TEXT, font, anchor="lm")
    return top

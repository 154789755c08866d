"""Ray tracing of ``Scenes`` in batches: exact depth, and colours from patterns that stay within the pixel grid.

Rays are [S, F, 3, R]: scenes, frames, axes, rays. A ray's direction has camera z 1, so its length is z-depth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....kernels_glue.devices import by_device
from ...cameras.path import CameraTrajectory
from ...shapes import check_shapes
from .scenes import SHAPES, WALL, Scenes

AMBIENT, SUN = 0.42, 0.75  # light from everywhere, tinted by the sky, and from the sun at right angles
SUN_COLOR = (1.0, 0.97, 0.9)
GAMMA = 0.8  # lifts the dark parts of the finished picture
SHADOW = 0.7  # share of the sun's light that a shadow takes, and of the rest close to what stands there
CONTACT = 0.4
HAZE = (12.0, 40.0)  # room units from the origin where haze begins, and where ground becomes sky
RAYS = {"cpu": 1 << 18, "cuda": 1 << 23}  # at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class Traced:
    """Pictures of S scenes."""

    rgb: Tensor  # [S, F, H, W, 3] in [0, 1]
    depth: Tensor  # [S, F, H, W] z-depth at pixel centres, infinite for the sky

    def __post_init__(self) -> None:
        check_shapes(self, rgb="S F H W 3", depth="S F H W")


@torch.no_grad()  # not inference mode: losses keep these pictures for their backward pass
def trace(scenes: Scenes, cameras: Sequence[CameraTrajectory], times: Tensor, supersample: int = 2) -> Traced:
    """Each scene along its path; ``times`` [F] are those of the frames, 0 the first of a clip and 1 the last.

    Colours are means of ``supersample`` squared rays a pixel (0: none, they stay black).
    """
    cameras = [path.to(scenes.room.device) for path in cameras]
    height, width = cameras[0].height, cameras[0].width
    c2w, K = torch.stack([path.c2w for path in cameras]), torch.stack([path.K for path in cameras])
    rgb = c2w.new_zeros(*c2w.shape[:2], height, width, 3)
    depth = c2w.new_empty(rgb.shape[:-1])
    offsets = [(i + 0.5) / supersample for i in range(supersample)]
    for rows, frames in chunks(len(scenes), len(times), height * width, c2w.device):
        room = Room(scenes[rows], times[frames], c2w[rows, frames, :3, 3])
        poses = room.axes(c2w[rows, frames, :3, :3])
        for i, (dy, dx) in enumerate(((0.5, 0.5), *((y, x) for y in offsets for x in offsets))):
            rays = turned(poses, pixel_directions(K[rows, frames], height, width, dx, dy))
            length, place = room.hit(rays)
            if i == 0:
                depth[rows, frames] = room.seen_depth(rays, length).unflatten(-1, (height, width))
            else:
                spread = 1 / (supersample * K[rows, frames, 0, 0])
                color = room.color(rays, length, place, spread).unflatten(-1, (height, width))
                rgb[rows, frames] += color.movedim(2, -1) / supersample**2
    return Traced(rgb=rgb.clamp_(0, 1) ** GAMMA, depth=depth)


@torch.no_grad()
def seen_from(
    scenes: Scenes, depth: Tensor, cameras: Sequence[CameraTrajectory], base: CameraTrajectory, times: Tensor
) -> Tensor:
    """Which pixels [S, F, H, W] of traced pictures show what the first camera of ``base`` sees at the same time (bool).

    ``depth`` is theirs [S, F, H, W]. The others are holes: beyond that camera's picture, or hidden from it.
    """
    device = scenes.room.device
    base, found = base.to(device), torch.empty(depth.shape, dtype=torch.bool, device=device)
    height, width = depth.shape[2:]
    for rows, frames in chunks(len(scenes), len(times), height * width, device):
        path = torch.stack([cameras[row].c2w[frames].to(device) for row in range(len(scenes))[rows]])
        K = torch.stack([cameras[row].K[frames].to(device) for row in range(len(scenes))[rows]])
        rays = turned(path[..., :3, :3], pixel_directions(K, height, width, 0.5, 0.5))
        far = depth[rows, frames].flatten(2)[:, :, None]  # [S, F, 1, R]
        is_sky = far.isinf()
        # the sky is a direction; everything else a point, seen from the base camera
        towards = torch.where(is_sky, rays, path[..., :3, 3:] + rays * far - base.c2w[0, :3, 3:])
        x, y, z = turned(base.c2w[0, :3, :3].T, towards).unbind(2)
        (fx, _, cx), (_, fy, cy), _ = base.K[0].tolist()
        u, v = fx * x / z + cx, fy * y / z + cy
        inside = (z > 0) & (u >= 0) & (u <= base.width) & (v >= 0) & (v <= base.height)
        eyes = base.c2w[0, :3, 3].expand(*path.shape[:2], 3)
        room = Room(scenes[rows], times[frames], eyes)
        directions = room.axes(towards)
        length, _ = room.hit(directions)
        first = room.seen_depth(directions, length)
        free = torch.where(is_sky[:, :, 0], first.isinf(), first > 1 - 1e-3)  # a point lies at length 1
        found[rows, frames] = (inside & free).unflatten(-1, (height, width))
    return found


def chunks(scenes: int, frames: int, pixels: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Parts of a batch that fit in memory: several scenes, or several frames of one."""
    pictures = max(1, by_device(RAYS, device) // pixels)
    rows, columns = max(1, pictures // frames), min(pictures, frames)
    for row in range(0, scenes, rows):
        for column in range(0, frames, columns):
            yield slice(row, min(row + rows, scenes)), slice(column, min(column + columns, frames))


def pixel_directions(K: Tensor, height: int, width: int, dx: float, dy: float) -> Tensor:
    """Camera directions [S, F, 3, H W] with z 1 through a place in each pixel, cameras K [S, F, 3, 3]."""
    y, x = torch.meshgrid(
        torch.arange(height, device=K.device) + dy, torch.arange(width, device=K.device) + dx, indexing="ij"
    )
    x, y = ((grid.flatten() - K[..., i, 2:]) / K[..., i, i, None] for i, grid in enumerate((x, y)))
    return torch.stack((x, y, torch.ones_like(x)), 2)


class Room:
    """Scenes at some times, seen from some places: [S] scenes, eyes [S, F, 3] in world axes."""

    def __init__(self, scenes: Scenes, times: Tensor, eyes: Tensor):
        self.scenes = scenes
        self.eyes = self.axes(eyes[..., None])  # [S, F, 3, 1]
        self.centers, self.turns = scenes.poses(times)  # [S, F, N, 3], [S, F, N, 3, 3]
        self.locals = self.turns.mT / scenes.sizes[:, None, :, :, None]  # object of size 1 from room
        self.places = [place for place in range(len(SHAPES)) if scenes.present[:, place].any()]

    def axes(self, vectors: Tensor) -> Tensor:
        """World vectors, columns of [S, F, 3, R], in room axes and units."""
        return turned(self.scenes.room[:, None], vectors)

    def local(self, place: int, points: Tensor) -> Tensor:
        """Room points [S, F, 3, R] in the frame of an object of size 1."""
        return turned(self.locals[:, :, place], points - self.centers[:, :, place, :, None])

    def hit(self, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Length [S, F, R] to the first thing along room rays [S, F, 3, R], and its place; the ground's is the last.

        The length is infinite where there is nothing.
        """
        ground = self.scenes.ground[:, None, None] - self.eyes[:, :, 1]
        nearest = torch.where(rays[:, :, 1] > 0, ground / rays[:, :, 1], torch.inf)
        found = torch.full_like(nearest, len(SHAPES), dtype=torch.long)
        for place in self.places:
            eye, ray = self.local(place, self.eyes), turned(self.locals[:, :, place], rays)
            enter, leave = INTERVALS[SHAPES[place]](eye, ray)
            is_first = (enter < leave) & (enter > 0) & (enter < nearest)
            is_first &= self.scenes.present[:, place, None, None]
            nearest, found = torch.where(is_first, enter, nearest), found.masked_fill(is_first, place)
        return nearest, found

    def seen_depth(self, rays: Tensor, length: Tensor) -> Tensor:
        """The length, infinite where haze has swallowed the ground."""
        far = norm(self.eyes + rays * length[:, :, None])[:, :, 0]
        return torch.where(far < HAZE[1], length, torch.inf)

    def color(self, rays: Tensor, length: Tensor, place: Tensor, spread: Tensor) -> Tensor:
        """Colours [S, F, 3, R] of what rays have hit; ``spread`` [S, F] is the width of a ray at length 1."""
        stretch = norm(rays)
        unit = rays / stretch
        height = (-unit[:, :, 1:2]).clamp(0, 1).sqrt()
        horizon, zenith = (self.scenes.sky[:, None, i, :, None] for i in range(2))
        sky = horizon + (zenith - horizon) * height
        points = self.eyes + rays * torch.where(length.isfinite(), length, 0)[:, :, None]
        normals, within = self.surface(points, place)
        width = spread[..., None] * length * stretch[:, :, 0]
        width = width / (-(unit * normals).sum(2)).clamp(0.1, 1).sqrt()  # wider where the surface is seen at a slant
        lit = self.pattern(within, place, width) * self.light(points, normals, place)
        haze = smooth((norm(points) - HAZE[0]) / (HAZE[1] - HAZE[0]))
        return torch.where(length.isfinite()[:, :, None], lit + (horizon - lit) * haze, sky)

    def surface(self, points: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Normals, and points in the axes of what they lie on, [S, F, 3, R] each, for points of known place."""
        s, f = self.centers.shape[:2]
        ground = points.new_tensor([0, 0, 0, *torch.eye(3).flatten(), 1, 1, 1]).expand(s, f, 1, 15)
        sizes = self.scenes.sizes[:, None].expand(s, f, -1, 3)
        table = torch.cat((torch.cat((self.centers, self.turns.flatten(3), sizes), 3), ground), 2)  # [S, F, N + 1, 15]
        own = look_up(table, place)  # [S, F, 15, R]
        turns, sizes = own[:, :, 3:12].unflatten(2, (3, 3)), own[:, :, 12:]
        within = (turns * (points - own[:, :, :3])[:, :, :, None]).sum(2)  # [S, F, 3, R]
        local = within / sizes
        x, y, z = local.unbind(2)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        ball = local / sizes
        side = (local.abs() >= local.abs().amax(2, keepdim=True) * (1 - 1e-6)) * local.sign()
        cap = y.abs() > (x * x + z * z).sqrt()
        drum = torch.stack((torch.where(cap, zero, x), torch.where(cap, y.sign(), zero), torch.where(cap, zero, z)), 2)
        kind = place.new_tensor([KINDS.index(shape) for shape in (*SHAPES, "ground")])[place][:, :, None]
        flat = torch.stack((zero, -one, zero), 2)
        normals = torch.where(kind == 0, ball, torch.where(kind == 1, side, torch.where(kind == 2, drum, flat)))
        normals = (turns * normals[:, :, None]).sum(3)
        return normals / norm(normals), within

    def pattern(self, within: Tensor, place: Tensor, width: Tensor) -> Tensor:
        """Colours [S, F, 3, R] of points in their objects' axes; waves fade as they come near a ray's width."""
        scenes = self.scenes
        looks = (scenes.colors.flatten(2), scenes.waves.flatten(2), scenes.phases, scenes.weights)
        own = look_up(torch.cat(looks, 2)[:, None].expand(-1, within.shape[1], -1, -1), place)  # [S, F, 22, R]
        first, second, waves, phases, weights = own.split([3, 3, 9, 3, 4], 2)
        waves = waves.unflatten(2, (3, 3))
        blur = waves.square().sum(3) * width[:, :, None].square() / 8
        sines = ((waves * within[:, :, None]).sum(3) + phases).sin() * (-blur).exp()
        mix = (weights[:, :, :3] * sines).sum(2) + weights[:, :, 3] * sines[:, :, 0] * sines[:, :, 1]
        return first + (second - first) * mix.sigmoid()[:, :, None]

    def light(self, points: Tensor, normals: Tensor, place: Tensor) -> Tensor:
        """Light [S, F, 3, R]: the sun with soft shadows, the sky, and less of that close to what stands there.

        Objects cast the shadow of the ellipsoid they contain, except the wall, which casts none.
        """
        sun = self.scenes.sun[:, None, :, None]
        sunlight, ambient = (normals * sun).sum(2).clamp_min(0), 0.85 - 0.15 * normals[:, :, 1]
        for caster in self.places:
            if caster == WALL:
                continue
            q, towards = self.local(caster, points), turned(self.locals[:, :, caster], sun)
            towards = towards / norm(towards)
            ahead = -(q * towards).sum(2)  # of the caster's centre on the way to the sun, in its sizes
            squared = q.square().sum(2)
            miss = (squared - ahead.square()).clamp_min(0).sqrt()
            other = (place != caster) & self.scenes.present[:, caster, None, None]
            sunlight = sunlight * (1 - SHADOW * smooth((1.3 - miss) / 0.7) * ahead.clamp(0, 1) * other)
            ambient = ambient * (1 - CONTACT * (2 - squared.sqrt()).clamp(0, 1).square() * other)
        tint = (1 + self.scenes.sky[:, None, 1, :, None]) / 2
        warm = points.new_tensor(SUN_COLOR)[:, None]
        return AMBIENT * tint * ambient[:, :, None] + SUN * warm * sunlight[:, :, None]


KINDS = ("ball", "box", "drum", "ground")


def look_up(table: Tensor, place: Tensor) -> Tensor:
    """Rows of tables [S, F, N, D] for rays of places [S, F, R]: [S, F, D, R]."""
    s, f, count, _ = table.shape
    first = torch.arange(s * f, device=place.device).view(s, f, 1) * count
    columns = table.flatten(0, 2).T.contiguous()  # [D, S F N]
    return columns[:, (first + place).flatten()].unflatten(1, place.shape).movedim(0, 2)


def turned(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Matrices [..., 3, 3] times vectors [S, F, 3, R]; no matrix product, which a GPU may be told to round (TF32)."""
    x, y, z = vectors[..., 0:1, :], vectors[..., 1:2, :], vectors[..., 2:3, :]
    return matrices[..., 0:1] * x + matrices[..., 1:2] * y + matrices[..., 2:3] * z


def norm(vectors: Tensor) -> Tensor:
    """Lengths [S, F, 1, R] of vectors [S, F, 3, R]. ``Tensor.norm`` is many times slower on the CPU along this axis."""
    return vectors.square().sum(2, keepdim=True).sqrt()


def smooth(x: Tensor) -> Tensor:
    """From 0 at 0 to 1 at 1 without corners."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def ball_interval(eye: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths [S, F, R] where rays enter and leave the unit ball; eyes [S, F, 3, 1], rays [S, F, 3, R]."""
    return roots(ray.square().sum(2), (eye * ray).sum(2), eye.square().sum(2) - 1)


def box_interval(eye: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the cube between -1 and 1."""
    a, b = (-1 - eye) / ray, (1 - eye) / ray
    return torch.minimum(a, b).amax(2), torch.maximum(a, b).amin(2)


def drum_interval(eye: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the cylinder of radius 1 about y, between -1 and 1."""
    (ex, ey, ez), (rx, ry, rz) = eye.unbind(2), ray.unbind(2)
    enter, leave = roots(rx * rx + rz * rz, ex * rx + ez * rz, ex * ex + ez * ez - 1)
    a, b = (-1 - ey) / ry, (1 - ey) / ry
    return torch.maximum(enter, torch.minimum(a, b)), torch.minimum(leave, torch.maximum(a, b))


def roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Where a t^2 + 2 b t + c is 0, smaller first; the wrong way round if nowhere."""
    under = b * b - a * c
    root = under.clamp_min(0).sqrt()
    return torch.where(under > 0, (-b - root) / a, torch.inf), torch.where(under > 0, (-b + root) / a, -torch.inf)


INTERVALS = {"ball": ball_interval, "box": box_interval, "drum": drum_interval}

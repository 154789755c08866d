"""Procedural scenes from seeds: what the mini models learn from and are measured on (training.md 13.3).

A room with y down: a patterned ground, balls, boxes, drums and often a wall under a sky with one sun. The world is
the first camera's frame, its unit the median depth of the first picture. All parameters are drawn on the CPU, so a
seed is one scene on any device.
"""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from ...cameras.moves import SIX_PATHS, PathSettings, six_paths, still
from ...cameras.path import CameraTrajectory
from ...geometry.geometry import Geometry
from .raytrace import trace
from .scenes import SHAPES, WALL, Scenes, about_vertical, join

SPLITS = {
    "pretraining": range(0, 3_000),  # true renders: tokenizer and teacher
    "sdg": range(10_000, 12_000),  # only the first picture and its depth are used
    "validation": range(800_000, 800_064),
    "test": range(900_000, 900_064),
}
LENGTHS = {"paper": SIX_PATHS, "large": dict.fromkeys(SIX_PATHS, (0.2, 0.6))}  # of the six paths, in median depths

GOLDEN_RATIO = (5**0.5 - 1) / 2
CLEARANCE = 0.25  # room units that cameras stay away from objects and ground
ATTEMPTS = 200


def draw_scenes(seeds: Sequence[int], moving: bool = False) -> Scenes:
    """The scenes of some seeds, on the CPU. Moving or not, a seed's scene is the same at time 0."""
    return join([draw_scene(seed, moving) for seed in seeds])


def base_camera(height: int, width: int) -> CameraTrajectory:
    """The camera of every first picture: at the origin, focal length 0.8 widths."""
    focal = 0.8 * width
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return CameraTrajectory(c2w=torch.eye(4)[None], K=K[None], height=height, width=width, name="base")


def scene_paths(
    seed: int, frames: int, height: int, width: int, lengths: str = "paper"
) -> tuple[CameraTrajectory, ...]:
    """The six paths of a scene, their distances drawn from its seed within LENGTHS."""
    if lengths not in LENGTHS:
        raise ValueError(f"unknown path lengths '{lengths}'; use one of {', '.join(LENGTHS)}")
    random = Random(f"paths {seed}")
    distances = [random.uniform(*limits) for limits in LENGTHS[lengths].values()]
    return six_paths(base_camera(height, width), PathSettings(frames=frames), distances)


def draw_scene(seed: int, moving: bool = False) -> Scenes:
    """One scene, drawn again until every camera of the longest paths has room around it; then its motion likewise."""
    random, motion = Random(f"scene {seed}"), Random(f"motion {seed}")
    longest = [limits[1] for limits in LENGTHS["large"].values()]
    paths = six_paths(base_camera(24, 40), PathSettings(frames=9), longest)
    eyes = torch.cat([path.c2w[:, :3, 3] for path in paths])
    for _ in range(ATTEMPTS):
        scene = in_median_depths(_draw(seed, random))
        if has_room(scene, eyes):
            break
    else:
        raise RuntimeError(f"scene {seed}: no free place for the cameras in {ATTEMPTS} attempts")
    for _ in range(ATTEMPTS if moving else 0):
        moved = _moved(scene, motion)
        if has_room(moved, eyes):
            return moved
    if moving:
        raise RuntimeError(f"scene {seed}: no motion that keeps clear of the cameras in {ATTEMPTS} attempts")
    return scene


def source_geometry(scene: Scenes, height: int, width: int, frames: int = 1) -> Geometry:
    """What a single scene gives the teacher: its first picture, or a clip of it from a camera that stands still.

    The depth of the sky is infinite and not valid, as picture geometry has it.
    """
    cameras = still(base_camera(height, width), frames)
    traced = trace(scene, [cameras], torch.linspace(0, 1, frames) if frames > 1 else torch.zeros(1))
    frames, depth = traced.rgb[0], traced.depth[0]
    return Geometry(frames=frames, depth=depth, valid=depth.isfinite(), cameras=cameras.to(depth.device))


def in_median_depths(scene: Scenes) -> Scenes:
    """A single scene with the median depth of its first picture, sky apart, for the world's unit."""
    depth = trace(scene, [base_camera(24, 40)], torch.zeros(1), supersample=0).depth
    return replace(scene, room=scene.room * depth[depth.isfinite()].median())


def has_room(scene: Scenes, eyes: Tensor) -> bool:
    """Whether no point [P, 3] of the world is near the ground, or ever near an object, of a single scene."""
    places = eyes @ scene.room[0].T
    centers, turns = scene.poses(torch.linspace(0, 1, 9))
    offsets = places[None, None] - centers[0, :, :, None]  # [F, N, P, 3]
    local = (offsets @ turns[0]) / scene.sizes[0, :, None]
    near = (local.abs() < 1 + CLEARANCE / scene.sizes[0, :, None]).all(-1) & scene.present[0, :, None]
    return not near.any() and bool((places[:, 1] < scene.ground - CLEARANCE).all())


def _draw(seed: int, random: Random) -> Scenes:
    """A scene at rest, with the room's unit for the world's."""
    count = len(SHAPES)
    ground, pitch = random.uniform(1.0, 1.7), math.radians(random.uniform(3, 14))
    here = {n: random.randint(*limits) for n, limits in (("ball", (2, 4)), ("box", (2, 4)), ("drum", (0, 2)))}
    base = random.random()
    present, centers, turns, sizes, looks, taken = [], [], [], [], [], []
    for place, shape in enumerate(SHAPES):
        nth = SHAPES[:place].count(shape)
        is_there = nth < here[shape] if place != WALL else random.random() < 0.7
        if place == WALL:
            size, angle = (random.uniform(4, 9), random.uniform(1.2, 2.8), 0.25), random.uniform(-0.35, 0.35)
            center, turn = (random.uniform(-2, 2), ground - size[1], random.uniform(8, 11)), _turn(angle)
        else:
            size, turn, lift = _body(shape, random)
            center = _free_place(random, ground - lift, max(size[0], size[2]), taken)
            is_there = is_there and center is not None
            if is_there:
                taken.append((center[0], center[2], max(size[0], size[2])))
        present.append(is_there)
        centers.append(center or (0.0, 0.0, 0.0))
        turns.append(turn)
        sizes.append(size)
        wavelength = (1.6, 4.0) if place == WALL else (0.5, 1.5)
        looks.append(_look(random, base + GOLDEN_RATIO * (place + 1), wavelength, muted=place == WALL))
    looks.append(_look(random, base, (1.4, 3.6), muted=True))
    colors, waves, phases, weights = ([look[i] for look in looks] for i in range(4))
    elevation, azimuth = random.uniform(0.5, 1.1), random.uniform(-1.7, 1.7)
    sun = (math.cos(elevation) * math.sin(azimuth), -math.sin(elevation), -math.cos(elevation) * math.cos(azimuth))
    c, s = math.cos(pitch), math.sin(pitch)
    rest = torch.zeros(1, count, 3)
    return Scenes(
        seeds=(seed,), present=torch.tensor([present]), centers=torch.tensor([centers]), turns=torch.tensor([turns]),
        sizes=torch.tensor([sizes]), velocities=rest, swings=rest, rates=rest[..., 0], spins=rest[..., 0],
        colors=torch.tensor([colors]), waves=torch.tensor([waves]), phases=torch.tensor([phases]),
        weights=torch.tensor([weights]), ground=torch.tensor([ground]), sun=torch.tensor([sun]),
        sky=torch.tensor([_sky(random)]), room=torch.tensor([[[1.0, 0, 0], [0, c, s], [0, -s, c]]]),
    )  # fmt: skip


def _body(shape: str, random: Random) -> tuple[tuple, list, float]:
    """Half extents, turn, and height of the centre over the ground, of an object that stands, lies or floats."""
    floats = random.uniform(0.4, 1.3) if shape == "ball" and random.random() < 0.25 else 0.0
    if shape == "ball":
        radius, squash = random.uniform(0.3, 0.75), random.uniform(0.75, 1.25)
        size = (radius, radius * squash, radius)
    elif shape == "box":
        size = tuple(random.uniform(0.22, 0.62) for _ in range(3))
        if random.random() < 0.3:
            size = (size[0] * 0.6, random.uniform(0.8, 1.4), size[2] * 0.6)  # a pillar
    else:
        radius, half = random.uniform(0.2, 0.45), random.uniform(0.3, 0.9)
        size = (radius, half, radius)
    turn, lies = _turn(random.uniform(-math.pi, math.pi)), shape == "drum" and random.random() < 0.35
    if lies:
        turn = [[b, a, -c] for a, b, c in turn]  # its axis along the ground
    return size, turn, (size[0] if lies else size[1]) + floats


def _turn(angle: float) -> list[list[float]]:
    """Rotation about the vertical."""
    return about_vertical(torch.tensor(angle)).tolist()


def _free_place(random: Random, y: float, radius: float, taken: list) -> tuple[float, float, float] | None:
    """A centre in sight of the first camera and beside the others, or None if there is hardly any."""
    for _ in range(20):
        z = random.uniform(3.2, 7.2)
        x = random.uniform(-0.55, 0.55) * z
        if all(math.hypot(x - a, z - b) > 0.9 * (radius + r) for a, b, r in taken):
            return x, y, z
    return None


def _look(random: Random, hue: float, wavelength: tuple[float, float], muted: bool) -> tuple:
    """Two colours, and the pattern that mixes them."""
    saturation, value = (random.uniform(0.1, 0.4), random.uniform(0.65, 0.95)) if muted else (
        random.uniform(0.45, 0.9), random.uniform(0.75, 1.0))  # fmt: skip
    first = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    other = hue + random.choice((0.0, 0.06, -0.06, 0.5))
    second = colorsys.hsv_to_rgb(other % 1, saturation * random.uniform(0.4, 1), value * random.uniform(0.45, 0.85))
    style = random.choice(("plain", "waves", "waves", "stripes", "checks", "blots"))
    weights = {
        "plain": (0.5, 0.4, 0.3, 0.0), "waves": (1.6, 1.2, 0.9, 0.0), "stripes": (5.0, 0.4, 0.0, 0.0),
        "checks": (0.0, 0.0, 0.0, 7.0), "blots": (1.5, 1.5, 1.5, 3.0),
    }[style]  # fmt: skip
    waves, length = [], 2 * math.pi / random.uniform(*wavelength)
    axes = random.choice(((0, 2), (0, 1), (2, 1))) if not muted else (0, 2)
    for i in range(3):
        direction = [random.gauss(0, 1) for _ in range(3)]
        if style == "checks" and i < 2:
            direction = [float(axis == axes[i]) for axis in range(3)]
        rate = length * (1 if style == "checks" else random.uniform(0.6, 1.4))
        waves.append([rate * d / math.hypot(*direction) for d in direction])
    return (first, second), waves, [random.uniform(0, math.tau) for _ in range(3)], weights


def _sky(random: Random) -> tuple:
    """Colours of horizon and zenith, at noon or at dusk."""
    if random.random() < 0.25:
        horizon = random.uniform(0.02, 0.12), random.uniform(0.3, 0.55), 1.0
        zenith = random.uniform(0.58, 0.78), random.uniform(0.3, 0.5), random.uniform(0.5, 0.75)
    else:
        hue = random.uniform(0.5, 0.64)
        horizon = hue, random.uniform(0.04, 0.2), random.uniform(0.88, 1.0)
        zenith = hue, random.uniform(0.35, 0.65), random.uniform(0.65, 0.95)
    return colorsys.hsv_to_rgb(*horizon), colorsys.hsv_to_rgb(*zenith)


def _moved(scene: Scenes, random: Random) -> Scenes:
    """The scene with one to three of its objects moving."""
    there = [place for place in range(len(SHAPES)) if scene.present[0, place] and place != WALL]
    motion = {name: getattr(scene, name).clone() for name in ("velocities", "swings", "rates", "spins")}
    for place in random.sample(there, min(len(there), random.randint(1, 3))):
        angle, speed = random.uniform(-math.pi, math.pi), random.uniform(0.5, 1.4)
        motion["velocities"][0, place] = torch.tensor([speed * math.cos(angle), 0, 0.6 * speed * math.sin(angle)])
        sway, hop = random.uniform(0, 0.3), random.choice((0.0, 0.0, random.uniform(0.2, 0.6)))
        motion["swings"][0, place] = torch.tensor([sway, -hop, 0.0])
        motion["rates"][0, place] = random.uniform(math.pi, 2 * math.pi) if not hop else math.pi
        motion["spins"][0, place] = random.uniform(-1.5, 1.5)
    return replace(scene, **motion)

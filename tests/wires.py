"""Where the editor draws the wires of a graph, and what they run behind.

A wire is a cubic from socket to socket, or through its reroutes, as LiteGraph draws it. It is hidden where a node lies
on it that it does not belong to, and it crosses a group that holds neither of its ends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import atan2, cos, dist, pi, sin

import numpy as np

Point = Sequence[float]
TITLE, SLOT = 30, 20  # pixels: the title above a node, and from socket to socket
SAMPLES, BEND, EDGE = 40, 80, 2  # points a piece; how far a reroute bends it; an edge that may be touched


@dataclass(frozen=True)
class Area:
    """A node or a group: its name, what nodes it holds, and its left, top, right and bottom."""

    name: str
    holds: frozenset[int]
    sides: tuple[float, float, float, float]

    def covers(self, curve: np.ndarray) -> bool:
        """Whether a point of a curve [N, 2] lies inside."""
        left, top, right, bottom = self.sides
        low, high = (left + EDGE, top + EDGE), (right - EDGE, bottom - EDGE)
        return bool(((curve > low) & (curve < high)).all(1).any())


def crossings(graph: dict) -> list[str]:
    """What each wire of a saved graph runs behind; wires to a box's own inputs and outputs are left out."""
    areas, nodes = areas_of(graph), {node["id"]: node for node in graph["nodes"]}
    found = []
    for given in graph["links"]:
        link, source, slot, target, place, *_ = given.values() if isinstance(given, dict) else given
        if source in nodes and target in nodes:
            ends = output(nodes[source], slot), put(nodes[target], place)
            points = (ends[0], *reroutes(graph, link), ends[1])
            found += crossed(areas, source, target, points)
    return found


def crossed(areas: Iterable[Area], source: int, target: int, points: Sequence[Point]) -> list[str]:
    """The same of one wire, by the points it passes."""
    curve = drawn(points)
    others = (area for area in areas if not {source, target} & area.holds)
    return [f"{source} to {target} behind {area.name}" for area in others if area.covers(curve)]


def areas_of(graph: dict) -> list[Area]:
    """Nodes with their titles, and groups with what begins in them."""
    nodes = [
        Area(node["type"], frozenset((node["id"],)), (x, y - TITLE, x + width, y + height))
        for node in graph["nodes"]
        for (x, y), (width, height) in [(node["pos"], node["size"])]
    ]
    for group in graph.get("groups", ()):
        x, y, width, height = group["bounding"]
        holds = (n["id"] for n in graph["nodes"] if x <= n["pos"][0] < x + width and y <= n["pos"][1] < y + height)
        nodes.append(Area(f"group {group['title']}", frozenset(holds), (x, y, x + width, y + height)))
    return nodes


def output(node: dict, slot: int) -> Point:
    """Where an output is."""
    return node["pos"][0] + node["size"][0] - 9, node["pos"][1] + (slot + 0.7) * SLOT


def put(node: dict, slot: int) -> Point:
    """Where an input is; widgets that take a wire stand below all others."""
    row = [each["name"] for each in sorted(node["inputs"], key=lambda each: "widget" in each)]
    return node["pos"][0] + 10, node["pos"][1] + (row.index(node["inputs"][slot]["name"]) + 0.7) * SLOT


def reroutes(graph: dict, link: int) -> list[Point]:
    """The points that a wire is led through, from its source on."""
    extra = graph.get("extra") or {}
    known = {each["id"]: each for each in extra.get("reroutes", ())}
    last = next((each["parentId"] for each in extra.get("linkExtensions", ()) if each["id"] == link), None)
    found: list[Point] = []
    while last is not None:
        found.insert(0, known[last]["pos"])
        last = known[last].get("parentId")
    return found


def drawn(points: Sequence[Point]) -> np.ndarray:
    """Points [N, 2] of the curve; at a reroute its direction is half way between those of its two neighbours."""
    pieces, away = [], None
    for i, (start, end) in enumerate(zip(points, points[1:], strict=False)):
        length = dist(start, end) / 4
        leaves = away if away is not None else (length, 0)
        arrives = (length, 0)
        if i + 2 < len(points):
            turn, reach = middle(start, end, points[i + 2]), dist(end, points[i + 2]) / 4
            arrives = (min(BEND, length) * cos(turn), min(BEND, length) * sin(turn))
            away = (min(BEND, reach) * cos(turn), min(BEND, reach) * sin(turn))
        pieces.append(cubic(start, np.add(start, leaves), np.subtract(end, arrives), end))
    return np.concatenate(pieces)


def middle(before: Point, here: Point, after: Point) -> float:
    """The direction of a wire at a reroute, in radians."""
    come, go = (atan2(b[1] - a[1], b[0] - a[0]) for a, b in ((before, here), (here, after)))
    half = (come - go) / 2
    return come - (half + pi if abs(half) > pi / 2 else half)


def cubic(*corners: Point) -> np.ndarray:
    """Points [N, 2] of a Bezier curve."""
    t = np.linspace(0, 1, SAMPLES)[:, None]
    weights = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
    return sum(weight * np.asarray(corner) for weight, corner in zip(weights, corners, strict=True))

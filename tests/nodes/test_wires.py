"""No wire of a shipped graph runs behind a node or a group that it does not belong to."""

import json
from pathlib import Path

import numpy as np
import pytest
from wires import Area, crossings, drawn

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = sorted((ROOT / "workflows").glob("*.json")) + sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_no_wire_runs_behind_what_it_does_not_belong_to(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    inside = workflow.get("definitions", {}).get("subgraphs", [])
    assert [crossings(graph) for graph in (workflow, *inside)] == [[]] * (1 + len(inside))


def node(id: int, x: float, y: float) -> dict:
    """A node with an input and an output."""
    return {"id": id, "type": f"node {id}", "pos": [x, y], "size": [100, 60], "inputs": [{"name": "in"}]}


def row(*between: dict) -> dict:
    """A wire from node 1 to node 2, 400 px to the right, and what lies there."""
    return {"nodes": [node(1, 0, 0), node(2, 500, 0), *between], "links": [[7, 1, 0, 2, 0, "IMAGE"]], "groups": []}


def test_a_node_on_a_wire_is_noticed():
    assert crossings(row(node(3, 250, 0))) == ["1 to 2 behind node 3"]
    assert crossings(row(node(3, 250, 60))) == []  # its title begins 16 px below the wire
    assert crossings(row(node(3, 250, 40))) == ["1 to 2 behind node 3"]


def test_a_group_on_a_wire_is_noticed_unless_it_holds_an_end():
    apart, around = {"title": "3", "bounding": [200, -50, 200, 200]}, {"title": "3", "bounding": [-20, -50, 400, 200]}
    assert crossings(row() | {"groups": [apart]}) == ["1 to 2 behind group 3"]
    assert crossings(row() | {"groups": [around]}) == []


def test_a_wire_is_led_around_by_reroutes():
    points = [{"id": 4, "pos": [180, -90]}, {"id": 5, "pos": [420, -90], "parentId": 4}]
    extra = {"reroutes": points, "linkExtensions": [{"id": 7, "parentId": 5}]}
    assert crossings(row(node(3, 250, 0)) | {"extra": extra}) == []
    assert crossings(row(node(3, 250, 0)) | {"extra": {"reroutes": points}}) == ["1 to 2 behind node 3"]


def test_a_wire_leaves_and_arrives_level_and_turns_half_way_at_a_reroute():
    curve = drawn([(0, 0), (100, 100), (300, 100)])
    before, after = curve[39] - curve[38], curve[41] - curve[40]
    assert abs(curve[1][1]) < abs(curve[1][0]) and curve[-1].tolist() == [300, 100]
    assert np.allclose([np.arctan2(*step[::-1]) for step in (before, after)], np.pi / 8, atol=0.05)
    assert Area("", frozenset(), (90, 90, 110, 110)).covers(curve)

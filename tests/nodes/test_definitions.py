"""What can be said of the nodes without ComfyUI: their schemas are read from the source, not run.

``python tests/nodes/test_definitions.py`` rewrites locales/en/nodeDefs.json from the schemas.
"""

import ast
import json
import re
from collections import Counter
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WIDGETS = ("Int", "Float", "String", "Boolean", "Combo", "Color")  # inputs that the editor draws and saves a value for


@dataclass
class Socket:
    """An input or output: its id, the name of its type in the source, and its keyword arguments that are constants."""

    id: str
    kind: str
    options: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.options.get("display_name", self.id)

    @property
    def widgets(self) -> int:
        """Values that the editor saves for it."""
        return (self.kind in WIDGETS) + bool(self.options.get("control_after_generate"))


@dataclass
class Node:
    """One node's schema."""

    id: str
    inputs: list[Socket]
    outputs: list[Socket]
    options: dict

    @property
    def widgets(self) -> int:
        return sum(socket.widgets for socket in self.inputs)


def constants(call: ast.Call) -> dict:
    """Keyword arguments of a call that are literals."""
    found = {}
    for keyword in call.keywords:
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return found


def sockets(calls: ast.List) -> list[Socket]:
    """The sockets of a list of ``io.Kind.Input("id", …)`` or ``….Output("id", …)`` calls."""
    return [Socket(ast.literal_eval(c.args[0]), c.func.value.attr, constants(c)) for c in calls.elts]


def read_nodes() -> list[Node]:
    """Every schema in the node files."""
    found = []
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        for call in (c for c in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(c, ast.Call)):
            keywords = {k.arg: k.value for k in call.keywords}
            if "node_id" in keywords:
                inputs, outputs = (sockets(keywords[side]) for side in ("inputs", "outputs"))
                found.append(Node(ast.literal_eval(keywords["node_id"]), inputs, outputs, constants(call)))
    return found


NODES = read_nodes()
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BOXES = sorted((ROOT / "subgraphs").glob("*.json"))  # that the editor offers beside the nodes
each_node = pytest.mark.parametrize("node", NODES, ids=lambda node: node.id)
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
each_graph = pytest.mark.parametrize("path", WORKFLOWS + BOXES, ids=lambda path: path.stem)


def english() -> dict:
    """What locales/en/nodeDefs.json must hold: the texts of the schemas."""

    def texts(socket: Socket) -> dict:
        return {"name": socket.name, "tooltip": socket.options.get("tooltip")}

    return {
        node.id: {
            "display_name": node.options["display_name"],
            "description": node.options["description"],
            "inputs": {socket.id: texts(socket) for socket in node.inputs},
            "outputs": {str(i): texts(socket) for i, socket in enumerate(node.outputs)},
        }
        for node in NODES
    }


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def graphs(path: Path) -> list[dict]:
    """A workflow and the graphs inside its boxes."""
    workflow = read_json(path)
    return [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]


def nodes_of(path: Path) -> list[dict]:
    """All nodes of a workflow, those inside its boxes too."""
    return [node for graph in graphs(path) for node in graph["nodes"]]


def test_every_node_of_the_list_is_read_here():
    source = (ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8")
    listed = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Assign) and n.targets[0].id == "NODES")
    assert len(NODES) == len(listed.value.elts) >= 10


def test_ids_and_display_names_are_our_own_and_unique():
    assert all(re.fullmatch(r"Lyra[A-Za-z0-9]+", node.id) for node in NODES)
    for names in ([node.id for node in NODES], [node.options["display_name"] for node in NODES]):
        assert [name for name, count in Counter(names).items() if count > 1] == []


@each_node
def test_a_node_says_what_it_is(node):
    assert node.options["category"].startswith("Lyra/")
    assert node.options["description"].endswith(".")
    assert node.options["search_aliases"]


@each_node
def test_every_socket_has_a_tooltip(node):
    assert [s.id for s in node.inputs + node.outputs if not s.options.get("tooltip", "").endswith(".")] == []


@each_node
def test_every_node_has_a_help_page_with_a_picture_that_names_its_sockets(node):
    page = (ROOT / "nodes" / "web" / "docs" / f"{node.id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {node.options['display_name']}\n")
    assert [s.name for s in node.inputs + node.outputs if f"| {s.name} |" not in page] == []
    assert page.count("](../pictures/") == 1


def test_every_help_page_and_translation_belongs_to_a_node():
    pages = {path.stem for path in (ROOT / "nodes" / "web" / "docs").iterdir()}
    assert pages == {node.id for node in NODES}
    for locale in (ROOT / "locales").iterdir():
        assert set(read_json(locale / "nodeDefs.json")) == {node.id for node in NODES}


def test_help_pages_show_the_pictures_that_are_there():
    web = ROOT / "nodes" / "web"
    shown = {
        name
        for page in (web / "docs").glob("*.md")
        for name in re.findall(r"\]\(\.\./(pictures/[^)]+)\)", page.read_text("utf-8"))
    }
    assert shown == {path.relative_to(web).as_posix() for path in (web / "pictures").iterdir()}
    assert all((web / name).stat().st_size < 60_000 for name in shown)


def test_english_texts_are_those_of_the_schemas():
    remedy = "python tests/nodes/test_definitions.py writes them anew"
    assert read_json(ROOT / "locales" / "en" / "nodeDefs.json") == english(), remedy


@pytest.mark.parametrize("locale", [p.name for p in (ROOT / "locales").iterdir() if p.name != "en"])
@each_node
def test_every_text_is_translated(node, locale):
    here, there = english()[node.id], read_json(ROOT / "locales" / locale / "nodeDefs.json")[node.id]
    assert here.keys() == there.keys()
    assert there["display_name"] != here["display_name"]
    assert there["description"] != here["description"]
    for side in ("inputs", "outputs"):
        assert here[side].keys() == there[side].keys()
        for key, texts in here[side].items():
            assert texts.keys() == there[side][key].keys(), (side, key)
            assert there[side][key]["tooltip"] not in ("", texts["tooltip"]), (side, key)


@each_node
def test_widgets_that_were_saved_keep_their_places(node):
    """The rest of what saved workflows rely on is checked under ComfyUI, by test_saved_workflows.py."""
    before = [name for name, *_ in read_json(ROOT / "tests" / "data" / "saved_nodes.json")[node.id]["widgets"]]
    given = sorted((s for s in node.inputs if s.widgets), key=lambda s: bool(s.options.get("optional")))
    now = [name for s in given for name in (s.id, "control_after_generate")[: s.widgets]]
    assert now[: len(before)] == before


@pytest.mark.parametrize(
    ("id", "settings", "names"),
    [
        (
            "LyraGenerateLatents",
            "gen3c.generate.GenerateSettings",
            {"steps", "guidance", "solver", "seed", "foreground_masking"},
        ),
        ("LyraRenderSplats", "splats.render.RenderSettings", {"backend", "mode"}),
        ("LyraRefineSplats", "refine.schedule.RefineSettings", {"seed"}),
    ],
)
def test_widgets_begin_with_the_defaults_of_the_settings_they_fill(id, settings, names):
    module, _, name = settings.rpartition(".")
    settings = getattr(import_module(f"lyra_pack.comfyui_lyra.{module}"), name)  # here: this file is a script too
    defaults = {field.name: field.default for field in fields(settings)}
    (node,) = (node for node in NODES if node.id == id)
    found = {widget.id: widget.options["default"] for widget in node.inputs if widget.id in names}
    assert found == {name: defaults[name] for name in names}


def test_there_is_a_workflow():
    assert WORKFLOWS


@each_workflow
def test_a_workflow_has_a_note_and_a_thumbnail(path):
    assert [node["widgets_values"][0] for node in read_json(path)["nodes"] if node["type"] == "MarkdownNote"]
    assert 1000 < path.with_suffix(".jpg").stat().st_size < 50_000


@each_workflow
def test_downloads_are_such_as_the_editor_offers(path):
    """It takes Hugging Face's addresses of model files that a widget names (graph.md 6)."""
    for node in nodes_of(path):
        for about in node["properties"].get("models", ()):
            assert about["name"] in node["widgets_values"], node["type"]
            assert re.fullmatch(r"https://huggingface\.co/[^?]+/resolve/[^?]+\.(safetensors|pt)", about["url"])
            assert about["directory"] in ("checkpoints", "diffusion_models", "geometry_estimation", "lyra", "vae")


@each_graph
def test_workflows_name_our_nodes_and_give_every_widget_a_value(path):
    ours = {node.id: node for node in NODES}
    saved = [node for node in nodes_of(path) if node["type"].startswith("Lyra")]
    assert saved
    for node in saved:
        schema = ours[node["type"]]
        assert len(node.get("widgets_values", [])) == schema.widgets, node["type"]
        assert {i["name"] for i in node["inputs"] if "." not in i["name"]} <= {s.id for s in schema.inputs}
        assert [output["name"] for output in node["outputs"]] == [s.name for s in schema.outputs]


@each_graph
def test_values_by_name_are_those_by_place(path):
    for node in nodes_of(path):
        for name, value in node.get("widgets_values_named", {}).items():
            assert value in node["widgets_values"], f"{node['type']}: {name}"


@each_graph
def test_workflow_links_join_sockets_that_exist(path):
    for graph in graphs(path):
        nodes = {node["id"]: node for node in graph["nodes"]}
        for given in graph["links"]:
            link, source, slot, target, place, _kind = given.values() if isinstance(given, dict) else given
            if source == -10:  # the box's own input
                assert link in graph["inputs"][slot]["linkIds"]
            else:
                assert link in nodes[source]["outputs"][slot]["links"]
            if target == -20:
                assert link in graph["outputs"][place]["linkIds"]
            else:
                assert nodes[target]["inputs"][place]["link"] == link


@each_graph
def test_a_box_shows_the_sockets_and_widgets_that_lead_inside(path):
    inside = {graph["id"]: graph for graph in graphs(path)[1:]}
    boxes = [node for node in nodes_of(path) if node["type"] in inside]
    assert len(boxes) >= len(inside) > 0 or path in WORKFLOWS
    for box in boxes:
        graph = inside[box["type"]]
        assert [i["name"] for i in box["inputs"]] == [i["name"] for i in graph["inputs"]]
        assert [o["name"] for o in box["outputs"]] == [o["name"] for o in graph["outputs"]]
        names = [i["name"] for i in box["inputs"] if i.get("widget")]
        assert list(box["widgets_values_named"]) == names and len(box["widgets_values"]) == len(names)


@each_graph
def test_nodes_in_a_box_lie_apart_between_its_inputs_and_outputs(path):
    """Who opens a box sees wires run to the right; of what lies on the graph itself the editor's tests know."""
    for graph in graphs(path)[1:]:
        areas = [(*node["pos"], *node["size"]) for node in graph["nodes"]]
        (left, _, wide, _), (right, *_) = (graph[side]["bounding"] for side in ("inputNode", "outputNode"))
        assert left + wide <= min(x for x, *_ in areas) <= max(x + w for x, _, w, _ in areas) <= right
        assert not [(a, b) for i, a in enumerate(areas) for b in areas[:i] if cover(a, b)]


def cover(one: tuple[float, ...], other: tuple[float, ...], title: float = 30) -> bool:
    """Whether two nodes (x, y, width, height) share a place, with their titles."""
    (x, y, w, h), (left, top, width, height) = one, other
    return x < left + width and left < x + w and y - title < top + height and top - title < y + h


def test_boxes_of_a_template_are_those_that_the_editor_offers():
    offered = {graph["id"]: graph for path in BOXES for graph in graphs(path)[1:]}
    assert {graph["name"] for graph in offered.values()} == {path.stem for path in BOXES} and len(BOXES) == 3
    used = graphs(ROOT / "workflows" / "picture_to_3d.json")[1:]
    assert [offered[graph["id"]]["nodes"] for graph in used] == [graph["nodes"] for graph in used]
    assert all(graph["description"] and graph["category"] == "Lyra" for graph in offered.values())


def test_the_first_template_is_five_boxes_and_notes():
    nodes = read_json(ROOT / "workflows" / "picture_to_3d.json")["nodes"]
    assert len([node for node in nodes if node["type"] != "MarkdownNote"]) == 5


if __name__ == "__main__":
    text = json.dumps(english(), indent=2, ensure_ascii=False) + "\n"
    (ROOT / "locales" / "en" / "nodeDefs.json").write_text(text, encoding="utf-8")

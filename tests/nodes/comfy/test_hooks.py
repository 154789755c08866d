"""Every hook of every node, as ComfyUI calls it: with the widgets' values, with None where one is linked, with less."""

import os
import re
from itertools import chain
from pathlib import Path

import pytest

pytest.importorskip("comfy_api")

from comfy_api.latest import io  # noqa: E402
from lyra_pack import nodes  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.files.cameras.load import save_cameras  # noqa: E402
from lyra_pack.comfyui_lyra.files.splats.ply import save_ply  # noqa: E402
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene  # noqa: E402
from lyra_pack.nodes.comfy import hooks  # noqa: E402

ASKED = [node for node in nodes.NODES if {"validate_inputs", "fingerprint_inputs"} & vars(node).keys()]
FILES = {"LyraLoadTeacher": "diffusion_models/a.pt", "LyraLoadTokenizer": "vae/a.pt", "LyraLoadRecon": "lyra/a.pt"}
PLACE = re.compile(r"\bhooks\.|\b[A-Z]+\.(is_there|state_of)\(")  # hooks, or a shelf, which asks them
each = pytest.mark.parametrize("node", ASKED, ids=lambda node: node.__name__)


@pytest.fixture
def prompt(models, node):
    """Values of a node's widgets, as a prompt has them, that stand for files which are there; and one of the files."""
    schema, folder = node.GET_SCHEMA(), models.parent / "input"
    values = {given.id: getattr(given, "default", None) for given in schema.inputs if isinstance(given, io.WidgetInput)}
    if name := FILES.get(schema.node_id):
        (models / name).write_bytes(b"")
        return values | {"file": "a.pt"}, models / name
    if "file" in values:
        save_ply(folder / "3d" / "a.ply", demo_scene()[::500])
        return values | {"file": "3d/a.ply"}, folder / "3d" / "a.ply"
    save_cameras(folder / "a" / "cameras.json", [pinhole_camera(32, 16, 50)])
    return values | dict.fromkeys({"path", "dataset"} & values.keys(), "a"), folder / "a" / "cameras.json"


def sockets(node) -> dict:
    """What ComfyUI gives for the sockets, linked or not: nothing but None."""
    return {given.id: None for given in node.GET_SCHEMA().inputs if not isinstance(given, io.WidgetInput)}


def validated(node, values: dict):
    """Only what the hook names is passed."""
    if "validate_inputs" not in vars(node):
        return True
    named = node.validate_inputs.__func__.__code__
    assert not named.co_flags & 0x08, "with **words ComfyUI would check none of the widgets itself"
    return node.validate_inputs(**{k: v for k, v in values.items() if k in named.co_varnames[: named.co_argcount]})


@each
def test_hooks_answer_whatever_is_linked_or_left_out(node, prompt):
    values = prompt[0] | sockets(node)
    assert validated(node, values) is True
    assert isinstance(node.fingerprint_inputs(**values), str)
    for name in values:
        linked, fewer = values | {name: None}, {k: v for k, v in values.items() if k != name}
        for given in (linked, fewer):
            assert validated(node, given) is True, name
            assert node.fingerprint_inputs(**given) == node.fingerprint_inputs(**given), name  # not anew at every press
    for given in (dict.fromkeys(values), {}):
        assert validated(node, given) is True
        assert isinstance(node.fingerprint_inputs(**given), str)


@each
def test_a_node_runs_again_when_its_file_was_written_again_and_only_then(node, prompt):
    values, file = prompt
    before = node.fingerprint_inputs(**values)
    assert node.fingerprint_inputs(**values | sockets(node)) == before
    os.utime(file, (1, 1))
    if file.suffix == ".json" and "strict" in values:  # ViPE's folders below are looked at, not files beside them
        (file.parent / "rgb").mkdir()
    assert node.fingerprint_inputs(**values) != before


@each
def test_what_is_not_there_is_said_before_the_run(node, prompt):
    values = prompt[0]
    (name,) = {"file", "path", "dataset"} & values.keys()
    said = validated(node, values | {name: "gone.ply"})
    assert "gone.ply" in said
    assert node.fingerprint_inputs(**values | {name: "gone.ply"}) == node.fingerprint_inputs(**values | {name: "gone"})
    assert isinstance(validated(node, values | {name: "  "}), str)


def test_every_loader_has_both_hooks():
    readers = {node.__name__ for node in nodes.NODES if node.__name__.startswith("Load")}
    assert readers <= {node.__name__ for node in ASKED}
    assert all({"validate_inputs", "fingerprint_inputs"} <= vars(node).keys() for node in ASKED)


def test_hooks_ask_one_place():
    sources = {path: path.read_text("utf-8") for path in Path(nodes.__file__).parent.rglob("*.py")}
    names = chain.from_iterable(text.split("def ")[1:] for text in sources.values())
    asked = [body for body in names if body.startswith(("validate_inputs", "fingerprint_inputs"))]
    assert len(asked) >= 2 * len(ASKED) and all(PLACE.search(body) for body in asked)


def test_a_name_that_cannot_be_one_is_said_and_no_reason_to_run_again():
    def find(name: str) -> Path:
        raise ValueError("no such name")

    assert hooks.is_there(find, "a:b") == "no such name"
    assert hooks.state_of(find, "a:b") == "missing"
    assert hooks.is_there(find, None) is True and hooks.state_of(find, None) == "linked"


def test_every_schema_is_valid():
    for node in nodes.NODES:
        assert node.GET_SCHEMA().category.startswith("Lyra/")

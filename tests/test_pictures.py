"""Every picture that is shown is one that dev/make_pictures.py makes."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHOWN = re.compile(r"!\[[^\]]*\]\(([^)]+\.jpg)\)")


@pytest.fixture(scope="module")
def script():
    """The script, with the package beside it that it imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "dev"))
        spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "dev" / "make_pictures.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_every_picture_is_made_by_the_script(script):
    assert len(script.pictures()) > 40 and set(script.pictures()) <= script.made_by().keys()


def test_every_picture_that_a_page_shows_is_made_by_the_script(script):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "nodes" / "web" / "docs").glob("*.md")]
    shown = {
        (page.parent / target).resolve().relative_to(ROOT).as_posix()
        for page in pages
        for target in SHOWN.findall(page.read_text(encoding="utf-8"))
    }
    assert len(shown) > 20 and shown <= script.made_by().keys()


def test_every_name_is_told_once(script):
    from pictures import drawn, editor

    assert not set(drawn.DRAWN) & set(editor.NAMES)
    assert set(editor.IN_README) <= set(editor.NAMES)


def test_every_template_has_a_card(script):
    from pictures import cards, sampled

    assert {*cards.SHOWN, *cards.DRAWN, *sampled.SAMPLED} == {path.stem for path in (ROOT / "workflows").glob("*.json")}
    for name, shown in cards.SHOWN.items():
        assert shown in {node["id"] for node in template(name)["nodes"]}, name


def template(name: str) -> dict:
    """A template as it is shipped."""
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def test_graphs_name_inputs_that_are_there(script):
    from pictures import editor

    ours = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    nodes = [node for graph in editor.GRAPHS.values() for node in editor.numbered(graph).values()]
    assert sum(node["class_type"] in ours for node in nodes) > 20
    for node in nodes:
        if known := ours.get(node["class_type"]):
            assert {name.split(".")[0] for name in node["inputs"]} <= known["inputs"].keys(), node


def test_pictures_fit_their_room(script):
    from pictures.sheets import ROOM

    large = [p for folder, room in ROOM.items() for p in folder.glob("*.jpg") if p.stat().st_size > room * 1.1]
    assert not large

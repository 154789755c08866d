import ast
from pathlib import Path

import pytest

pytest.importorskip("comfy_api")

from lyra_pack import nodes  # noqa: E402
from lyra_pack.comfyui_lyra.configs import ReconConfig  # noqa: E402
from lyra_pack.nodes.comfy import shelf  # noqa: E402
from lyra_pack.nodes.comfy.shelf import DECODERS, TEACHERS, TOKENIZERS, Shelf  # noqa: E402
from lyra_pack.nodes.models.load import LoadRecon, LoadTokenizer  # noqa: E402
from lyra_pack.nodes.models.teacher import LoadTeacher  # noqa: E402

SHELVES = {"LyraLoadTeacher": TEACHERS, "LyraLoadTokenizer": TOKENIZERS, "LyraLoadRecon": DECODERS}


def test_only_its_shelf_knows_the_folder_of_a_model():
    folders = {each.folder for each in SHELVES.values()} - {"lyra"}  # "lyra" is also a word of searches
    for path in Path(nodes.__file__).parent.rglob("*.py"):
        if path != Path(shelf.__file__):
            named = {each.value for each in ast.walk(ast.parse(path.read_text("utf-8"))) if type(each) is ast.Constant}
            assert not named & folders, path


@pytest.mark.parametrize("node", [LoadTeacher, LoadTokenizer, LoadRecon])
def test_what_a_loader_is_asked_about_a_file_its_shelf_answers(models, node):
    found = SHELVES[node.GET_SCHEMA().node_id]
    file = models / found.folder / "deep" / "a.pt"
    file.parent.mkdir()
    file.write_bytes(b"1")
    (options,) = (given.options for given in node.define_schema().inputs if given.id == "file")
    assert options == found.names() == ["deep/a.pt"] and found.path("deep/a.pt") == file
    assert node.validate_inputs("deep/a.pt") is True and node.fingerprint_inputs("deep/a.pt") == found.state_of(
        "deep/a.pt"
    )
    assert found.state_of("deep/a.pt").startswith("a.pt:")
    assert node.validate_inputs("b.pt") == found.is_there("b.pt") != True  # noqa: E712
    assert (found.is_there(None), found.state_of(None), found.state_of("b.pt")) == (True, "linked", "missing")


def test_what_is_read_with_a_file_counts_too(models):
    file, other = models / "lyra" / "a.pt", models / "lyra" / "notes"
    shelf_of_two = Shelf("lyra", ReconConfig, lambda path: [path, other])
    file.write_bytes(b"1")
    other.write_bytes(b"1")
    before = shelf_of_two.state_of("a.pt")
    other.write_bytes(b"22")
    assert shelf_of_two.state_of("a.pt") != before and DECODERS.state_of("a.pt") in before

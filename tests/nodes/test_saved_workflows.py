"""Workflows that people have saved keep loading: the editor gives saved widget values back by position.

tests/data/saved_nodes.json holds what has ever been saved, by node: widgets in their order with their types and
choices, sockets, outputs. ``python tests/nodes/test_saved_workflows.py`` adds what is new and takes nothing away; it
needs ComfyUI on the path. tests/data/required_inputs.json holds what a prompt in API form of the first release must
name, by node: what is new since then has to be optional, or those who saved such prompts are refused.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

RECORD = Path(__file__).resolve().parents[1] / "data" / "saved_nodes.json"
REQUIRED = RECORD.with_name("required_inputs.json")
FILES = "file"  # a widget whose choices are those of the user's disk
saved = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def current() -> dict[str, dict]:
    """The same of the nodes as they are."""
    from comfy_api.latest import io
    from lyra_pack import nodes

    found = {}
    for schema in (node.GET_SCHEMA() for node in nodes.NODES):
        widgets, sockets = [], {}
        for given in sorted(
            schema.inputs, key=lambda given: bool(given.optional)
        ):  # the editor puts optional ones last
            if not isinstance(given, io.WidgetInput):
                sockets[given.id] = given.get_io_type()
                continue
            options = getattr(given, "options", None) if given.id != FILES else None
            widgets.append([given.id, given.get_io_type(), *([list(options)] if options else [])])
            if getattr(given, "control_after_generate", None):
                widgets.append(["control_after_generate", "COMBO"])
        outputs = [[output.id, output.get_io_type()] for output in schema.outputs]
        found[schema.node_id] = {"widgets": widgets, "sockets": sockets, "outputs": outputs}
    return found


@pytest.mark.parametrize("node_id", saved)
def test_a_node_still_takes_what_was_saved(node_id):
    pytest.importorskip("comfy_api")
    assert node_id in (now := current()), "a released node is never removed or renamed"
    before, now = saved[node_id], now[node_id]
    widgets = now["widgets"][: len(before["widgets"])]
    assert [widget[:2] for widget in widgets] == [widget[:2] for widget in before["widgets"]]
    for old, new in zip(before["widgets"], widgets, strict=True):
        assert set(old[2] if len(old) > 2 else ()) <= set(new[2] if len(new) > 2 else ()), old[0]
    for name, kind in before["sockets"].items():
        assert set(kind.split(",")) <= set(now["sockets"][name].split(",")), name
    assert now["outputs"][: len(before["outputs"])] == before["outputs"]


def test_prompts_that_were_saved_name_all_that_is_required():
    pytest.importorskip("comfy_api")
    from lyra_pack import nodes

    before = json.loads(REQUIRED.read_text(encoding="utf-8"))
    now = {node.GET_SCHEMA().node_id: needed(node) for node in nodes.NODES}
    assert not {node_id: more for node_id, known in before.items() if (more := now[node_id] - set(known))}


def needed(node) -> set[str]:
    """The inputs without which ComfyUI refuses a prompt."""
    return {given.id for given in node.GET_SCHEMA().inputs if not given.optional}


def test_all_that_can_be_saved_is_recorded():
    pytest.importorskip("comfy_api")
    assert current() == saved, f"python {Path(__file__).relative_to(RECORD.parents[2])} adds what is new"


def extended(before: list, now: list) -> list:
    """What was recorded, and behind it what is new."""
    known = [entry[0] for entry in before]
    return before + [entry for entry in now if entry[0] not in known]


def record() -> None:
    """Bring the file up to the nodes."""
    from comfy.cli_args import args

    args.cpu, root = True, RECORD.parents[2]
    spec = importlib.util.spec_from_file_location("lyra_pack", root / "__init__.py")
    pack = sys.modules["lyra_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    for node_id, now in current().items():
        before = saved.setdefault(node_id, now)
        for part in ("widgets", "outputs"):
            before[part] = extended(before[part], now[part])
        for name, kind in now["sockets"].items():
            kinds = [*before["sockets"].get(name, kind).split(","), *kind.split(",")]
            before["sockets"][name] = ",".join(dict.fromkeys(kinds))
        for widget in before["widgets"]:
            choices = next((new[2] for new in now["widgets"] if new[0] == widget[0] and len(new) > 2), [])
            widget[2:] = [[*widget[2], *(c for c in choices if c not in widget[2])]] if len(widget) > 2 else widget[2:]
    lines = (f"  {json.dumps(node_id)}: {json.dumps(about)}" for node_id, about in sorted(saved.items()))
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record()

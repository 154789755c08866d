"""Explore Splats in ComfyUI's editor, in both looks of its nodes; see test_editor.py for what it needs."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

HERE = Path(__file__).resolve().parent
SMALL = {"LyraCameraPaths": {"frames": 2, "width": 96, "height": 64}, "LyraExploreSplats": {"frames": 2, "state": ""}}


def small_workflow() -> dict:
    """The shipped workflow without its video, in small pictures and with nothing set in the view yet."""
    found = json.loads((HERE.parents[1] / "workflows" / "explore_scene.json").read_text(encoding="utf-8"))
    kept = {"LyraLoadSplats", "LyraCameraPaths", "LyraExploreSplats", "PreviewImage"}
    found["nodes"] = [node for node in found["nodes"] if node["type"] in kept]
    ids = {node["id"] for node in found["nodes"]}
    found["links"] = [link for link in found["links"] if link[1] in ids and link[3] in ids]
    links = {link[0] for link in found["links"]}
    for node in found["nodes"]:
        for output in node["outputs"]:
            output["links"] = [link for link in output["links"] or () if link in links]
        names = list(node.get("widgets_values_named", ()))
        for name, value in SMALL.get(node["type"], {}).items():
            node["widgets_values"][names.index(name)] = node["widgets_values_named"][name] = value
    return found


@pytest.fixture(scope="module")
def seen(comfyui, browser, tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("explore") / "small.json"
    file.write_text(json.dumps(small_workflow()))
    words = [comfyui.url, str(file), *filter(None, [os.environ.get("LYRA_SCREENSHOTS")])]
    done = subprocess.run(
        ["node", str(HERE / "explore.mjs"), *words], env=browser, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("look", ["old", "new"])
def test_the_view_shows_the_scene_and_keys_in_it_change_the_state(seen, look):
    found = seen[look]
    assert (found["errors"], found["refused"]) == ([], [])
    assert found["ended"].startswith("execution_success") and found["shown"] == 1 and found["before"] == ""
    state = json.loads(found["after"])
    assert state["moment"] == 0 and state["keyframes"] == [state["camera"]]
    assert state["camera"]["c2w"][11] > 0.01  # it has walked ahead
    (sent,) = [node["inputs"] for node in found["prompt"] if node["class_type"] == "LyraExploreSplats"]
    assert sent["state"] == found["after"]


def test_a_run_by_the_api_draws_what_the_state_says(comfyui, seen):
    pictures = []
    for state in ("", seen["old"]["after"]):
        prompt = comfyui.api_form(small_workflow())
        ids = {node["class_type"]: key for key, node in prompt.items()}
        prompt[ids["LyraExploreSplats"]]["inputs"]["state"] = state
        (shown,) = comfyui.run(prompt)[ids["PreviewImage"]]["images"]
        pictures.append(Image.open(comfyui.base / shown["type"] / shown["subfolder"] / shown["filename"]))
    assert pictures[0].size == pictures[1].size == (96, 64)
    assert pictures[0].tobytes() != pictures[1].tobytes()

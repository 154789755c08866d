"""Every shipped workflow opened in ComfyUI's editor, in headless Chromium.

PLAYWRIGHT_CORE     folder whose node_modules hold playwright-core (``npm install playwright-core``)
CHROMIUM_PATH       the browser; without it chromium as the system finds it
LYRA_SCREENSHOTS    a folder for a picture of each workflow
LYRA_EDITOR_RUN     press Run first and wait so many seconds; for the README's pictures, with ``-k`` and a name
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from wires import areas_of, crossed

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

HERE = Path(__file__).resolve().parent
VIEWERS = ("viewport_state", "video-preview")  # values that the editor makes up for what is shown in a node
WORKFLOWS = sorted((HERE.parents[1] / "workflows").glob("*.json"))


def opened(comfyui, browser: dict[str, str], *words: str | Path) -> list[dict]:
    """What the editor made of workflows; see editor.mjs."""
    command = ["node", str(HERE / "editor.mjs"), comfyui.url, *map(str, words)]
    done = subprocess.run(command, env=browser, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def is_well(seen: dict) -> bool:
    """Whether the editor knew every node, found room for it and its wires, and had nothing to complain of."""
    found = {kind: seen[kind] for kind in ("missing", "covered", "errors", "refused")}
    areas = areas_of(seen["drawing"])
    found["behind"] = [each for wire in seen["drawing"]["wires"] for each in crossed(areas, *wire)]
    assert found == dict.fromkeys(found, [])
    return True


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_opens_without_red_nodes_or_errors(comfyui, browser, empty_files, path):
    words = []
    if folder := os.environ.get("LYRA_SCREENSHOTS"):
        words += ["--picture", str(Path(folder).absolute() / f"{path.stem}.png")]
    if seconds := os.environ.get("LYRA_EDITOR_RUN"):
        words += ["--run", seconds]
    (seen,) = opened(comfyui, browser, path, *words)
    assert is_well(seen)
    assert seen["run"] == ("execution_success" if seconds else None)
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert seen["nodes"] >= len(workflow["nodes"])
    ours, theirs = comfyui.api_form(workflow), seen["prompt"]
    assert ours.keys() == theirs.keys()  # so that what other tests run is what the editor would
    for key, node in ours.items():
        mine, editors = (
            {k: v for k, v in inputs.items() if k not in VIEWERS} for inputs in (node["inputs"], theirs[key]["inputs"])
        )
        assert mine == editors


def test_workflows_open_in_the_new_look_too(comfyui, browser, empty_files):
    seen = opened(comfyui, browser, *WORKFLOWS, "--new-look")
    assert len(seen) == len(WORKFLOWS) and all(map(is_well, seen))


def test_the_template_dialog_shows_every_workflow_with_its_picture(comfyui, browser):
    (category,) = comfyui.get("/workflow_templates")
    (seen,) = opened(comfyui, browser, "--templates", category)
    assert seen["templates"] == {path.stem: list(Image.open(path.with_suffix(".jpg")).size) for path in WORKFLOWS}
    assert (seen["errors"], seen["refused"]) == ([], [])


def test_an_unknown_node_is_noticed(comfyui, browser, tmp_path):
    workflow = json.loads(WORKFLOWS[0].read_text(encoding="utf-8"))
    workflow["nodes"][0]["type"] = "LyraGone"
    (tmp_path / "gone.json").write_text(json.dumps(workflow))
    (seen,) = opened(comfyui, browser, tmp_path / "gone.json")
    assert "LyraGone" in seen["missing"]

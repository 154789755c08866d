"""A real ComfyUI for the tests marked ``comfyui``: started once, on a base directory of its own, with this pack in it.

COMFYUI_DIR     a ComfyUI checkout; without it these tests are skipped
COMFYUI_PYTHON  an interpreter with ComfyUI's requirements and ours; without it, that of a .venv or venv in the
                checkout, else the one that runs pytest
COMFYUI_GPU     set it to run on the GPU instead of the CPU

The server inherits the environment, so whatever lets that interpreter start ComfyUI by hand (PYTHONPATH, CUDA
settings) works here too. Nothing in the checkout is written.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "ComfyUI-Lyra.test"  # a hyphen and a dot: whatever a user may call the folder
NOTES = ("Note", "MarkdownNote")  # nodes that only the editor knows


class Refused(Exception):
    """A workflow that did not run; the message is ComfyUI's."""


class ComfyUI:
    """One server process, spoken to over HTTP."""

    Refused = Refused

    def __init__(self, checkout: Path, python: str, base: Path):
        self.base, self.log = base, base / "server.log"
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / name).mkdir()
        (base / "custom_nodes" / FOLDER).symlink_to(ROOT, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        words = ["--listen", "127.0.0.1", "--port", self.url.rsplit(":", 1)[1], "--base-directory", str(base)]
        words += ["--database-url", f"sqlite:///{base / 'comfyui.db'}", "--disable-auto-launch", "--disable-api-nodes"]
        words += [] if os.environ.get("COMFYUI_GPU") else ["--cpu"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, str(checkout / "main.py"), *words], cwd=base, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self, seconds: float = 300) -> None:
        """Return when the server answers; fail with the end of its log when it does not."""
        deadline = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = self.log.read_text(errors="replace")[-4000:]
                pytest.fail(f"ComfyUI did not start; is COMFYUI_PYTHON what you start it with by hand?\n{log}")
            try:
                return self.get("/system_stats") and None
            except OSError:
                time.sleep(0.3)

    def get(self, path: str, body: dict | None = None):
        """Decoded JSON, or bytes, of a path of the server; Refused for an HTTP error."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                raw = reply.read()
                return json.loads(raw or "null") if reply.headers.get_content_type() == "application/json" else raw
        except urllib.error.HTTPError as error:
            raise Refused(f"{error.code} {path}: {error.read().decode(errors='replace')}") from error

    def submit(self, prompt: dict) -> str:
        """Queue a workflow in API form; Refused where validation finds fault."""
        reply = self.get("/prompt", {"prompt": prompt})
        if reply["node_errors"]:  # a 200 may still drop some outputs
            raise Refused(json.dumps(reply["node_errors"]))
        return reply["prompt_id"]

    def finish(self, prompt_id: str, seconds: float = 300) -> dict[str, dict]:
        """What each node of a queued workflow has shown, by node id; Refused where it failed or was stopped."""
        deadline = time.monotonic() + seconds
        while not (record := self.get(f"/history/{prompt_id}").get(prompt_id)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Refused(f"no result within {seconds} s:\n{self.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)
        if record["status"]["status_str"] != "success":
            kind, detail = record["status"]["messages"][-1]
            raise Refused(f"{kind} in {detail.get('node_type')}: {detail.get('exception_message', '')}")
        return record["outputs"]

    def cancel(self, prompt_id: str, seconds: float = 60) -> None:
        """Return when a queued workflow neither waits nor runs; what is asked before it begins would be forgotten."""
        deadline = time.monotonic() + seconds
        while any(prompt_id in entry for queue in self.get("/queue").values() for entry in queue):
            if time.monotonic() > deadline:
                raise Refused(f"still there after {seconds} s:\n{self.log.read_text(errors='replace')[-4000:]}")
            self.get("/queue", {"delete": [prompt_id]})
            self.get("/interrupt", {})
            time.sleep(0.1)

    def run(self, prompt: dict) -> dict[str, dict]:
        """Queue a workflow in API form and wait for what its nodes show."""
        return self.finish(self.submit(prompt))

    def api_form(self, workflow: dict) -> dict:
        """The API form of a workflow saved by the editor: widgets by name, links as [node, slot], boxes opened.

        Nodes inside a box are called box:node; what is bypassed hands on its input of the same type.
        """
        return Opened(workflow).prompt

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Opened:
    """A workflow with its boxes (subgraphs) opened, in API form."""

    def __init__(self, workflow: dict):
        self.inside = {graph["id"]: graph for graph in workflow.get("definitions", {}).get("subgraphs", [])}
        self.prompt: dict[str, dict] = {}
        self.sources: dict[tuple[str, int], list] = {}  # (node, slot) that stands for another's
        self.open(workflow, "", {}, {})
        for node in self.prompt.values():
            for name, value in node["inputs"].items():
                while isinstance(value, list) and tuple(value) in self.sources:
                    value = node["inputs"][name] = self.sources[tuple(value)]

    def open(self, graph: dict, prefix: str, given: dict[int, object], out: dict[int, tuple]) -> None:
        """Take in a graph whose inputs are ``given`` by slot; ``out`` gets what its outputs are."""
        links = {}
        for link in graph["links"]:
            key, source, slot, target, place, _ = link.values() if isinstance(link, dict) else link
            links[key] = given.get(slot) if source == -10 else [f"{prefix}{source}", slot]
            if target == -20:
                out[place] = links[key]
        for node in graph["nodes"]:
            if node["type"] in NOTES:
                continue
            name = f"{prefix}{node['id']}"
            values = self.values(node) | {
                slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None
            }
            if node["type"] in self.inside:
                found: dict[int, tuple] = {}
                inputs = {place: values.get(slot["name"]) for place, slot in enumerate(node["inputs"])}
                self.open(self.inside[node["type"]], f"{name}:", inputs, found)
                self.sources |= {(name, place): source for place, source in found.items()}
            elif node.get("mode") == 4:
                for place, output in enumerate(node["outputs"]):
                    same = next(slot for slot in node["inputs"] if slot["type"] == output["type"])
                    self.sources[name, place] = links[same["link"]]
            else:
                self.prompt[name] = {
                    "class_type": node["type"], "inputs": {n: value for n, value in values.items() if value is not None}
                }  # fmt: skip

    def values(self, node: dict) -> dict:
        """Widgets by name, without the editor's own: what comes after generation, and the button for uploads."""
        names = {slot["name"] for slot in node["inputs"] if slot["type"] != "IMAGEUPLOAD"}
        return {name: value for name, value in node.get("widgets_values_named", {}).items() if name in names}


def interpreter(checkout: Path) -> str:
    """The Python that starts this ComfyUI."""
    own = [checkout / venv / python for venv in (".venv", "venv") for python in ("bin/python", "Scripts/python.exe")]
    found = (str(path.absolute()) for path in own if path.exists())
    return os.environ.get("COMFYUI_PYTHON") or next(found, sys.executable)


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory):
    """A running ComfyUI with this pack, or a skip that says why there is none."""
    checkout = os.environ.get("COMFYUI_DIR")
    if not checkout:
        pytest.skip("COMFYUI_DIR is not set: no ComfyUI to run in")
    if not Path(checkout, "main.py").is_file():
        pytest.fail(f"COMFYUI_DIR={checkout} holds no main.py; it must be a ComfyUI checkout")
    server = ComfyUI(Path(checkout).resolve(), interpreter(Path(checkout)), tmp_path_factory.mktemp("comfyui"))
    try:
        server.wait()
        log = server.log.read_text(errors="replace")
        assert not re.search(rf"(IMPORT FAILED|Cannot import|comfy_entrypoint).*{re.escape(FOLDER)}", log), log[-4000:]
        yield server
    finally:
        server.stop()


@pytest.fixture
def empty_files(comfyui) -> Iterator[None]:
    """Model files of the names that shipped workflows want, with nothing in them, and inputs, for one test."""
    saved = (json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "workflows").glob("*.json"))
    models = [m for workflow in saved for node in workflow["nodes"] for m in node["properties"].get("models", ())]
    files = {comfyui.base / "models" / model["directory"] / model["name"] for model in models}
    files.add(comfyui.base / "input" / "vipe_results" / "rgb" / "clip.mp4")
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    shutil.copy(ROOT / "comfyui_lyra" / "mini" / "clip.mp4", comfyui.base / "input")
    Image.new("RGB", (64, 48)).save(comfyui.base / "input" / "example.png")  # which ComfyUI brings
    yield
    for file in files:
        file.unlink()
    shutil.rmtree(comfyui.base / "input" / "vipe_results")
    (comfyui.base / "input" / "clip.mp4").unlink()

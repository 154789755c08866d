import os
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.model_management  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402
import lyra_pack.nodes  # noqa: E402
from lyra_pack.kernels_glue import memory  # noqa: E402
from lyra_pack.nodes.comfy import host  # noqa: E402


def test_progress_moves_the_bar_and_stops_when_the_user_cancels(monkeypatch):
    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, preview, **_: seen.append((done, total)))
    on_step = host.progress("test")
    on_step(1, 3)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        on_step(2, 3)
    on_step(3, 3)
    assert seen == [(1, 3), (3, 3)]


def test_every_schema_is_valid():
    for node in lyra_pack.nodes.NODES:
        assert node.GET_SCHEMA().category.startswith("Lyra/")


def test_output_files_are_numbered_below_the_output_folder(folders):
    first, saved = host.output_path("3d/scene", ".ply")
    assert first == folders / "output" / "3d" / "scene_00001_.ply"
    assert saved == {"filename": "scene_00001_.ply", "subfolder": "3d", "type": "output"}
    first.write_bytes(b"")
    assert host.output_path("3d/scene", ".ply")[0].name == "scene_00002_.ply"


@pytest.mark.parametrize("name", ["CON", "nul.txt", "a.", "a:b", "a ", " ", "x" * 250, "scene.lyra"])
def test_names_that_some_system_does_not_take_are_refused(folders, name):
    for folder in (host.scene_folder, host.decoder_folder):
        with pytest.raises(ValueError, match="cannot be the name of a folder"):
            folder(name)
    if name.strip() == name:
        with pytest.raises(ValueError, match="cannot be the name of a folder or file"):
            host.output_path(f"3d/{name}", ".ply")


@pytest.mark.parametrize("name", ["..", "../a", "/tmp/a", "b\\..\\a", "C:\\a", "a/../../b"])
def test_no_name_leads_out_of_the_output_folder(folders, name):
    for place in (host.scene_folder, host.decoder_folder, lambda name: host.output_path(name, ".ply")):
        with pytest.raises(ValueError, match="cannot be the name of"):
            place(name)


def test_a_scene_cannot_be_named_as_the_folder_of_the_decoders(folders):
    with pytest.raises(ValueError, match="'decoders' cannot be the name of a folder: this pack keeps other things"):
        host.scene_folder("decoders")
    assert host.decoder_folder("decoders").name == "decoders"


def test_input_files_and_paths(folders):
    (folders / "input" / "3d" / "deep").mkdir(parents=True)
    for name in ("b.PLY", "deep/a.ply", "c.glb"):
        (folders / "input" / "3d" / name).write_bytes(b"")
    assert host.saved_files("3d", (".ply",)) == ["3d/b.PLY", "3d/deep/a.ply"]
    assert host.input_path("3d/b.PLY") == folders / "input" / "3d" / "b.PLY"
    assert host.input_path(f'"{folders}"') == folders
    with pytest.raises(FileNotFoundError, match=r"'3d/gone.ply' is neither in .* nor an absolute path"):
        host.input_path("3d/gone.ply")


def test_a_fingerprint_changes_with_a_file_of_the_folder(tmp_path):
    (tmp_path / "a").write_text("1")
    before = host.fingerprint(tmp_path), host.fingerprint(tmp_path / "a")
    assert before == (host.fingerprint(tmp_path), host.fingerprint(tmp_path / "a"))
    os.utime(tmp_path / "a", (1, 1))
    assert host.fingerprint(tmp_path) != before[0]
    assert host.fingerprint(tmp_path / "a") != before[1]


def test_a_link_that_leads_nowhere_hides_no_change(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    before = host.fingerprint(tmp_path)
    os.utime(tmp_path / "a", (1, 1))
    assert host.fingerprint(tmp_path) != before
    with pytest.raises(OSError):
        host.fingerprint(tmp_path / "gone")


def test_lyra_is_the_folder_of_what_was_made_here(folders):
    for kind in ("input", "output"):
        (folders / kind / "lyra" / "scene").mkdir(parents=True)
        (folders / kind / "3d").mkdir()
    for name in ("lyra", "lyra/scene"):
        assert host.saved_path(name) == folders / "output" / name
        assert host.saved_path(f"{name} [input]") == folders / "input" / name
    assert host.saved_path("3d") == folders / "input" / "3d"
    (folders / "input" / "lyra" / "own").mkdir()
    assert host.saved_path("lyra/own") == folders / "input" / "lyra" / "own"
    assert host.below_output(folders / "output" / "lyra" / "scene") == "lyra/scene"
    assert host.below_output(folders / "output" / "3d") == "3d [output]"
    with pytest.raises(ValueError, match="no name is given"):
        host.saved_path(' "" ')


class Server:
    """What ComfyUI's server is to a node."""

    def __init__(self, client):
        self.client_id, self.sent = client, []

    def send_progress_text(self, text, node_id, sid=None):
        self.sent.append((text, node_id, sid))


def test_the_text_of_a_node_goes_to_the_client_that_runs_it(monkeypatch):
    node = SimpleNamespace(hidden=SimpleNamespace(unique_id="7"))
    for client, sent in (("one", [("done", "7", "one")]), (None, [])):
        server = Server(client)
        module = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
        monkeypatch.setitem(sys.modules, "server", module)
        host.show_text(node, "done")
        assert server.sent == sent
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace())
    host.show_text(node, "nobody is served")


def test_a_pack_without_help_pages_does_not_stop_the_server(monkeypatch, tmp_path, caplog):
    served = {}
    monkeypatch.setitem(sys.modules, "nodes", SimpleNamespace(EXTENSION_WEB_DIRS=served))
    monkeypatch.setattr(host, "WEB", tmp_path / "My Pack.v1" / "nodes" / "web")
    host.serve_help()
    assert served == {} and "nodes have no help pages" in caplog.text
    host.WEB.mkdir(parents=True)
    host.serve_help()
    assert served == {"My Pack": str(host.WEB)}


def test_what_is_remembered_lies_in_comfyuis_user_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LYRA_CACHE", raising=False)
    monkeypatch.setattr(memory, "_told", [])
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    host.keep_memory()
    assert memory.cache_folder() == tmp_path / "lyra"


def test_what_a_training_leaves_in_circles_is_freed():
    class Graph:
        """Holds itself, as a recorded graph and its inputs do."""

    with host.training():
        graph = Graph()
        graph.itself, left = graph, weakref.ref(graph)
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        del graph
    assert left() is None
    with pytest.raises(MemoryError), host.training():
        graph = Graph()
        graph.itself, left = graph, weakref.ref(graph)
        del graph
        raise MemoryError
    assert left() is None

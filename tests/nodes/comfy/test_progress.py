import re
import sys
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("comfy_api")

import comfy.model_management  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from lyra_pack.nodes.comfy import progress  # noqa: E402


def test_progress_moves_the_bar_and_stops_when_the_user_cancels(monkeypatch):
    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, preview, **_: seen.append((done, total)))
    on_step = progress.steps("test")
    on_step(1, 3)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        on_step(2, 3)
    on_step(3, 3)
    assert seen == [(1, 3), (3, 3)]


def test_the_time_of_a_node_counts_what_its_card_has_to_do_yet(monkeypatch, caplog):
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: time.sleep(0.3))
    on_step = progress.steps("test")
    with caplog.at_level("INFO", "lyra"):
        on_step(1, 2)
        on_step(2, 2)
    assert re.search(r"test: 2 steps in 0\.[3-9] s", caplog.text)


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
        progress.show_text(node, "done")
        assert server.sent == sent
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace())
    progress.show_text(node, "nobody is served")

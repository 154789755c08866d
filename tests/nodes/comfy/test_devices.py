import weakref

import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.nodes.comfy import devices  # noqa: E402


def test_what_a_training_leaves_in_circles_is_freed():
    class Graph:
        """Holds itself, as a recorded graph and its inputs do."""

    with devices.training():
        graph = Graph()
        graph.itself, left = graph, weakref.ref(graph)
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        del graph
    assert left() is None
    with pytest.raises(MemoryError), devices.training():
        graph = Graph()
        graph.itself, left = graph, weakref.ref(graph)
        del graph
        raise MemoryError
    assert left() is None

import pytest
import torch
from lyra_pack.comfyui_lyra.training.run import graphs as replay


@pytest.mark.parametrize(
    ("device", "allocator", "wanted"),
    [("cuda", "native", True), ("cuda", "cudaMallocAsync", False), ("cpu", "native", False), ("mps", "native", False)],
)
def test_steps_are_recorded_on_cuda_with_its_native_allocator_only(monkeypatch, device, allocator, wanted):
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: allocator)
    assert replay.recordable(torch.device(device)) == wanted


def test_what_cannot_be_recorded_is_computed():
    made = []

    def make():
        made.append(1)
        return lambda x: 2 * x

    double = replay.ReplayedByShape(make)
    x = torch.ones(3, requires_grad=True)
    double(x).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0)) and made and not double.graphs

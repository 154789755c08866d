"""Steps recorded once as a CUDA graph: a small network's kernels are over sooner than Python can launch them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

WARM_UPS = 3  # eager steps before the recording: libraries choose and load their kernels


def recordable(device: torch.device) -> bool:
    """Whether steps on a device can be recorded as CUDA graphs.

    Not with CUDA's own asynchronous allocator, which ComfyUI chooses: what a step frees after use on two streams is
    then waited for on a third, which the recording never joins (cudaErrorStreamCaptureUnjoined).
    """
    return device.type == "cuda" and torch.cuda.get_allocator_backend() != "cudaMallocAsync"


class Replay:
    """Forward and backward pass of ``losses`` of a network on the GPU, for inputs of the same shapes every step."""

    def __init__(self, losses: Callable[..., dict[str, Tensor]], network: nn.Module, inputs: Sequence[Tensor]):
        self.inputs, self.parameters = [tensor.clone() for tensor in inputs], list(network.parameters())
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                losses(network, *self.inputs)["loss"].backward()
                network.zero_grad(set_to_none=True)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # another thread watches the processes
            self.terms = losses(network, *self.inputs)
            self.terms["loss"].backward()
        self.gradients = [parameter.grad for parameter in self.parameters]

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The terms of the loss, valid until the next call, and fresh gradients at the parameters."""
        for kept, new in zip(self.inputs, inputs, strict=True):
            kept.copy_(new)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.terms


class ReplayedByShape:
    """A differentiable function of tensors as CUDA graphs, one for each set of shapes.

    Where nothing can be recorded, the function itself. ``make`` gives it anew for each graph: a graph becomes part of
    the module it is recorded from.
    """

    def __init__(self, make: Callable[[], Callable[..., Tensor | tuple[Tensor, ...]]]):
        self.make, self.graphs = make, {}

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the function gives; its gradients reach inputs and parameters. Valid until the next call."""
        if not recordable(inputs[0].device):
            return self.make()(*inputs)
        key = tuple((tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in inputs)
        if key not in self.graphs:
            samples = tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in inputs)
            self.graphs[key] = torch.cuda.make_graphed_callables(
                self.make(), samples, num_warmup_iters=WARM_UPS, allow_unused_input=True
            )
        return self.graphs[key](*inputs)

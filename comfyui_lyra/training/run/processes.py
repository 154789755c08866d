"""Several processes, one GPU each, that train one network together: ``accelerate launch``, or torchrun, starts them."""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

Item = TypeVar("Item")


class Processes:
    """All processes of a run, seen from one of them; a program that was started alone is the only one.

    Each makes its own share of the data on a ``device`` of its own, and gradients are averaged. What the first decides
    holds for all.
    """

    def __init__(self, device: torch.device | str):
        self.device, self.rank, self.count = torch.device(device), 0, int(os.environ.get("WORLD_SIZE", 1))
        if self.count > 1:
            from accelerate import PartialState

            state = PartialState(cpu=self.device.type == "cpu")
            self.device, self.rank = state.device, state.process_index

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def wait(self) -> None:
        """Return once all have come here."""
        if self.count > 1:
            distributed.barrier()

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's share of the data."""
        return items[self.rank :: self.count]

    def joined(self, shares: Sequence[Item]) -> list[Item]:
        """What all processes found for their ``own`` shares, in the order of the whole, in all of them."""
        if self.count == 1:
            return list(shares)
        found: list[Sequence[Item]] = [()] * self.count
        distributed.all_gather_object(found, list(shares))
        return [found[i % self.count][i // self.count] for i in range(sum(map(len, found)))]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all processes."""
        if self.count > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            distributed.all_reduce(flat)
            for tensor, mean in zip(tensors, flat.div_(self.count).split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def of_first(self, numbers: Sequence[float]) -> list[float]:
        """What the first process gives, in all of them."""
        if self.count == 1:
            return list(numbers)
        told = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.broadcast(told, src=0)
        return told.tolist()

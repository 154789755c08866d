"""Several processes, a GPU each, that film one scene: each takes paths of its own, or two share one path's branches.

``lyra generate --gpus N`` starts them, or ``accelerate launch`` or torchrun does. Paths do not depend on each other, so
N cards take about an Nth of the time; what is exchanged within a pair is one network output a pass (14 MB).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from .sampler import Pair, one_after_other

PATIENCE = timedelta(hours=12)  # that members wait for each other: a path may take hours on a small card
NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what launchers put into the environment


@dataclass(frozen=True)
class Team:
    """Who films, seen from one member; alone by default. Groups of ``size`` members, one or two, share a path."""

    rank: int = 0
    count: int = 1
    size: int = 1
    group: Any = field(default=None, compare=False)  # torch.distributed's, of a pair

    @property
    def is_first(self) -> bool:
        """Whether this member begins and ends what all have in common."""
        return self.rank == 0

    @property
    def stores(self) -> bool:
        """Whether this member writes the paths of its group."""
        return self.rank % self.size == 0

    def films(self, number: int) -> bool:
        """Whether the ``number``-th of the paths that are still to be made is its group's."""
        return number % (self.count // self.size) == self.rank // self.size if self.works else False

    @property
    def works(self) -> bool:
        """False for a member that is left over when the others stand in pairs."""
        return self.rank < self.count // self.size * self.size

    @property
    def pair(self) -> Pair:
        """How both branches of guidance are computed: here, or one in each of two members."""
        return one_after_other if self.size == 1 else self._exchanged

    def wait(self) -> None:
        """Return once all have come here."""
        if self.count > 1:
            distributed.barrier()

    def _exchanged(self, shape: torch.Size, *branches: Callable[[], Tensor]) -> list[Tensor]:
        """Results of one or two branches: the first member of the pair computes the first, the other the second."""
        lead, outputs = self.rank - self.rank % 2, []
        mine = {self.rank % 2: branches[self.rank % 2]()} if self.rank % 2 < len(branches) else {}
        for number in range(len(branches)):
            held = mine[number].cpu().contiguous() if number in mine else torch.empty(shape)
            distributed.broadcast(held, src=lead + number, group=self.group)
            outputs.append(held)
        return outputs


ALONE = Team()


def best_size(paths: int, members: int, guided: bool) -> int:
    """Members a path, one or two, by which all paths are done first; two only if both branches are computed."""
    if paths < 1 or members < 2 or not guided:
        return 1
    alone, paired = -(-paths // members), -(-paths // (members // 2)) / 2
    return 2 if paired < alone else 1


@contextmanager
def joined(paths: int, guided: bool) -> Iterator[Team]:
    """The team that a launcher's environment speaks of, or ALONE."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count < 2 or any(name not in os.environ for name in NAMES):
        yield ALONE
        return
    rank, size = int(os.environ["RANK"]), best_size(paths, count, guided)
    distributed.init_process_group("gloo", rank=rank, world_size=count, timeout=PATIENCE)
    try:
        pairs = [distributed.new_group([lead, lead + 1]) for lead in range(0, count - 1, 2)] if size == 2 else []
        yield Team(rank, count, size, pairs[rank // 2] if rank // 2 < len(pairs) else None)
    finally:
        distributed.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The card of this member, where a launcher numbers them and none was named: it becomes the current one."""
    local = os.environ.get("LOCAL_RANK")
    if not local or device.type != "cuda" or device.index is not None:
        return device
    card = torch.device("cuda", int(local))
    if torch.cuda.is_available():
        torch.cuda.set_device(card)  # so that nothing is left on the first card, which others use
    return card

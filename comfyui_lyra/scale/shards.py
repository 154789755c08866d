"""Which part of a list this process makes: as it is told, or as what started it says."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Every ``count``-th of a list, from ``index`` on."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"shard {self}: shards of {self.count} are 0/{self.count} to {self.count - 1}/{self.count}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """A shard as people write it, "0/4"."""
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if not found:
            raise ValueError(f"shard '{text}': expected i/n, such as 0/4 for the first of four")
        return cls(index=int(found[1]), count=int(found[2]))

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Its part of a list. The whole list is divided, not what is left of it: shards never meet."""
        return items[self.index :: self.count]


def shard_of(environment: Mapping[str, str]) -> Shard:
    """The shard that SLURM's arrays, Kubernetes' indexed jobs and torchrun or accelerate ask for, one in another."""
    index, count = 0, 1
    for inner in told(environment):
        index, count = index * inner.count + inner.index, count * inner.count
    return Shard(index=index, count=count)


def told(environment: Mapping[str, str]) -> Iterator[Shard]:
    """What each kind of starter says. ValueError where one says which of them this is, and not how many there are."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        task, first, count, step = (
            int(environment.get(f"SLURM_ARRAY_TASK_{name}", default))
            for name, default in (("ID", ""), ("MIN", "0"), ("COUNT", "1"), ("STEP", "1"))
        )
        if (task - first) % step or (task - first) // step >= count:
            raise ValueError(f"SLURM's task {task} is none of {count} from {first} on; give --shard i/n yourself")
        yield Shard(index=(task - first) // step, count=count)
    if "JOB_COMPLETION_INDEX" in environment:
        if "JOB_COMPLETIONS" not in environment:
            raise ValueError(
                "JOB_COMPLETION_INDEX says which pod of the job this is, and nothing says how many there are; set "
                "JOB_COMPLETIONS in the job, or give --shard i/n"
            )
        yield Shard(index=int(environment["JOB_COMPLETION_INDEX"]), count=int(environment["JOB_COMPLETIONS"]))
    if "RANK" in environment and "WORLD_SIZE" in environment:
        yield Shard(index=int(environment["RANK"]), count=int(environment["WORLD_SIZE"]))

"""A list of work on a Ray cluster: one actor a GPU, or a part of one, and a task an item.

Ray places the actors, tells of those that died with their node, and runs the tasks. What is decided here is only which
item comes next: one whose worker is gone or failed goes to another node, and is set aside after TRIES.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ..callbacks import OnStep, no_progress
from . import ray_worker
from .work import Job, Notes, Outcome, first_line

log = logging.getLogger("lyra")

ROOT = Path(__file__).resolve().parents[2]  # of the pack
TRIES = 3  # of an item, and of a worker to start before any has
STORE = 80_000_000  # bytes of the object store of a cluster of our own, which carries names only
PATIENCE = 60.0  # seconds without an event after which the log says what is waited for


def make_on_ray(
    job: Job,
    names: Sequence[str],
    *,
    address: str = "auto",
    workers: int | None = None,
    gpus: float | None = None,
    on_step: OnStep = no_progress,
) -> Outcome:
    """Make items on the cluster at an ``address``, or ``auto``: the one that RAY_ADDRESS names, or one of our own.

    ``gpus`` are those of a worker, 0 for the CPU, by default 1 if the cluster has any. ``workers`` are by default as
    many as fit. Results must lie where every node sees them. ValueError where no worker fits, or none starts.
    """
    if not names:
        return Outcome()
    ray = imported()
    with connected(ray, address):
        there = ray.cluster_resources()
        gpus = float(min(there.get("GPU", 0), 1)) if gpus is None else gpus
        fit = int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 0))
        if not (count := workers or fit):
            what = f"{gpus:g} GPUs" if gpus else "a CPU core"
            raise ValueError(f"no worker fits: each needs {what}, and the cluster has {there}; give --gpus-per-worker")
        crew = Crew(ray, job, gpus)
        try:
            return crew.work(names, min(count, len(names)), on_step)
        finally:
            crew.dismiss()


def imported() -> ModuleType:
    """Ray, if it is installed."""
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"Ray is not installed here ({error}): pip install 'ray>=2.40', or use --shard i/n") from error
    return ray


@contextmanager
def connected(ray: ModuleType, address: str) -> Iterator[None]:
    """A connection to a cluster, kept if there was one before; a cluster of our own ends with it."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    own = {} if address else {"object_store_memory": STORE, "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.WARNING, **own)
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"no Ray cluster answers at {address or 'this machine'}: {first_line(str(error))}") from error
    try:
        yield
    finally:
        ray.shutdown()


class Crew:
    """The workers of one list of work."""

    def __init__(self, ray: ModuleType, job: Job, gpus: float):
        ray.cloudpickle.register_pickle_by_value(ray_worker)
        self.ray = ray
        self.remote = ray.remote(ray_worker.Worker).options(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")
        self.told = told(job.briefed(), "cuda" if gpus else "cpu")
        self.notes = Notes(job.place())
        self.running: dict = {}  # reference -> worker, name; no name while it starts
        self.nodes: dict = {}  # worker that has started -> its node
        self.idle: list = []
        self.again: deque[str] = deque()
        self.tries: Counter[str] = Counter()
        self.failed_on: dict[str, str] = {}  # name -> node
        self.failed_starts = 0
        self.outcome = Outcome()

    def work(self, names: Sequence[str], workers: int, on_step: OnStep) -> Outcome:
        """Make all items, with as many workers."""
        self.todo, total = iter(names), len(names)
        for _ in range(workers):
            self.hire()
        while (done := self.outcome.made + len(self.outcome.failed)) < total and not self.outcome.is_hopeless:
            on_step(done, total)
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=PATIENCE)
            for reference in ready:
                self.hear(reference)
            if not ready and not self.nodes:
                log.warning("no worker could start yet; the cluster has %s free", self.ray.available_resources())
            self.hand_out()
        on_step(done, total)
        return self.outcome

    def hire(self) -> None:
        """Ask for a worker; it starts when the cluster has room for it."""
        worker = self.remote.remote(*self.told)
        self.running[worker.start.remote()] = (worker, None)

    def hear(self, reference: object) -> None:
        """What came of a start or of an item."""
        worker, name = self.running.pop(reference)
        try:
            answer = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:  # the worker is gone, or its node, or all that it said
            self.lose(worker, name, f"its worker was lost: {error}")
            return
        if name is not None:
            self.idle.append(worker)
            self.count(name, answer, self.nodes[worker])
            return
        node, problem = answer
        if problem is None:
            self.nodes[worker], self.failed_starts = node, 0
            self.idle.append(worker)
        else:
            self.lose(worker, None, problem)

    def lose(self, worker: object, name: str | None, problem: str) -> None:
        """Go on without a worker, and with another one in its place."""
        self.ray.kill(worker)
        node = self.nodes.pop(worker, "")
        if name is None:
            self.failed_starts += 1
            log.warning("a worker did not start: %s", first_line(problem))
            if self.failed_starts >= TRIES:
                if not self.nodes and not any(name is None for _, name in self.running.values()):
                    raise ValueError(first_line(problem))
                return
        else:
            self.count(name, problem, node)
        self.hire()

    def count(self, name: str, problem: str | None, node: str) -> None:
        """Note what came of an item; one that failed is tried again elsewhere."""
        if problem and (tries := self.tries[name] + 1) < TRIES:
            log.info("%s is tried again: %s", name, first_line(problem))
            self.tries[name], self.failed_on[name] = tries, node
            self.again.append(name)
            self.outcome.retries += 1
            return
        self.notes.take(name, problem)
        self.outcome.take(name, problem)

    def hand_out(self) -> None:
        """Give every idle worker an item, if there is one for it."""
        for worker in tuple(self.idle):
            if (name := self.next_for(self.nodes[worker])) is not None:
                self.idle.remove(worker)
                self.running[worker.make.remote(name)] = (worker, name)

    def next_for(self, node: str) -> str | None:
        """One that failed on another node, else a new one; what failed here stays for others if there are any."""
        others = set(self.nodes.values()) - {node}
        for name in self.again:
            if self.failed_on[name] != node or not others:
                self.again.remove(name)
                return name
        return next(self.todo, None)

    def dismiss(self) -> None:
        """End all workers, at work or not; what they have finished is kept."""
        for worker in {*self.nodes, *(worker for worker, _ in self.running.values())}:
            self.ray.kill(worker)


def told(job: Job, device: str) -> tuple[str, str, str, dict[str, object], str]:
    """What a worker is told: where the pack lies, and the job in plain values."""
    kind = type(job)
    module = kind.__module__.partition(".")[2]  # below the pack, whatever that is called
    return str(ROOT), module, kind.__name__, dict(vars(job)), device

"""A Ray cluster on this machine, nodes of which are killed: every scene is there once, as one process makes it.

Two short runs on two nodes, or twenty on four with ``--long``, five a test; ``--figures FILE`` gathers their table.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.scale import work
from lyra_pack.comfyui_lyra.scale.on_ray import TRIES, make_on_ray
from lyra_pack.comfyui_lyra.scale.work import make_here

if sys.platform != "linux":
    pytest.skip("Ray simulates several nodes on Linux only", allow_module_level=True)
ray = pytest.importorskip("ray", reason="needs the extra 'scale': pip install ray")

from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.slow

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
SCENES = range(10_000, 10_006)
POISON = 10_003  # cannot be written in the first run


@pytest.fixture(scope="module")
def size(long) -> int:
    """Nodes of the cluster; as many workers leave none idle, so that who takes a lost one's place needs a new node."""
    return 4 if long else 2


@pytest.fixture(scope="module")
def cluster(size):
    """A head without workers, and nodes of one core each."""
    os.environ.update({"RAY_worker_niceness": "0"})  # beside other tests, polite workers would wait for ever
    found = Cluster()
    try:
        try:
            found.add_node(include_dashboard=False, **NODE | {"num_cpus": 0})
            for _ in range(size):
                found.add_node(wait=False, **NODE)
            found.wait_for_nodes()
        except Exception as error:  # Ray's own kind is Exception; nothing of ours has run yet
            if "timed out" not in str(error):
                raise
            pytest.skip(f"Ray could not start its nodes in time, on a machine as busy as this: {error}")
        ray.init(address=found.address, log_to_driver=False)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


@dataclass(kw_only=True)
class Killer:
    """Kills nodes at which workers are, each at a random moment, from a thread.

    Others are added in the main thread, the only one in which Ray adds any.
    """

    cluster: Cluster
    kills: int
    within: float  # seconds after the first scene, or after the kill before
    seed: int
    killed: int = 0
    added: int = 0

    def __post_init__(self):
        self.begun, self.over = threading.Event(), threading.Event()
        self.random = random.Random(self.seed)
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.begun.set()
        self.thread.join()
        self.add()

    def step(self, done: int, total: int) -> None:
        """What a run tells after each event, such as a scene or the loss of a worker."""
        if done:
            self.begun.set()
        self.add()

    def add(self) -> None:
        """A node for each that was killed."""
        while self.added < self.killed:
            self.added += 1
            self.cluster.add_node(wait=False, **NODE)

    def run(self):
        self.begun.wait()
        for _ in range(self.kills):
            if self.over.wait(self.random.uniform(0, self.within)):
                return
            actors = ray._private.state.actors().values()
            homes = {actor["Address"]["NodeID"] for actor in actors if actor["State"] == "ALIVE"}
            if victims := [node for node in tuple(self.cluster.worker_nodes) if node.node_id in homes]:
                self.cluster.remove_node(self.random.choice(victims), allow_graceful=False)
                self.killed += 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory, models):
    """What one process makes, and in how many seconds."""
    job, start = job_in(tmp_path_factory.mktemp("alone"), models), time.perf_counter()
    on_one_core(job)
    return Path(job.out), time.perf_counter() - start


def on_one_core(job) -> int:
    """Make what is left as a node does, with one core, since sums depend on their number; how many were made."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return make_here(job, job.left(), "cpu").made
    finally:
        torch.set_num_threads(cores)


def job_in(folder, models):
    from lyra_pack.comfyui_lyra.scale.scenes import ScenesJob

    files = {name: str(models / f"{name}.safetensors") for name in ("teacher", "tokenizer")}
    return ScenesJob(out=str(folder / "out"), seeds=SCENES, steps=2, **files)


@pytest.mark.parametrize("first", [0, 5, 10, 15])
def test_every_scene_is_made_once_though_nodes_are_killed(
    cluster, size, alone, models, contents, tmp_path, long, pytestconfig, first
):
    if first and not long:
        pytest.skip("the long form only (--long): twenty runs; two are here")
    whole, seconds = alone
    rows = []
    for number in range(first, first + 5 if long else 2):
        job = job_in(tmp_path / str(number), models)
        out = Path(job.out)
        if number == 0:
            (blocked := out / "2" / "rgb" / f"{POISON}.mp4").mkdir(parents=True)
        start, before = time.perf_counter(), alive()
        within = seconds / 2 if long else seconds / len(SCENES)
        with Killer(cluster=cluster, kills=size // 2, within=within, seed=number) as killer:
            outcome = make_on_ray(job, job.left(), workers=size, on_step=killer.step)
        took = time.perf_counter() - start
        until(lambda before=before, new=killer.killed: (len(alive()), len(alive() - before)) == (len(before), new))
        if number == 0:
            assert list(outcome.failed) == [str(POISON)] and outcome.retries >= TRIES - 1
            assert "IsADirectoryError" in (out.with_name("out.lyra") / "failed" / f"{POISON}.txt").read_text()
            assert job.left() == [str(POISON)]
            blocked.rmdir()
            assert on_one_core(job) == 1
        assert job.left() == [] and outcome.made + len(outcome.failed) == len(SCENES)
        found, wanted = contents(out), contents(whole)
        lost, more = wanted.keys() - found.keys(), found.keys() - wanted.keys()
        other = [name for name in wanted if found.get(name) != wanted[name]]
        rows.append((number, killer.killed, len(SCENES), outcome.retries, len(more), len(lost), len(other), took))
        if keep := pytestconfig.getoption("--figures"):
            note(rows[-1:], Path(keep))
        assert not lost and not more and not other
    assert sum(row[1] for row in rows)  # some node was killed


def alive() -> set[str]:
    """The nodes that are there."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def until(told: Callable[[], bool], seconds: float = 90) -> None:
    """Wait for what the cluster comes to know by itself."""
    deadline = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < deadline, f"{alive()} are alive"
        time.sleep(0.2)


def note(rows: list[tuple], file: Path) -> None:
    """Add runs to a table."""
    heads = ["run", "nodes killed", "scenes", "retries", "files too many", "files lost", "files other", "s"]
    lines = [] if file.exists() else [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(map(str, row[:-1])) + f" | {row[-1]:.1f} |" for row in rows]
    with file.open("a", encoding="utf-8") as table:
        table.write("\n".join(lines) + "\n")


def test_a_stopped_run_keeps_what_is_done_and_a_second_makes_the_rest(cluster, models, tmp_path, contents, alone, long):
    if not long:
        pytest.skip("the long form only (--long): each worker takes seconds to start; test_on_ray.py has the decisions")

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    job = job_in(tmp_path, models)
    with pytest.raises(KeyboardInterrupt):
        make_on_ray(job, job.left(), workers=1, on_step=stop)
    left = job.left()
    assert 0 < len(left) <= len(SCENES) - 2
    assert make_on_ray(job, left, workers=1).made == len(left)
    assert contents(Path(job.out)) == contents(alone[0])


def test_workers_that_cannot_be_are_told_of(cluster, job):
    with pytest.raises(ValueError, match="no worker fits: each needs 1 GPUs"):
        make_on_ray(job, job.left(), gpus=1.0)
    assert work.make_here(job, [], "cpu").made == make_on_ray(job, []).made == 0

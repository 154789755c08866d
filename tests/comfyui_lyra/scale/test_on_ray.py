"""Which item comes next, on a Ray that answers as it is told: lost workers, nodes that fail, workers that do not start.

The real one is in test_cluster.py.
"""

import sys
from types import SimpleNamespace

import pytest
from lyra_pack.comfyui_lyra.files.places import Place
from lyra_pack.comfyui_lyra.scale.on_ray import ROOT, TRIES, Crew, connected, imported, told
from lyra_pack.comfyui_lyra.scale.scenes import ScenesJob
from lyra_pack.comfyui_lyra.scale.work import IN_A_ROW


class RayError(Exception):
    pass


class Ray:
    """Workers on nodes a, b, a, ...; ``make(node, name)`` answers or raises, and references come true in order."""

    def __init__(self, make, start=lambda node: None, nodes="ab"):
        self.make, self.start, self.nodes = make, start, nodes
        self.hired, self.killed, self.asked = 0, [], []
        self.exceptions = SimpleNamespace(RayError=RayError)
        self.cloudpickle = SimpleNamespace(register_pickle_by_value=lambda module: None)

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self.hire))

    def hire(self, *_):
        node = self.nodes[self.hired % len(self.nodes)]
        worker = Worker(self, node)
        self.hired += 1
        return worker

    def wait(self, references, num_returns, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        return reference()

    def kill(self, worker):
        self.killed.append(worker)

    def available_resources(self):
        return {}


class Worker:
    def __init__(self, ray, node):
        self.ray, self.node = ray, node
        self.start = SimpleNamespace(remote=lambda: lambda: (node, ray.start(node)))
        self.make = SimpleNamespace(remote=self.ask)

    def ask(self, name):
        self.ray.asked.append((self.node, name))
        return lambda: self.ray.make(self.node, name)


class Job:
    def __init__(self, out):
        self.out = out

    def place(self):
        return Place.of(self.out)

    def briefed(self):
        return ScenesJob(out=str(self.out), seeds=())


def work(ray, tmp_path, names, workers=2, on_step=lambda done, total: None):
    crew = Crew(ray, Job(tmp_path / "out"), gpus=0)
    try:
        return crew.work(list(names), workers, on_step)
    finally:
        crew.dismiss()


def test_everything_is_made_once_and_the_workers_go_home(tmp_path):
    ray = Ray(lambda node, name: None)
    outcome = work(ray, tmp_path, "pqrst")
    assert outcome.made == 5 and not outcome.failed
    assert sorted(name for _, name in ray.asked) == list("pqrst") and {node for node, _ in ray.asked} == {"a", "b"}
    assert len(set(ray.killed)) == 2


def test_what_was_at_a_lost_worker_is_made_by_another(tmp_path):
    lost = []

    def make(node, name):
        if name == "q" and not lost:
            lost.append(node)
            raise RayError("its node is gone")

    ray = Ray(make)
    outcome = work(ray, tmp_path, "pqrs")
    assert outcome.made == 4 and outcome.retries == 1 and ray.hired == 3  # one in its place
    first, second = (node for node, name in ray.asked if name == "q")
    assert first == lost[0] and second != first


def test_what_fails_is_tried_on_another_node_and_then_set_aside(tmp_path):
    ray = Ray(lambda node, name: "ValueError: too dark\nTraceback" if name == "q" else None)
    outcome = work(ray, tmp_path, "pqrstu")
    assert outcome.made == 5 and outcome.failed == {"q": "ValueError: too dark\nTraceback"}
    tried = [node for node, name in ray.asked if name == "q"]
    assert len(tried) == TRIES and tried[0] != tried[1] != tried[2]
    assert (tmp_path / "out.lyra" / "failed" / "q.txt").read_text().startswith("ValueError: too dark")


def test_one_worker_tries_again_by_itself(tmp_path):
    ray = Ray(lambda node, name: "OSError: no" if name == "p" else None)
    outcome = work(ray, tmp_path, "pq", workers=1)
    assert outcome.made == 1 and list(outcome.failed) == ["p"] and len(ray.asked) == 1 + TRIES


def test_an_item_that_ends_its_workers_is_set_aside_too(tmp_path):
    def make(node, name):
        if name == "q":
            raise RayError("out of memory")

    ray = Ray(make)
    outcome = work(ray, tmp_path, "pqrs")
    assert outcome.made == 3 and "out of memory" in outcome.failed["q"] and ray.hired == 2 + TRIES


def test_where_nothing_can_be_made_the_rest_is_not_tried(tmp_path):
    outcome = work(Ray(lambda node, name: "OSError: disk full"), tmp_path, map(str, range(1000)))
    assert outcome.is_hopeless and IN_A_ROW <= len(outcome.failed) < 2 * IN_A_ROW


def test_workers_that_cannot_start_are_told_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^no such file: teacher$"):
        work(Ray(lambda node, name: None, start=lambda node: "no such file: teacher\nTraceback"), tmp_path, "pq")


def test_a_bad_node_leaves_the_work_to_good_ones(tmp_path):
    ray = Ray(lambda node, name: None, start=lambda node: "no GPU here" if node == "b" else None)
    assert work(ray, tmp_path, "pqrs").made == 4
    assert {node for node, _ in ray.asked} == {"a"}


def test_who_stops_it_sends_all_workers_home(tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    ray = Ray(lambda node, name: None)
    with pytest.raises(KeyboardInterrupt):
        work(ray, tmp_path, "pqrs", on_step=stop)
    assert len(set(ray.killed)) == 2


def test_a_worker_is_told_plain_values(tmp_path):
    root, module, kind, values, device = told(ScenesJob(out="there", seeds=(), steps=3), "cuda")
    assert (root, module, kind, device) == (str(ROOT), "comfyui_lyra.scale.scenes", "ScenesJob", "cuda")
    assert ScenesJob(**values) == ScenesJob(out="there", seeds=(), steps=3)
    assert all(isinstance(value, (str, int, float, tuple, type(None))) for value in values.values())


def test_without_ray_the_other_way_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install 'ray>=2.40', or use --shard i/n"):
        imported()


def test_a_cluster_that_does_not_answer_is_named():
    def init(**_):
        raise ConnectionError("nobody there\nsecond line")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    answer = r"no Ray cluster answers at 10\.0\.0\.1:6379: nobody there$"
    with pytest.raises(ValueError, match=answer), connected(ray, "10.0.0.1:6379"):
        pass

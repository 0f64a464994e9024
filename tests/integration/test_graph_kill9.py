"""Workers of graphs as real processes, killed in the middle, by others or by what they run."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import cloudpickle
import pytest
from ring_kit import Ring, alive

from mapreduce.graph import run as graph_run
from mapreduce.graph.client import SyncGraphClient, delayed
from mapreduce.graph.errors import TaskFailed, TaskKilled
from mapreduce.graph.graphs import Graph, evaluate
from mapreduce.graph.scheduler import Scheduler
from mapreduce.graph.states import READY, RUNNING, WAITING

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    ring = Ring(tmp_path_factory.mktemp("graph") / "home")
    ring.up("graph=2")
    yield ring
    pids = ring.pids()
    children = [node["says"]["child"] for node in ring.status().values()]
    ring("down")
    assert not [pid for pid in (*pids, *children) if pid and alive(pid)], "left behind"


@pytest.fixture
def graph(cluster):
    cluster.healthy()
    with SyncGraphClient(cluster.home / "cluster.toml") as client:
        yield client


def work(name, *values):
    end = time.perf_counter() + 0.0002
    while time.perf_counter() < end:
        pass
    return (sum(values) * 31 + name) % 1_000_003


def layered(width, layers):
    dsk = {f"0-{i}": (work, i) for i in range(width)}
    for layer in range(1, layers):
        for i in range(width):
            above = [f"{layer - 1}-{(i * 7 + k * 13) % width}" for k in range(2)]
            dsk[f"{layer}-{i}"] = (work, i, *above)
    dsk["end"] = (work, 0, *(f"{layers - 1}-{i}" for i in range(width)))
    return dsk


class Judged(Scheduler):
    """Asserts after each loss that what is to run is what a naive walk says, and no more."""

    losses = 0

    def __init__(self, **options):
        super().__init__(**options)
        self.must_again = set()

    def left(self, worker):
        held = {n for n, t in self.tasks.items() if t.holders == {worker}}
        needed = self.naively(worker, lambda name: self.tasks[name].holders - {worker})
        was_there = worker in self.workers
        super().left(worker)
        if was_there:
            type(self).losses += bool(held)
            self.judge(needed)

    def missing(self, name, worker, needed, holders):
        if self.tasks[name].runs_on != worker:
            return
        gone = {needed: set(holders)}
        found = self.naively(None, lambda n: self.tasks[n].holders - gone.get(n, set()), {name})
        super().missing(name, worker, needed, holders)
        self.judge(found)

    def naively(self, dead, holders, stopped=frozenset()):
        """From what is wanted back to what is in a memory, or runs at one that lives."""
        at_hand = {
            n
            for n, t in self.tasks.items()
            if holders(n) or (t.runs_on not in (None, dead) and n not in stopped)
        }
        needed, stack = set(), [n for n, t in self.tasks.items() if t.wanted and n not in at_hand]
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack += [n for n in self.tasks[name].inputs if n not in at_hand]
        return needed

    def judge(self, needed):
        live = (WAITING, READY, RUNNING)
        planned = {n for n, t in self.tasks.items() if t.state in (WAITING, READY)}
        begun = {n for n in needed if self.tasks[n].state == RUNNING}
        assert planned | begun == needed, "more is to run than must, or less"
        self.must_again |= {n for n in needed if self.tasks[n].runs and self.tasks[n].state in live}


def test_five_thousand_tasks_with_workers_killed_in_the_middle(cluster, graph, monkeypatch):
    monkeypatch.setattr(graph_run, "Scheduler", Judged)
    Judged.losses = 0
    dsk = layered(250, 20)
    expected = evaluate(Graph.of(dsk), ["end"])[0]
    kills = [1000, 2500, 4000]

    def kill(counts):
        report = graph.report
        if kills and report.ran > kills[0]:
            kills.pop(0)
            name = ("g1", "g2")[len(kills) % 2]
            os.kill(cluster.status()[name]["pid"], signal.SIGKILL)

    graph.asynchronous.on_change = kill
    assert graph.get(dsk, "end") == expected
    report = graph.report
    assert report.lost, "nobody was killed in time to tell"
    assert Judged.losses, "nothing was lost"
    scheduler = graph.asynchronous.run.scheduler
    assert set(report.recomputed) == scheduler.must_again
    assert len(report.recomputed) < len(dsk)
    scheduler.check()


def boom():
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_function_that_takes_its_process_down_is_named_and_its_worker_lives(cluster, graph):
    before = {name: node["pid"] for name, node in cluster.status().items()}
    with pytest.raises(TaskKilled, match=r"boom-.*SIGSEGV"):
        graph.compute(delayed(boom)())
    assert graph.report.lost == []
    assert {name: node["pid"] for name, node in cluster.status().items()} == before
    assert graph.compute(delayed(work)(1)) == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_again_and_again_and_it_never_hangs(cluster, graph):
    for _ in range(100):
        with pytest.raises(TaskKilled):
            graph.compute(delayed(boom)())


def once(path):
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_a_function_that_dies_once_is_run_again(cluster, graph, tmp_path):
    assert graph.compute(delayed(once)(str(tmp_path / "flag"))) == "done"


def raises():
    raise KeyError("which one?")


def test_an_exception_comes_with_its_traceback(cluster, graph):
    with pytest.raises(TaskFailed, match="in raises") as caught:
        graph.compute(delayed(raises)())
    assert isinstance(caught.value.__cause__, KeyError)


class Point:
    def __init__(self, x):
        self.x = x


def moved(point, by):
    return Point(point.x + by)


def test_values_may_be_of_classes_that_workers_cannot_import(cluster, graph):
    found = graph.compute(delayed(moved)(delayed(moved)(Point(1), 2), 3), fusion=False)
    assert type(found) is Point
    assert found.x == 6


def big(count):
    return b"x" * count


def test_values_of_many_megabytes_go_from_worker_to_worker(cluster, graph):
    sizes = [5_000_000, 9_000_000, 1, 13_000_000]
    dsk = {f"v{i}": (big, size) for i, size in enumerate(sizes)}
    dsk["all"] = (lambda *values: sum(map(len, values)), *dsk)
    whole, last = graph.get(dsk, ["all", "v3"])
    assert whole == sum(sizes)
    assert len(last) == 13_000_000


def test_ring_mr_graph_runs_and_draws(cluster, tmp_path):
    file = tmp_path / "jobs.py"
    file.write_text(
        "from operator import add\n"
        "from mapreduce.graph.client import delayed\n"
        "def double(x):\n    return 2 * x\n"
        "sums = {'a': 1, 'b': (add, 'a', 2), 'c': (double, 'b'), 'd': (double, 'c'),"
        " 'e': (add, 'c', 'd')}\n"
        "one = delayed(double)(delayed(double)(5))\n"
        "def made():\n    return one\n"
        "circle = {'a': 'b', 'b': 'a'}\n"
        "fails = {'a': (int, 'no')}\n"
    )
    drawing = tmp_path / "graph.svg"
    done = cluster("mr", "graph", f"{file}:sums", "--draw", str(drawing))
    assert done.stdout.strip() == "18"
    assert "e: done" in drawing.read_text()
    assert cluster("mr", "graph", f"{file}:made").stdout.strip() == "20"
    told = json.loads(cluster("mr", "graph", f"{file}:one", "--json", "--no-fusion").stdout)
    assert (told["tasks"], told["ran"], told["recomputed"]) == (2, 2, [])
    assert "a → b → a" in cluster("mr", "graph", f"{file}:circle", status=2).stderr
    failed = cluster("mr", "graph", f"{file}:fails", "--draw", str(tmp_path / "f.dot"), status=1)
    assert "invalid literal" in failed.stderr
    assert "#e07a6b" in (tmp_path / "f.dot").read_text()
    cluster("mr", "graph", f"{file}:sums", "--dry", "--draw", str(drawing))
    assert cluster("mr", "graph", f"{file}:nothing", status=2).stderr
    assert cluster("mr", "graph", "nothing.py:x", status=2).stderr

"""A cluster of MapReduce in virtual time: the cores of master and workers, and a model of machines.

What decides here is what decides in the daemons: mapreduce.master_core and worker_core, whole, with
their beats, orders and timers. What is modelled is how long the work takes:

    map       split / DISK_B_S             its input is read all the while
    fetch     2 ms + segment / LINE_B_S    four at a time a worker, as worker_core asks for them
    reduce    part / DISK_B_S              its output is written all the while
    a machine that is slow                 all but the fetches takes so many times longer

with a tenth of variation. Nobody waits for anybody's disk or line, and no message is lost: what
such things do to a job, the simulations and the tests of real processes show.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mapreduce.job import Job
from mapreduce.job_state import ENDED, FINISHED
from mapreduce.master_core import MasterCore
from mapreduce.messages import MAP, Failure, JobSpec, Mission, Orders, Result
from mapreduce.outputs import Commit, Finish, Persist, Send
from mapreduce.splits import Split
from mapreduce.worker_core import Fetch, Kill, Launch, WorkerCore

MB: Final = 1_000_000
SPLIT_BYTES: Final = 64 * MB
DISK_B_S: Final = 20 * MB  # of one slot
LINE_B_S: Final = 25 * MB  # of one fetch: four of them fill a gigabit
LATENCY_S: Final = 0.002
BEAT_S: Final = 0.2
TICK_S: Final = 0.1
DURABLE_S: Final = 0.005
STEPS: Final = 20  # that an attempt reports
END_S: Final = 3600.0

INPUT, SHUFFLE, OUTPUT = "input", "shuffle", "output"


@dataclass(frozen=True, slots=True)
class Machines:
    """Workers, with when each joins and how much slower than the others some are."""

    count: int = 20
    slots: int = 2
    join_s: float = 0.0  # between one and the next
    slow: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that moved evenly from one moment to another."""

    kind: str
    start: float
    end: float
    bytes: float


class Cores:
    """One master and its workers at one job."""

    def __init__(self, seed: int, machines: Machines) -> None:
        self.now = 0.0
        self.spans: list[Span] = []
        self.outputs: dict[str, list[int]] = {}  # part -> the maps that are in it
        self.commits = 0
        self.began: float | None = None
        self._machines = machines
        self._dice = random.Random(seed)
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._master = MasterCore(1)
        self._workers: dict[str, WorkerCore] = {}
        self._lives: dict[str, int] = {}
        self._files: dict[str, int] = {}  # map outputs that are there, and whose they are
        self._written: dict[str, list[int]] = {}  # what attempts wrote, not committed yet
        self._runs: dict[str, tuple[float, float]] = {}  # attempt -> when it began, how long
        self._killed: set[str] = set()
        for i in range(machines.count):
            self._at(i * machines.join_s, self.start, f"w{i + 1}")
        self._tick()

    # -- time

    def _at(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._queue, (self.now + delay, self._number, call, arguments))

    def run(self, job: Job, maps: int, kills: Mapping[str, float]) -> dict[str, Any]:
        """Run a job to its end; `kills`: workers, and when. How it went, in the master's words."""
        splits = [Split("/in", i * SPLIT_BYTES, SPLIT_BYTES, []) for i in range(maps)]
        id = self._master.submit(JobSpec(job, splits, []), self.now)
        self._do_master()
        for name, when in kills.items():
            self._at(when, self._kill, name)
        while self._master.jobs[id].state not in ENDED and self.now < END_S:
            self.now, _, call, arguments = heapq.heappop(self._queue)
            call(*arguments)
        if self._master.jobs[id].state != FINISHED:
            raise AssertionError(f"the job is {self._master.jobs[id].state} after {self.now:.0f} s")
        found = self._master.outcome(id, self.now)
        assert found is not None
        return found

    def start(self, name: str) -> None:
        """A worker's first life, or the next."""
        life = self._lives[name] = self._lives.get(name, 0) + 1
        folder = f"/{name}/{life}"
        self._workers[name] = WorkerCore(name, f"life{life}", self._machines.slots, folder)
        self._beat(name, life)

    def _kill(self, name: str) -> None:
        """The process dies, its map outputs with it; another starts at once on the machine."""
        del self._workers[name]
        self._files = {p: m for p, m in self._files.items() if not p.startswith(f"/{name}/")}
        self._at(1.0, self.start, name)

    # -- the master

    def _tick(self) -> None:
        self._master.on_deadline(self.now)
        self._do_master()
        self._at(TICK_S, self._tick)

    def _do_master(self) -> None:
        for output in self._master.take_outputs():
            if isinstance(output, Persist):
                self._at(DURABLE_S, self._persisted, output.sequence)
            elif isinstance(output, Send):
                self._at(LATENCY_S, self._orders, output.worker, output.orders)
            elif isinstance(output, Commit):
                self._at(LATENCY_S, self._commit, output)
            elif isinstance(output, Finish):
                self._at(LATENCY_S, self._finish, output)

    def _persisted(self, sequence: int) -> None:
        self._master.persisted(sequence, self.now)
        self._do_master()

    def _commit(self, commit: Commit) -> None:
        if commit.temporary in self._written:
            self.outputs[commit.name] = self._written.pop(commit.temporary)
            self.commits += 1
        there = commit.name in self.outputs
        self._master.committed(commit.job_id, commit.kind, commit.index, there, self.now)
        self._do_master()

    def _finish(self, finish: Finish) -> None:
        self._master.written(finish.job_id, "", self.now)
        self._do_master()

    # -- the workers

    def _orders(self, name: str, orders: Orders) -> None:
        if name in self._workers:
            self._workers[name].receive(orders, self.now)
            self._do_worker(name)

    def _beat(self, name: str, life: int) -> None:
        worker = self._alive(name, life)
        if worker is not None:
            worker.on_deadline(self.now)
            self._do_worker(name)
            self._at(LATENCY_S, self._heard, name, life)
            self._at(BEAT_S, self._beat, name, life)

    def _alive(self, name: str, life: int) -> WorkerCore | None:
        return self._workers.get(name) if self._lives[name] == life else None

    def _do_worker(self, name: str) -> None:
        worker, life = self._workers[name], self._lives[name]
        for output in worker.take_outputs():
            if isinstance(output, Launch):
                self._launch(worker, life, output.mission)
            elif isinstance(output, Kill):
                self._killed.add(output.attempt)
                self._at(0.0, self._ended, name, life, output.attempt)
            elif isinstance(output, Fetch):
                took = LATENCY_S + self._segment(output) / LINE_B_S * self._dice.uniform(0.9, 1.1)
                self._at(took, self._fetched, name, life, output, self.now)

    def _heard(self, name: str, life: int) -> None:
        worker = self._alive(name, life)
        if worker is not None:
            self._master.receive(worker.beat(), self.now)
            self._do_master()

    def _launch(self, worker: WorkerCore, life: int, mission: Mission) -> None:
        start = mission.start
        size = SPLIT_BYTES if start.kind == MAP else sum(run[2] for run in mission.runs)
        slower = self._machines.slow.get(worker.name, 1.0) * self._dice.uniform(0.9, 1.1)
        took = size / DISK_B_S * slower
        if self.began is None:
            self.began = self.now
        self._runs[start.attempt] = (self.now, took)
        worker.moved(start.attempt, (0, 1, STEPS), "", self.now)
        for step in range(1, STEPS):
            self._at(took * step / STEPS, self._moved, worker.name, life, start.attempt, step)
        self._at(took, self._ran, worker.name, life, mission, size)

    def _moved(self, name: str, life: int, attempt: str, step: int) -> None:
        worker = self._alive(name, life)
        if worker is not None and attempt not in self._killed:
            worker.moved(attempt, (step, step, STEPS), "", self.now)

    @staticmethod
    def _segment(fetch: Fetch) -> int:
        return sum(run[1] for run in fetch.source.runs[fetch.part])

    def _fetched(self, name: str, life: int, fetch: Fetch, began: float) -> None:
        worker = self._alive(name, life)
        if worker is None:
            return
        source = fetch.source
        if source.path in self._files:
            size = self._segment(fetch)
            self.spans.append(Span(SHUFFLE, began, self.now, size))
            self._files[fetch.path] = source.index
            runs = [[fetch.path, 0, size, 1, source.index]]
            worker.fetched(fetch.attempt, source, runs, self.now)
        else:
            worker.not_fetched(fetch.attempt, source, self.now)
        self._do_worker(name)

    def _ended(self, name: str, life: int, attempt: str) -> None:
        """What a killed child leaves: its slot."""
        worker = self._alive(name, life)
        if worker is not None:
            failure = Failure("lost", "cancelled")
            worker.ended(Result(attempt, "", MAP, 0, failure=failure), self.now)
            self._do_worker(name)

    def _ran(self, name: str, life: int, mission: Mission, size: int) -> None:
        worker = self._alive(name, life)
        start = mission.start
        if worker is None or start.attempt in self._killed:
            return
        began, took = self._runs[start.attempt]
        result = Result(
            start.attempt, start.job_id, start.kind, start.index, mission.out,
            counters={"lab": {f"{start.kind} bytes": size}}, seconds=took,
        )  # fmt: skip
        kind = INPUT if start.kind == MAP else OUTPUT
        self.spans.append(Span(kind, began, self.now, size))
        if start.kind == MAP and mission.job.reduces:
            self._files[mission.out] = start.index
            parts = mission.job.reduces
            result = replace(result, runs=[[[0, size // parts, 1]]] * parts)
        elif start.kind == MAP:
            self._written[mission.out] = [start.index]
        elif missing := [run for run in mission.runs if run[0] not in self._files]:
            failure = Failure("source", "gone", source=missing[0][4])
            result = replace(result, failure=failure)
        else:
            self._written[mission.out] = [self._files[run[0]] for run in mission.runs]
        worker.ended(result, self.now)
        self._do_worker(name)
        self._at(LATENCY_S, self._heard, name, life)  # a result is told at once


def rate(spans: list[Span], kind: str, step_s: float) -> list[tuple[float, float]]:
    """(second, MB/s) of what moved, step by step."""
    chosen = [span for span in spans if span.kind == kind]
    last = max((span.end for span in spans), default=0.0)
    bins = [0.0] * (int(last / step_s) + 2)
    for span in chosen:
        per_s = span.bytes / max(span.end - span.start, 1e-9)
        at = span.start
        while at < span.end:
            number = int(at / step_s + 1e-9)
            until = min(span.end, (number + 1) * step_s)
            if until <= at:
                number, until = number + 1, min(span.end, (number + 2) * step_s)
            bins[number] += per_s * (until - at)
            at = until
    return [((number + 0.5) * step_s, moved / MB / step_s) for number, moved in enumerate(bins)]

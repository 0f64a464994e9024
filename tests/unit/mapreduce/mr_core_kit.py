"""Master and worker cores without processes: messages that are lost, repeated and late; crashes.

What a map "writes" is its index; a reduce's output is what it found of all maps. A map's file is
there while the life of the worker that made it lasts. All from one seed, in virtual time.
"""

from __future__ import annotations

import copy
import heapq
import random

from mapreduce.job import Job
from mapreduce.job_state import ENDED
from mapreduce.master_core import MasterCore
from mapreduce.messages import MAP, Beat, Failure, JobSpec, Orders, Progress, Result
from mapreduce.outputs import Commit, Finish, Persist, Send
from mapreduce.splits import Split
from mapreduce.worker_core import Fetch, Kill, Launch, WorkerCore
from netstack.rpc.schema import decode, encode

BEAT_S = 0.2


class Cores:
    """One master, some workers, one job after the other."""

    def __init__(self, seed, *, workers=3, slots=1, loss=0.0, master=MasterCore, worker=WorkerCore):
        self.dice = random.Random(seed)
        self.now = 0.0
        self.loss = loss
        self.kinds = (master, worker)
        self._queue: list = []
        self._number = 0
        self.durable: dict = {}
        self.master: MasterCore | None = None
        self.epoch = 0
        self.master_life = 0
        self.slots = slots
        self.workers: dict[str, WorkerCore | None] = {}
        self.lives: dict[str, int] = {}
        self.files: dict[tuple[str, str], int] = {}  # (path) of each map output that is there
        self.cut: set[tuple[str, str]] = set()  # (reader, holder) that cannot reach one another
        self.slow: dict[str, float] = {}
        self.full: set[str] = set()  # workers whose disk is
        self.bad: dict[tuple[str, int], int] = {}  # (kind, index) -> record at which it dies
        self.temporaries: dict[str, object] = {}
        self.output: dict[str, object] = {}
        self.renames: list[tuple[str, str]] = []
        self.report: dict | None = None
        self.launched: list[tuple[float, str, str, int]] = []
        self.offered: dict[str, str] = {}  # attempt -> its kind, of all that a worker was told
        self.killed: set[str] = set()
        self.start_master()
        for i in range(workers):
            self.start_worker(f"w{i + 1}")

    # -- time

    def at(self, delay, call, *arguments):
        self._number += 1
        heapq.heappush(self._queue, (self.now + delay, self._number, call, arguments))

    def run(self, until, limit_s=300.0):
        """Go on until `until()`; False if that did not come within `limit_s` of virtual time."""
        end = self.now + limit_s
        while not until():
            if not self._queue or self.now > end:
                return False
            self.now, _, call, arguments = heapq.heappop(self._queue)
            call(*arguments)
        return True

    def sleep(self, seconds):
        self.run(lambda at=self.now + seconds: self.now >= at, seconds + 1)

    # -- lives

    def start_master(self):
        self.epoch += 1
        self.master_life += 1
        self.master = self.kinds[0](self.epoch)
        self.master.restore(copy.deepcopy(self.durable), self.now)
        self._do_master()
        self._tick(self.master_life)

    def crash_master(self):
        self.master = None

    def start_worker(self, name):
        life = self.lives[name] = self.lives.get(name, 0) + 1
        self.workers[name] = self.kinds[1](name, f"life{life}", self.slots, f"/{name}/life{life}")
        self._beat(name, life)

    def crash_worker(self, name):
        self.workers[name] = None
        self.files = {at: what for at, what in self.files.items() if not at.startswith(f"/{name}/")}

    # -- the job

    def submit(self, maps=6, reduces=2, **more):
        job = Job("p", ["/in"], "/out", reduces=reduces, **more)
        splits = [Split("/in", i, 1, []) for i in range(maps)]
        id = self.master.submit(JobSpec(job, splits, []), self.now)
        self._do_master()
        return id

    def state(self, id):
        return (
            None
            if self.master is None or id not in self.master.jobs
            else self.master.jobs[id].state
        )

    def ended(self, id):
        return lambda: self.state(id) in ENDED

    # -- the master's side

    def _tick(self, life):
        if self.master is not None and life == self.master_life:
            self.master.on_deadline(self.now)
            self._do_master()
            self.at(0.1, self._tick, life)

    def _do_master(self):
        master, life = self.master, self.master_life
        if master is None:
            return
        master.check()
        for output in master.take_outputs():
            if isinstance(output, Persist):
                self.at(self.dice.uniform(0.001, 0.05), self._persisted, life, output)
            elif isinstance(output, Send):
                self._deliver(self._orders, output.worker, encode(output.orders))
            elif isinstance(output, Commit):
                self.at(self.dice.uniform(0, 0.02), self._commit, life, output)
            elif isinstance(output, Finish):
                self.at(0.01, self._finish, life, output)

    def _persisted(self, life, persist):
        if life != self.master_life or self.master is None:
            return
        for key, value in persist.records.items():
            if value is None:
                self.durable.pop(key, None)
            else:
                self.durable[key] = copy.deepcopy(value)
        self.master.persisted(persist.sequence, self.now)
        self._do_master()

    def _commit(self, life, commit):
        if life != self.master_life or self.master is None:
            return
        ok = commit.temporary in self.temporaries
        if ok:
            self.output[commit.name] = self.temporaries.pop(commit.temporary)
            self.renames.append((commit.name, commit.temporary))
        self.master.committed(
            commit.job_id, commit.kind, commit.index, ok or commit.name in self.output, self.now
        )
        self._do_master()

    def _finish(self, life, finish):
        if life == self.master_life and self.master is not None:
            self.report = finish.report
            self.master.written(finish.job_id, "", self.now)
            self._do_master()

    # -- the line

    def _deliver(self, call, *arguments):
        copies = 0 if self.dice.random() < self.loss else 1 + (self.dice.random() < self.loss)
        for _ in range(copies):
            delay = self.dice.uniform(0.001, 0.05) if self.loss else 0.001
            self.at(delay, call, *copy.deepcopy(arguments))

    def _orders(self, name, body):
        worker = self.workers[name]
        if worker is not None:
            orders = decode(Orders, body)
            self.offered.update((start.attempt, start.kind) for start in orders.start)
            worker.receive(orders, self.now)
            self._do_worker(name)

    def _heard(self, body):
        if self.master is not None:
            self.master.receive(decode(Beat, body), self.now)
            self._do_master()

    # -- the workers' side

    def _beat(self, name, life):
        worker = self.workers[name]
        if worker is None or self.lives[name] != life:
            return
        worker.on_deadline(self.now)
        self._do_worker(name)
        self.at(BEAT_S, self._beat, name, life)

    def _do_worker(self, name):
        worker, life = self.workers[name], self.lives[name]
        worker.check()
        for output in worker.take_outputs():
            if isinstance(output, Launch):
                start = output.mission.start
                self.launched.append((self.now, name, start.kind, start.index))
                worker.moved(start.attempt, (0, 1, 10), "", self.now)
                took = self.dice.uniform(0.1, 1.0) * self.slow.get(name, 1.0)
                steps = 10
                for step in range(1, steps):
                    self.at(took * step / steps, self._moved, name, life, start.attempt, step)
                self.at(took, self._ran, name, life, output.mission)
            elif isinstance(output, Kill):
                self.killed.add(output.attempt)
            elif isinstance(output, Fetch):
                self.at(self.dice.uniform(0.001, 0.1), self._fetched, name, life, output)
        self._deliver(self._heard, encode(worker.beat()))

    def _alive(self, name, life):
        return self.workers[name] if self.lives[name] == life else None

    def _moved(self, name, life, attempt, step):
        worker = self._alive(name, life)
        if worker is not None:
            worker.moved(attempt, (step, step, 10), "", self.now)

    def _fetched(self, name, life, fetch):
        worker = self._alive(name, life)
        if worker is None:
            return
        source = fetch.source
        if source.path in self.files and (name, source.worker) not in self.cut:
            runs = [[f"{source.path}", 0, 1, 1, source.index]]
            self.files.setdefault(fetch.path, self.files[source.path])
            worker.fetched(fetch.attempt, source, [[fetch.path, *runs[0][1:]]], self.now)
        else:
            worker.not_fetched(fetch.attempt, source, self.now)
        self._do_worker(name)

    def _ran(self, name, life, mission):
        worker = self._alive(name, life)
        if worker is None:
            return
        start = mission.start
        result = Result(
            start.attempt, start.job_id, start.kind, start.index, mission.out,
            counters={"mine": {start.kind: 1}}, seconds=0.5,
        )  # fmt: skip
        record = self.bad.get((start.kind, start.index), 0)
        if start.attempt in self.killed:
            result = self._failed(result, "lost")
        elif name in self.full:
            result = self._failed(result, "disk")
        elif record and record not in start.skip:
            result = self._failed(result, "crashed", record)
        elif start.kind == MAP and mission.job.reduces:
            self.files[mission.out] = start.index
            runs = [[[0, 1, 1]] for _ in range(mission.job.reduces)]
            result = _with(result, runs=runs)
        elif start.kind == MAP:
            self.temporaries[mission.out] = start.index
        else:
            missing = [run for run in mission.runs if run[0] not in self.files]
            if missing:
                result = self._failed(result, "source", source=missing[0][4])
            else:
                self.temporaries[mission.out] = [self.files[run[0]] for run in mission.runs]
        worker.ended(result, self.now)
        self._do_worker(name)

    @staticmethod
    def _failed(result, kind, record=0, source=-1):
        return _with(result, failure=Failure(kind, kind, record, source=source))

    # -- the judge

    def judge(self, id, maps, reduces):
        """What must be true when a job has finished; a sentence for each that is not."""
        wrong = []
        if self.state(id) != "finished":
            return [f"the job is {self.state(id)}, and not finished"]
        names = [f"part-{i:05d}" for i in range(reduces or maps)]
        if sorted(self.output) != names:
            wrong.append(f"the parts are {sorted(self.output)}")
        for name, what in self.output.items():
            if reduces and what != list(range(maps)):
                wrong.append(f"{name} holds the maps {what}")
        counters = (self.report or {}).get("counters", {}).get("mine", {})
        expected = {"map": maps, **({"reduce": reduces} if reduces else {})}
        if counters != {kind: n for kind, n in expected.items() if n}:
            wrong.append(f"the counters are {counters}")
        if len(self.renames) != len(names):
            wrong.append(f"{len(self.renames)} renames of {len(names)} parts: {self.renames}")
        return wrong


def _with(result, **fields):
    from dataclasses import replace

    return replace(result, **fields)


def two_copies_end_well(master=MasterCore):
    """The temporaries that are renamed when two attempts at one reduce end at the same time."""
    core = master(1)
    core.receive(Beat("w1", "life1", 1), 0.0)
    spec = JobSpec(Job("p", ["/in"], "/out", reduces=1), [], [])
    id = core.submit(spec, 0.0)
    core.persisted(core.sequence, 0.0)
    start = next(o for o in core.take_outputs() if isinstance(o, Send)).orders.start[0]
    second = f"{id}.r0.1.99"
    running = [Progress(second, id, "reduce", 0, "running", 0.5)]
    core.receive(Beat("w2", "life1", 1, jobs=[id], running=running), 0.1)
    renamed = []
    for worker, attempt in (("w1", start.attempt), ("w2", second)):
        results = [Result(attempt, id, "reduce", 0, f"/out/_temporary/{attempt}")]
        core.receive(Beat(worker, "life1", 1, jobs=[id], results=results), 0.2)
        core.persisted(core.sequence, 0.2)
        renamed += [o.temporary for o in core.take_outputs() if isinstance(o, Commit)]
    return renamed


def campaign(seed, *, maps=7, reduces=3, **kinds):
    """A job while everything breaks; what the judge says."""
    dice = random.Random(f"campaign {seed}")
    cores = Cores(seed, workers=3, loss=dice.choice([0.0, 0.1, 0.3]), **kinds)
    cores.sleep(0.3)
    id = cores.submit(maps, reduces)
    cores.run(lambda: f"job/{id}" in cores.durable)
    for _ in range(dice.randrange(1, 6)):
        cores.sleep(dice.uniform(0.1, 1.5))
        if cores.state(id) in ENDED:
            break
        name = dice.choice(list(cores.workers))
        what = dice.choice(["worker", "worker", "master", "cut", "slow"])
        if what == "worker" and cores.workers[name] is not None:
            cores.crash_worker(name)
            cores.at(dice.uniform(0.1, 6), cores.start_worker, name)
        elif what == "master" and cores.master is not None:
            cores.crash_master()
            cores.sleep(dice.uniform(0.1, 5))
            cores.start_master()
        elif what == "cut":
            other = dice.choice(list(cores.workers))
            cores.cut.add((name, other))
            cores.at(dice.uniform(1, 20), cores.cut.discard, (name, other))
        elif what == "slow":
            cores.slow[name] = 20.0
    if not cores.run(cores.ended(id)):
        return [f"the job hangs: {cores.state(id)}"]
    return cores.judge(id, maps, reduces)

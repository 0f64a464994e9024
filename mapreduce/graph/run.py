"""One computation: the scheduler's core on the network, in the client's process.

It lives with whoever wants the answer: if that process ends nobody waits for the values, and the
workers drop them; and there is no daemon whose death would take others' computations with it.

    a stream to each worker     what is done, failed, copied, missing; its end is the worker's end
    submit, release             batches: what one turn of the loop has decided is one message
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mapreduce.graph import states
from mapreduce.graph.errors import GraphError, NoWorkers, TaskFailed, TaskKilled
from mapreduce.graph.graphs import Graph
from mapreduce.graph.scheduler import Scheduler
from mapreduce.graph.wire import (
    SILENCE_S,
    TASK_BYTES_MAX,
    Functions,
    loads,
    packed_steps,
)
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import RpcError

if TYPE_CHECKING:
    from netstack.runtime.runtime import Runtime

# A worker is given as many tasks ahead as it does in this time, between these bounds.
AHEAD_S: Final = 0.05
SLOTS_MIN, SLOTS_MAX = 2, 128

# After a worker was lost: the first attempt to have it back.
AGAIN_S: Final = 0.1

# Without any worker for so long a computation is given up.
PATIENCE_S: Final = 15.0

SUBMIT_S: Final = 10.0
FETCH_S: Final = 5.0
FETCHES_MAX: Final = 16


@dataclass(slots=True)
class Report:
    """What a computation took.

    ran: how many tasks were finished, repetitions included.
    recomputed: tasks that were finished once, and had to run again, in that order.
    lost: workers that were lost, each time.
    seconds: by step, how long its function ran, the last time.
    states: of all tasks, at the end of it or now.
    """

    tasks: int = 0
    ran: int = 0
    recomputed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    ran_on: dict[str, str] = field(default_factory=dict)


class _Worker:
    """A worker as this computation knows it."""

    def __init__(self, name: str, client: RpcClient) -> None:
        self.name = name
        self.client = client
        self.functions: set[str] = set()
        self.mean_s = 0.0
        self.slots = SLOTS_MIN


class GraphRun:
    """One computation, from its graph to the values.

    Args:
        runtime: the world.
        clients: workers by name.
        graph: only what is needed, fused or not.
        wanted: names whose values are to be had.
        on_change: called now and then with how many tasks are in each state.
        validate: check the scheduler after each event; for tests.
    """

    def __init__(
        self,
        runtime: Runtime,
        clients: dict[str, RpcClient],
        graph: Graph,
        wanted: list[str],
        *,
        on_change: Callable[[dict[str, int]], None] | None = None,
        validate: bool = False,
    ) -> None:
        self.scheduler = Scheduler(validate=validate)
        self.report = Report(tasks=len(graph.tasks))
        self._runtime = runtime
        self._session = runtime.entropy(8).hex()
        self._workers = {name: _Worker(name, client) for name, client in clients.items()}
        self.graph = graph
        self._wanted = list(dict.fromkeys(wanted))
        self._wanted_names = set(wanted)
        self._on_change = on_change
        self._functions = Functions()
        self._payloads = {name: self._payload(task) for name, task in graph.tasks.items()}
        self._inline: dict[str, bytes] = {}
        self._values: dict[str, Any] = {}
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._runs: dict[str, list[Any]] = {}
        self._releases: dict[str, list[str]] = {}
        self._sending = False
        self._causes: dict[str, bytes] = {}  # the exceptions that functions raised
        self._fetches = asyncio.Semaphore(FETCHES_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<GraphRun {self._session} {self.scheduler!r}>"

    def _payload(self, task: Any) -> list[Any]:
        steps = packed_steps(task, self._functions)
        size = sum(len(data) + len(self._functions.bytes[digest]) for _, digest, data in steps)
        if size > TASK_BYTES_MAX:
            raise GraphError(
                f"the function and arguments of {task.name} have {size:,} bytes; more than "
                f"{TASK_BYTES_MAX:,} do not fit one message: have a task read or make them"
            )
        return steps

    async def values(self) -> dict[str, Any]:
        """Compute; returns the wanted values by name. Raises GraphError."""
        self.scheduler.add(
            {name: task.inputs for name, task in self.graph.tasks.items()}, self._wanted
        )
        for worker in self._workers.values():
            self._spawn(self._serve(worker), f"graph on {worker.name}")
        self._spawn(self._watch(), "graph: patience")
        self._obey()
        try:
            await self._answer
            return self._values
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._note_states()

    def _spawn(self, coroutine: Any, name: str) -> None:
        task = self._runtime.spawn(coroutine, name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)  # a bug of ours: whoever waits must not wait for ever

    def _note_states(self) -> None:
        self.report.recomputed = list(self.scheduler.recomputed)
        for name, task in self.scheduler.tasks.items():
            done = task.runs and task.state in (states.RELEASED, states.MEMORY)
            self.report.states[name] = "done" if done else task.state

    # -- workers

    async def _serve(self, worker: _Worker) -> None:
        """Its session, and when that ends the next: it comes back with nothing."""
        while True:
            try:
                stream = worker.client.stream("graph.work", self._session, timeout_s=SILENCE_S)
                async with contextlib.aclosing(stream) as items:
                    async for reports in items:
                        for report in reports:
                            self._heard(worker, report)
                        self._obey()
            except RpcError as error:
                if worker.name in self.scheduler.workers:
                    self.report.lost.append(worker.name)
                    self._runtime.events.emit(
                        "graph.worker_lost", worker=worker.name, cause=str(error)
                    )
            self.scheduler.left(worker.name)
            self._obey()
            await asyncio.sleep(AGAIN_S)

    def _heard(self, worker: _Worker, report: list[Any]) -> None:
        kind, *rest = report
        scheduler, name = self.scheduler, worker.name
        if kind == "done":
            self._done(worker, *rest)
        elif kind == "copied":
            scheduler.copied(rest[0], name)
        elif kind == "failed":
            task, told, packed = rest
            self._causes[task] = packed
            scheduler.failed(task, name, told)
        elif kind == "killed":
            task, how = rest
            told = f"the process that ran {task} on {name} was {how}"
            scheduler.failed(task, name, told, killed=True)
        elif kind == "missing":
            task, needed, holders = rest
            scheduler.missing(task, name, needed, holders)
        elif kind == "open":
            worker.functions.clear()
            worker.slots = SLOTS_MIN
            scheduler.joined(name, worker.slots)

    def _done(
        self, worker: _Worker, task: str, size: int, took: list[float], data: bytes | None
    ) -> None:
        self.report.ran += 1
        self.report.ran_on[task] = worker.name
        for step, seconds in zip(self.graph.tasks[task].steps, took, strict=True):
            self.report.seconds[step.name] = seconds
        if data is not None:
            self._inline[task] = data
        self.scheduler.finished(task, worker.name, size)
        total = sum(took)
        worker.mean_s += (total - worker.mean_s) / 8
        slots = int(AHEAD_S / max(worker.mean_s, 1e-6))
        slots = max(SLOTS_MIN, min(SLOTS_MAX, slots))
        # Not for every tremble: each change looks at what waits.
        if not worker.slots / 2 < slots < worker.slots * 2:
            worker.slots = slots
            self.scheduler.resize(worker.name, slots)

    async def _watch(self) -> None:
        """Tell how it goes; give up when there is nobody to compute."""
        alone_since = self._runtime.clock.now()
        while True:
            now = self._runtime.clock.now()
            if self.scheduler.workers:
                alone_since = now
            elif now - alone_since > PATIENCE_S:
                names = ", ".join(sorted(self._workers)) or "none"
                self._fail(NoWorkers(f"no worker was reached for {PATIENCE_S:g} s; tried: {names}"))
            if self._on_change is not None:
                self._on_change(self.scheduler.counts())
            await asyncio.sleep(0.1)

    # -- what the scheduler says

    def _obey(self) -> None:
        for instruction in self.scheduler.take():
            if isinstance(instruction, states.Run):
                holders = [[name, list(who)] for name, who in instruction.holders]
                keep = instruction.task in self._wanted_names
                steps = self._payloads[instruction.task]
                self._runs.setdefault(instruction.worker, []).append(
                    [instruction.task, steps, holders, keep]
                )
            elif isinstance(instruction, states.Release):
                self._releases.setdefault(instruction.worker, []).append(instruction.task)
            elif isinstance(instruction, states.Ready):
                self._ready(instruction)
            else:
                self._failed(instruction)
        if (self._runs or self._releases) and not self._sending:
            self._sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        runs, self._runs = self._runs, {}
        releases, self._releases = self._releases, {}
        for name, tasks in runs.items():
            if name in self.scheduler.workers:
                self._spawn(self._submit(self._workers[name], tasks), f"submit to {name}")
        for name, names in releases.items():
            if name in self.scheduler.workers:
                self._spawn(self._release(self._workers[name], names), f"release at {name}")

    async def _submit(self, worker: _Worker, tasks: list[Any]) -> None:
        for part in self._batches(worker, tasks):
            await self._tell(worker, "graph.submit", [self._session, *part])

    def _batches(self, worker: _Worker, tasks: list[Any]) -> list[tuple[dict[str, bytes], Any]]:
        """Tasks with the functions that the worker has not, in messages of a bounded size."""
        parts: list[tuple[dict[str, bytes], list[Any]]] = [({}, [])]
        size = 0
        for task in tasks:
            new = {digest for _, digest, _ in task[1]} - worker.functions
            worker.functions |= new
            functions = {digest: self._functions.bytes[digest] for digest in new}
            cost = sum(map(len, functions.values())) + sum(len(data) for _, _, data in task[1])
            if size + cost > TASK_BYTES_MAX and parts[-1][1]:
                parts.append(({}, []))
                size = 0
            size += cost
            parts[-1][0].update(functions)
            parts[-1][1].append(task)
        return parts

    async def _release(self, worker: _Worker, names: list[str]) -> None:
        await self._tell(worker, "graph.release", [self._session, names])

    async def _tell(self, worker: _Worker, method: str, body: Any) -> None:
        try:
            await worker.client.call(method, body, timeout_s=SUBMIT_S)
        except RpcError:
            # What it has of this is not known: begin anew with it.
            if worker.name in self.scheduler.workers:
                await worker.client.drop_connection()

    # -- answers

    def _ready(self, ready: states.Ready) -> None:
        data = self._inline.pop(ready.task, None)
        if data is not None:
            self._has(ready.task, data)
        elif ready.task not in self._values:
            self._spawn(self._fetch(ready), f"fetch {ready.task}")

    async def _fetch(self, ready: states.Ready) -> None:
        async with self._fetches:
            for holder in ready.holders:
                with contextlib.suppress(RpcError):
                    data = await self._from(self._workers[holder].client, ready.task)
                    if data is not None:
                        self._has(ready.task, data)
                        return
        self.scheduler.unreachable(ready.task, ready.holders)
        self._obey()

    async def _from(self, client: RpcClient, name: str) -> bytes | None:
        parts: list[bytes] = []
        have = 0
        while True:
            body = [self._session, name, have]
            answer = await client.call("graph.fetch", body, timeout_s=FETCH_S, idempotent=True)
            if answer is None:
                return None
            size, data = answer
            parts.append(data)
            have += len(data)
            if have >= size:
                return b"".join(parts)

    def _has(self, name: str, data: bytes) -> None:
        try:
            self._values[name] = loads(data)
        except Exception as error:
            self._fail(TaskFailed(f"the value of {name} cannot be decoded here: {error}"))
            return
        self.scheduler.unwant(name)
        if len(self._values) == len(self._wanted) and not self._answer.done():
            self._answer.set_result(None)
        self._obey_later()

    def _obey_later(self) -> None:
        asyncio.get_running_loop().call_soon(self._obey)

    def _failed(self, failed: states.Failed) -> None:
        where = "" if failed.because == failed.task else f" (needed for {failed.task})"
        if failed.killed:
            error: GraphError = TaskKilled(f"{failed.because}{where}: {failed.error}")
        else:
            error = TaskFailed(f"{failed.because}{where} failed:\n{failed.error}")
        if packed := self._causes.get(failed.because):
            with contextlib.suppress(Exception):
                error.__cause__ = loads(packed)
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)

"""A worker of graphs: it gathers inputs, has its child compute, keeps values, and tells.

Each stream `graph.work` is a session: the scheduler of one computation, which lives in the client.
When the stream ends, whoever wanted the values is gone, and so are they. A task's way:

    submit ──► inputs from memory, disk, or another worker ──► child ──► value kept, reported
                     └─ nobody has one: "missing"               └─ died: "killed", others again

A fetched input is kept and reported too: it is a copy that others may use, or that survives.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from mapreduce.graph import children
from mapreduce.graph.child import DONE
from mapreduce.graph.children import Child, ChildProcess
from mapreduce.graph.settings import GraphSettings
from mapreduce.graph.values import Values
from mapreduce.graph.wire import ALIVE_S, FETCH_BYTES, INLINE_BYTES, SERVICE
from mapreduce.store.disk_work import DiskWork
from netstack.rpc.admin import offer_admin
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import BadRequest, Failed, RpcError
from netstack.rpc.node import RpcNode
from netstack.rpc.service import Call
from netstack.runtime.config import ClusterConfig
from netstack.runtime.runtime import Runtime
from netstack.transport.config import TransportConfig
from security.identity import Identity

# One piece of a value from another worker.
FETCH_S: Final = 3.0

# Values asked for in one call.
BATCH_MAX: Final = 512

# Sessions at a time; each may have thousands of tasks.
SESSIONS_MAX: Final = 64

MakeChild = Callable[[Callable[[list[Any]], None], Callable[[str], None]], Child]


@dataclass(slots=True)
class Session:
    """One computation, as its worker sees it."""

    name: str
    reports: list[list[Any]] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    fetching: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    over: bool = False

    def tell(self, report: list[Any]) -> None:
        """To whoever schedules."""
        self.reports.append(report)
        self.wake.set()


@dataclass(slots=True)
class Job:
    """A task that was submitted."""

    session: Session
    name: str
    steps: list[Any]
    inputs: list[Any]
    keep: bool


class GraphService:
    """One worker.

    make_child: how tasks are run; the simulation runs them in this process.
    """

    def __init__(self, make_child: MakeChild = ChildProcess) -> None:
        self.node: RpcNode
        self.values: Values
        self.counts: Counter[str] = Counter()
        self._make_child = make_child
        self._sessions: dict[str, Session] = {}
        self._functions: dict[str, bytes] = {}
        self._jobs: dict[int, Job] = {}  # given to the child; the first is running
        self._inputs: dict[int, dict[str, bytes]] = {}
        self._token = 0
        self._child: Child | None = None
        self._child_delay_s = children.AGAIN_S_MIN
        self._peers: dict[str, RpcClient] = {}
        self._last_words = ""

    def __repr__(self) -> str:
        return f"<GraphService sessions={len(self._sessions)} jobs={len(self._jobs)}>"

    async def start(self, runtime: Runtime, identity: Identity, config: ClusterConfig) -> None:
        """Bind, and have a child ready."""
        self._runtime = runtime
        settings = GraphSettings.of(config)
        transport = TransportConfig(suite=config.suite)
        self.node = RpcNode(runtime, identity, service=SERVICE, config=transport)
        self._work = DiskWork(runtime, "spill")
        self.values = Values(runtime.disk, self._work, settings.memory_bytes)
        await self.values.clear_disk()
        service = self.node.service
        service.add("graph.work", self._session, allow={"client"})
        service.add("graph.submit", self._submit, allow={"client"})
        service.add("graph.release", self._release, allow={"client"})
        service.add("graph.fetch", self._fetch)
        service.add("graph.values", self._values)
        offer_admin(self.node, self)
        self._siblings = {node.name: node.address for node in config.of_service(SERVICE)}
        self._start_child()
        await self.node.start(config.node(runtime.node).address)

    # -- sessions

    async def _session(self, body: Any, call: Call) -> AsyncIterator[list[Any]]:
        if type(body) is not str:
            raise BadRequest("graph.work: expected the name of a session")
        if len(self._sessions) >= SESSIONS_MAX:
            raise Failed("busy", f"{SESSIONS_MAX} computations are under way here")
        if (old := self._sessions.get(body)) is not None:
            self._end(old)
        session = self._sessions[body] = Session(body)
        try:
            yield [["open"]]
            while True:
                try:
                    async with asyncio.timeout(ALIVE_S):
                        await session.wake.wait()
                except TimeoutError:
                    pass  # an empty list says that this worker is alive
                session.wake.clear()
                reports, session.reports = session.reports, []
                for part in _parts(reports):
                    yield part
        finally:
            self._end(session)

    def _end(self, session: Session) -> None:
        if session.over:
            return
        session.over = True
        if self._sessions.get(session.name) is session:
            del self._sessions[session.name]
        self.values.drop_session(session.name)
        unused = session.functions.difference(*(s.functions for s in self._sessions.values()))
        for digest in unused:
            self._functions.pop(digest, None)
        first = next(iter(self._jobs.values()), None)
        if first is not None and first.session is session and self._child is not None:
            # It computes for nobody, perhaps for long.
            self._child.close()
            self._child_ended("its session ended", blame=False)
        elif self._child is not None:
            self._child.forget(session.name, sorted(unused))

    def _of(self, name: Any) -> Session:
        session = self._sessions.get(name)
        if session is None:
            raise Failed("no-session", f"there is no session {name!r:.60} here")
        return session

    # -- tasks

    def _submit(self, body: Any, call: Call) -> None:
        try:
            name, functions, tasks = body
            jobs = [Job(self._of(name), *fields) for fields in tasks]
        except (TypeError, ValueError):
            raise BadRequest("graph.submit: expected [session, functions, tasks]") from None
        self._of(name).functions.update(functions)
        for digest, data in functions.items():
            if digest not in self._functions:
                self._functions[digest] = data
                if self._child is not None:
                    self._child.function(digest, data)
        for job in jobs:
            self._begin(job)
        call.reply(None)

    def _begin(self, job: Job) -> None:
        """To the child at once if all inputs are in memory."""
        inputs = {}
        for name, _ in job.inputs:
            data = self.values.in_memory((job.session.name, name))
            if data is None:
                self._runtime.spawn(self._gather(job), f"inputs of {job.name}")
                return
            inputs[name] = data
        self._give(job, inputs)

    async def _gather(self, job: Job) -> None:
        inputs = {}
        await self._fetch_small(job)
        for name, holders in job.inputs:
            data = await self._input(job.session, name, holders)
            if job.session.over:
                return
            if data is None:
                job.session.tell(["missing", job.name, name, holders])
                return
            inputs[name] = data
        self._give(job, inputs)

    async def _fetch_small(self, job: Job) -> None:
        """Inputs from others, many a call: a sum of ten thousand values is not as many calls."""
        session, me = job.session, self._runtime.node
        wanted: dict[str, list[str]] = {}
        for name, holders in job.inputs:
            here = (session.name, name) in self.values or me in holders
            if not here and name not in session.fetching and holders:
                wanted.setdefault(holders[0], []).append(name)
        for holder, names in wanted.items():
            peer = self._peer(holder)
            while len(names) > 1 and peer is not None and not session.over:
                part, names = names[:BATCH_MAX], names[BATCH_MAX:]
                try:
                    found = await peer.call(
                        "graph.values", [session.name, part], timeout_s=FETCH_S, idempotent=True
                    )
                except RpcError:
                    break  # one by one, from others too
                for name, data in found.items():
                    if not session.over and (session.name, name) not in self.values:
                        await self._copied(session, name, data)

    async def _copied(self, session: Session, name: str, data: bytes) -> None:
        self.counts["fetched"] += 1
        await self._store(session, name, data)
        session.tell(["copied", name])

    async def _input(self, session: Session, name: str, holders: list[str]) -> bytes | None:
        data = await self.values.get((session.name, name))
        if data is not None:
            return data
        while (fetching := session.fetching.get(name)) is not None:
            await asyncio.wait([fetching])
            if (data := await self.values.get((session.name, name))) is not None:
                return data
        future = session.fetching[name] = asyncio.get_running_loop().create_future()
        try:
            for holder in holders:
                if holder == self._runtime.node:
                    continue
                data = await self._from(holder, session.name, name)
                if data is not None and not session.over:
                    await self._copied(session, name, data)
                    return data
            return None
        finally:
            del session.fetching[name]
            future.set_result(True)

    async def _from(self, holder: str, session: str, name: str) -> bytes | None:
        """A value from another worker, in pieces; None if it has not, or does not answer."""
        peer = self._peer(holder)
        if peer is None:
            return None
        parts: list[bytes] = []
        have = 0
        try:
            while True:
                answer = await peer.call(
                    "graph.fetch", [session, name, have], timeout_s=FETCH_S, idempotent=True
                )
                if answer is None:
                    return None
                size, data = answer
                parts.append(data)
                have += len(data)
                if have >= size:
                    return b"".join(parts)
        except RpcError:
            return None

    def _peer(self, name: str) -> RpcClient | None:
        if name not in self._peers and name in self._siblings:
            self._peers[name] = self.node.client(self._siblings[name], SERVICE, name)
        return self._peers.get(name)

    def _give(self, job: Job, inputs: dict[str, bytes]) -> None:
        if job.session.over:
            return
        self._token += 1
        self._jobs[self._token] = job
        self._inputs[self._token] = inputs
        if self._child is not None:
            self._child.run(job.session.name, self._token, job.steps, inputs)

    # -- the child

    def _start_child(self) -> None:
        self._child = child = self._make_child(self._answered, self._child_ended)
        for digest, data in self._functions.items():
            child.function(digest, data)
        for token, job in self._jobs.items():
            child.run(job.session.name, token, job.steps, self._inputs[token])

    def _child_ended(self, how: str, *, blame: bool = True) -> None:
        """The first of its tasks killed it; the others go to the next child."""
        self._child = None
        self._runtime.events.emit("graph.child_ended", cause=how)
        token = next(iter(self._jobs), None)
        if token is not None:
            job = self._jobs.pop(token)
            del self._inputs[token]
            if blame and not job.session.over:
                self.counts["killed"] += 1
                job.session.tell(["killed", job.name, how])
        for stale in [number for number, job in self._jobs.items() if job.session.over]:
            del self._jobs[stale], self._inputs[stale]
        delay_s = children.AGAIN_S_MIN
        if token is None:
            # Nobody's task was the cause, so the next may end the same way: not in haste.
            delay_s = self._child_delay_s
            self._child_delay_s = min(self._child_delay_s * 2, children.AGAIN_S_MAX)
        self._runtime.call_later_true(delay_s, self._restart_child)

    def _restart_child(self) -> None:
        if self._child is None and not self.node.service.draining:
            self._start_child()

    def _answered(self, answer: list[Any]) -> None:
        kind, token, *rest = answer
        job = self._jobs.pop(token, None)
        if job is None:
            return
        del self._inputs[token]
        self._child_delay_s = children.AGAIN_S_MIN
        session = job.session
        if session.over:
            return
        self.counts["tasks"] += 1
        if kind == DONE:
            data, took = rest
            self._kept(session, job.name, data)
            inline = data if job.keep and len(data) <= INLINE_BYTES else None
            session.tell(["done", job.name, len(data), took, inline])
        else:
            session.tell(["failed", job.name, *rest])

    def _kept(self, session: Session, name: str, data: bytes) -> None:
        if self.values.put((session.name, name), data):
            self._runtime.spawn(self.values.spill(), "spill")

    async def _store(self, session: Session, name: str, data: bytes) -> None:
        if self.values.put((session.name, name), data):
            await self.values.spill()

    # -- values

    def _release(self, body: Any, call: Call) -> None:
        name, names = body
        session = self._of(name)
        for value in names:
            self.values.drop((session.name, value))
        call.reply(None)

    async def _fetch(self, body: Any, call: Call) -> list[Any] | None:
        session, name, offset = body
        data = await self.values.get((session, name))
        if data is None:
            return None
        return [len(data), data[offset : offset + FETCH_BYTES]]

    async def _values(self, body: Any, call: Call) -> dict[str, bytes]:
        """Those of many values that are here, and fit one message together."""
        session, names = body
        found: dict[str, bytes] = {}
        room = FETCH_BYTES
        for name in names:
            data = await self.values.get((session, name))
            if data is not None and len(data) <= room:
                found[name] = data
                room -= len(data)
        return found

    # -- the daemon's

    def status(self) -> dict[str, Any]:
        """What `ring status` shows."""
        return {
            "tasks": self.counts["tasks"],
            "queued": len(self._jobs),
            "sessions": len(self._sessions),
            "held": len(self.values),
            "held_bytes": self.values.memory_bytes,
            "spilled": self.values.spilled,
            "child": self._child.pid if self._child is not None else 0,
            "killed": self.counts["killed"],
            "trouble": self.values.trouble or ("" if self._child else "its child is being started"),
        }

    def metrics(self) -> dict[str, float]:
        """Counters and gauges."""
        return {
            "ring_graph_tasks_total": float(self.counts["tasks"]),
            "ring_graph_fetched_total": float(self.counts["fetched"]),
            "ring_graph_killed_total": float(self.counts["killed"]),
            "ring_graph_spilled_total": float(self.values.spilled_ever),
            "ring_graph_memory_bytes": float(self.values.memory_bytes),
        }

    def trust(self, identity: Identity) -> None:
        """The certificates have changed."""
        self.node.trust(identity)

    async def drain(self) -> None:
        """Nothing: what is under way here is computed elsewhere."""

    async def stop(self) -> None:
        """End the child, release the socket."""
        self.node.service.draining = True
        if self._child is not None:
            self._child.close()
            self._child = None
        await self.node.close()
        self._work.close()


def _parts(reports: list[list[Any]]) -> list[list[list[Any]]]:
    """Reports in messages of a bounded size; one without any, if there are none."""
    parts: list[list[list[Any]]] = [[]]
    size = 0
    for report in reports:
        size += sum(len(item) for item in report if isinstance(item, (bytes, str))) + 64
        if size > FETCH_BYTES and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(report)
    return parts

"""The master's daemon: the core on a socket, its records in a state that outlives it.

mr.beat      notify   a worker's Beat; its Orders go back the same way
mr.submit    unary    {spec, token} -> id; the same token, the same job, across restarts too
mr.jobs      unary    -> all jobs it knows, how each goes
mr.job       unary    id -> one of them, with counters, skipped records, failures
mr.watch     stream   id -> the same, now and whenever it has changed, until the job is over
mr.cancel    unary    id
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any, Final

from mapreduce.checkpoint import JournalState, RaftState, State, TooLarge, pack
from mapreduce.errors import BadJob
from mapreduce.job_state import ACTIVE, ENDED
from mapreduce.master_core import DEATH_S, MasterCore
from mapreduce.messages import MASTER_SERVICE, WORKER_SERVICE, Beat, JobSpec
from mapreduce.output import Output
from mapreduce.outputs import Abandon, Commit, Ended, Event, Finish, Persist, Send
from mapreduce.ring_urls import leads_to
from netstack.rpc import frames
from netstack.rpc.admin import offer_admin
from netstack.rpc.connection import RpcConnection
from netstack.rpc.errors import BadRequest, Failed
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import decode, encode, message
from netstack.rpc.service import Call
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.runtime import Runtime
from netstack.transport.config import TransportConfig
from raftd.client import RaftClient
from security.identity import Identity

# How often a watched job is looked at.
WATCH_S: Final = 0.1

CALLERS: Final = {"client", "supervisor"}


@message
class Submission:
    """A job to run; `token` is the caller's, so that asking twice runs it once."""

    spec: JobSpec
    token: str


class MasterService:
    """One master."""

    def __init__(self) -> None:
        self.core: MasterCore
        self.node: RpcNode
        self._runtime: Runtime
        self._state: State
        self._tokens: dict[str, str] = {}
        self._queue: list[Persist] = []
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._urls = ExitStack()

    def __repr__(self) -> str:
        return f"<MasterService {self.core!r}>"

    async def start(self, runtime: Runtime, identity: Identity, config: ClusterConfig) -> None:
        """Claim the state, go on where the last life ended, and be there for workers."""
        self._runtime = runtime
        transport = TransportConfig(suite=config.suite)
        self.node = RpcNode(runtime, identity, service=MASTER_SERVICE, config=transport)
        self._offer()
        await self.node.start(config.node(runtime.node).address)
        stores = {n.name: n.address for n in config.of_service("raft")}
        self._state = RaftState(RaftClient(self.node, stores)) if stores else JournalState(runtime)
        if stores:
            self._urls.enter_context(leads_to(config.home / "cluster.toml"))
        epoch, records = await self._state.claim()
        self._outputs = runtime.executor("output", brief=False)
        self.core = MasterCore(epoch, death_s=_death_s(config))
        self._tokens = {
            value: key.split("/")[1] for key, value in records.items() if key.startswith("token/")
        }
        jobs = {key: value for key, value in records.items() if key.startswith("job/")}
        self.core.restore(jobs, self._now())
        for node in config.of_service(WORKER_SERVICE):
            self.node.link(node.name, node.address, WORKER_SERVICE)
        runtime.spawn(self._keep_durable(), "checkpoint")
        self._go()

    def _offer(self) -> None:
        service = self.node.service
        service.add("mr.beat", self._beat, notify=True, allow={WORKER_SERVICE})
        service.add("mr.submit", self._submit, request=Submission, allow=CALLERS)
        service.add("mr.jobs", self._jobs, allow=CALLERS)
        service.add("mr.job", self._job, allow=CALLERS)
        service.add("mr.watch", self._watch, allow=CALLERS)
        service.add("mr.cancel", self._cancel, allow=CALLERS)
        offer_admin(self.node, self)

    def _now(self) -> float:
        return self._runtime.clock.now()

    # -- what others ask

    def _beat(self, body: Any, connection: RpcConnection) -> None:
        beat = decode(Beat, body)
        if hasattr(self, "core") and beat.worker == connection.peer_name:
            self.core.receive(beat, self._now())
            self._go()

    async def _submit(self, body: Submission, call: Call) -> str:
        core = self._ready()
        if body.token in self._tokens:
            return self._tokens[body.token]
        try:
            pack(encode(body.spec))
            id = core.submit(body.spec, self._now())
        except (BadJob, TooLarge) as error:
            raise Failed("bad-job", str(error)) from None
        self._tokens[body.token] = id
        core.remember(f"token/{id}", body.token)
        sequence = core.sequence
        self._go()
        while not core.durable(sequence):
            await self._next_change()
        return id

    async def _jobs(self, body: Any, call: Call) -> list[dict[str, Any]]:
        now = self._now()
        return [job.progress(now) for job in self._ready().jobs.values()]

    async def _job(self, id: Any, call: Call) -> dict[str, Any]:
        return self._described(id)

    def _described(self, id: Any) -> dict[str, Any]:
        if not isinstance(id, str):
            raise BadRequest("the id of a job is text")
        found = self._ready().outcome(id, self._now())
        if found is None:
            raise Failed("no-job", f"there is no job {id!r}; see: ring mr jobs")
        return found

    async def _watch(self, id: Any, call: Call) -> AsyncIterator[dict[str, Any]]:
        while True:
            found = self._described(id)
            yield found
            job = self._ready().jobs[id]
            if job.state in ENDED and self._told(id):
                return
            await self._next_change(WATCH_S)

    def _told(self, id: str) -> bool:
        """Whether the end of a job is durable."""
        return self.core.durable(self.core.end_sequence.get(id, 0))

    async def _cancel(self, id: Any, call: Call) -> bool:
        self._described(id)
        done = self._ready().cancel(id, self._now())
        self._go()
        return done

    def _ready(self) -> MasterCore:
        if not hasattr(self, "core"):
            raise Failed("not-ready", "the master is still reading its state")
        return self.core

    # -- what the core wants

    def _go(self) -> None:
        """Do what the core wants, and set the timer."""
        for output in self.core.take_outputs():
            if isinstance(output, Send):
                link = self.node._links.get(output.worker)
                if link is not None:
                    link.notify(frames.notify("mr.orders", encode(output.orders)))
            elif isinstance(output, Persist):
                self._queue.append(output)
                self._wake.set()
            elif isinstance(output, Commit):
                self._commit(output)
            elif isinstance(output, Finish):
                self._finish(output)
            elif isinstance(output, Abandon):
                self._in_background(lambda o=output: Output(o.output).abandon())  # type: ignore[misc]
            elif isinstance(output, Event):
                self._runtime.events.emit(output.kind, **output.fields)
            elif isinstance(output, Ended):
                self._runtime.events.emit("mr.ended", job=output.job_id)
                self._changed.set()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.core.next_deadline()
        if deadline is not None:
            self._timer = self._runtime.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self.core.on_deadline(self._now())
        self._go()

    async def _keep_durable(self) -> None:
        """Write what waits, all of it at once; then let the core know."""
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            batch, self._queue = self._queue, []
            records: dict[str, Any] = {}
            for persist in batch:
                records.update(persist.records)
            self._writing = True
            await self._state.write(records)
            self._writing = False
            self.core.persisted(batch[-1].sequence, self._now())
            self._changed.set()
            self._go()

    def _commit(self, commit: Commit) -> None:
        def committed(ok: Any, error: BaseException | None) -> None:
            if error is not None:
                self._runtime.events.emit("mr.commit_failed", error=str(error))
            self.core.committed(commit.job_id, commit.kind, commit.index, bool(ok), self._now())
            self._changed.set()
            self._go()

        output = Output(commit.output)
        self._outputs.submit(lambda: output.commit(commit.temporary, commit.name), committed)

    def _finish(self, finish: Finish) -> None:
        def written(_: Any, error: BaseException | None) -> None:
            text = f"the output cannot be finished: {error}" if error else ""
            self.core.written(finish.job_id, text, self._now())
            self._go()

        output = Output(finish.output)
        self._outputs.submit(lambda: output.finish(finish.report), written)

    def _in_background(self, work: Callable[[], None]) -> None:
        self._outputs.submit(work, lambda _, error: None)

    async def _next_change(self, at_most_s: float | None = None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()
        except TimeoutError:
            return

    # -- for the operator

    def status(self) -> dict[str, Any]:
        """See netstack.runtime.daemon.Service."""
        if not hasattr(self, "core"):
            return {"trouble": "reading its state"}
        core = self.core
        alive = [w for w in core.workers.values() if w.alive]
        running = sum(job.state not in ENDED for job in core.jobs.values())
        trouble = ""
        if running and not alive:
            trouble = "no workers"
        elif self._writing and len(self._queue) > 1000:
            trouble = "its state cannot be written"
        return {
            "role": "master",
            "epoch": core.epoch,
            "workers": len(alive),
            "jobs": running,
            "state_in": "raft" if isinstance(self._state, RaftState) else "journal",
            "trouble": trouble,
        }

    def metrics(self) -> dict[str, float]:
        """See netstack.runtime.daemon.Service."""
        jobs = list(self.core.jobs.values())
        return {
            "ring_mr_jobs_running": float(sum(job.state == ACTIVE for job in jobs)),
            "ring_mr_workers": float(sum(w.alive for w in self.core.workers.values())),
            "ring_mr_map_attempts_total": float(sum(job.runs["map"] for job in jobs)),
            "ring_mr_reduce_attempts_total": float(sum(job.runs["reduce"] for job in jobs)),
            "ring_mr_backups_total": float(sum(job.counts["backups"] for job in jobs)),
        }

    def trust(self, identity: Identity) -> None:
        """See netstack.runtime.daemon.Service."""
        self.node.trust(identity)

    async def drain(self) -> None:
        """Nothing to finish: what runs goes on under the next life."""

    async def stop(self) -> None:
        """Release socket and files."""
        if self._timer is not None:
            self._timer.cancel()
        await self.node.close()
        self._state.close()
        self._outputs.close()
        self._urls.close()


def _death_s(config: ClusterConfig) -> float:
    """`death_s` of the table [mrmaster]: silence after which a worker is taken for dead."""
    settings = config.settings.get(MASTER_SERVICE, {})
    for key in settings:
        if key != "death_s":
            raise ConfigError(f"there is no {MASTER_SERVICE}.{key}; there is: death_s")
    value = settings.get("death_s", DEATH_S)
    if type(value) not in (int, float) or not 0.1 <= value <= 3600:
        raise ConfigError(f"{MASTER_SERVICE}.death_s must be seconds from 0.1, not {value!r}")
    return float(value)

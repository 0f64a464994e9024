"""One rank of an elastic run: elastic.py's core on sockets, a disk, and a model to train.

    record, the living ──► core ──► Heal      state of a member, by stream, checksum and all
    silence of a peer  ──►      ──► Compute   gradients in a thread; their sum by the epoch's group
    votes              ──►      ──► Vote, Propose, Apply, Drop, Fence, Finish

With a staleness the core is asynchronous.py's, the workers push to the server (pushing.py), and
what follows of sums and votes is not used.

Each epoch has a group of its own (epoch_group.py), formed as soon as the record says so, healed or
not. Its sums are made in the order of ranks, so they have the same bits whoever was late: by a
parameter server, if one is a member, or else by shards of all. If the server dies, the next epoch
goes on without it; if it comes back, it heals like everybody, and serves again.

Every call names its epoch, and who is called answers for a life: what comes from an epoch that is
over, or to a life that has ended, is refused, not used. A member is lost when its process has
ended, which the kernel tells the group of those of its host, or when it has not answered for
`silence_s`; whoever notices says so, by name, and proposes to go on without it.

All use of the model is in one executor, one job behind the other: a snapshot is taken between
steps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, TypeVar

from ddp.elements import Array
from ddp.epoch_group import EpochGroup
from ddp.errors import DdpError, GroupClosed, RankLost
from ddp.membership import SERVER, Member, Record
from ddp.records import RaftRecords
from ddp.schedules.catalogue import IN_RANK_ORDER
from ddp.switchboard import SERVICE, Switchboard
from ddp.training import elastic as e
from ddp.training.asynchronous import Asynchronous
from ddp.training.checkpoint import Checkpoints, Snapshot
from ddp.training.elastic import Elastic
from ddp.training.errors import BadCheckpoint, PeerLost
from ddp.training.job import Job, Learner
from ddp.training.pushing import Pushing, Serving, StepDone
from ddp.training.stale import parse_bound
from ddp.work import outcome
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import Failed, RpcError
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import message
from netstack.rpc.service import Call
from netstack.runtime.runtime import Runtime

T = TypeVar("T")

# How often a member asks each other whether it lives.
BEAT_S: Final = 0.03
# No answer for so long, and it counts as dead. On a machine that is not overloaded an answer takes
# a millisecond; an error costs the one that was wrongly put out a heal, and no step.
SILENCE_S: Final = 0.15
# Of a state, in one message: well below the largest that rpc carries.
CHUNK_BYTES: Final = 4 << 20
# A sum waits for its slowest member; the dead are known by their silence, long before.
SUM_S: Final = 120.0
RETRY_S: Final = 0.02
# Lives whose end is remembered, so that it is told once.
LIVES_MAX: Final = 1000
# The sum where a server is a member: the last rank, which adds what the others send it.
SERVED: Final = "dedicated-server"
# Steps from one checkpoint to the next.
CHECKPOINT_EVERY: Final = 20

Emit = Callable[..., None]


@message
class Ballot:
    """`life` has the sum of this step."""

    epoch: int
    step: int
    life: str


@message
class Wanted:
    """The state before `step`, as of `epoch`."""

    epoch: int
    step: int


class Worker:
    """See above.

    Args:
        node: started; its address is that of `me`'s card.
        run: name of the group; ranks of one name train together.
        emit: told of everything that a person may want to see, as `emit(kind, **fields)`.
        staleness: steps that one may be ahead of the slowest, or `inf`; empty: each is of all.
        slow_s: added to each gradient that we compute: we are a straggler.
    """

    def __init__(
        self,
        runtime: Runtime,
        node: RpcNode,
        store: RaftRecords,
        run: str,
        job: Job,
        me: Member,
        emit: Emit,
        *,
        founders: int,
        silence_s: float = SILENCE_S,
        staleness: str = "",
        slow_s: float = 0.0,
    ) -> None:
        self.runtime, self.node, self.store, self.job, self.emit = runtime, node, store, job, emit
        self.silence_s, self.slow_s = silence_s, slow_s
        self.switchboard = Switchboard(node)
        self.epochs = EpochGroup(self.switchboard, run, self._gone, self._over, timeout_s=SUM_S)
        now = runtime.clock.now()
        kind = Asynchronous if staleness else Elastic
        self.core = kind(me, steps=job.steps, founders=founders, now=now)
        self.learner = Learner(job)
        self.checkpoints = Checkpoints(runtime.disk)
        self.finished = asyncio.Event()
        self._executor = runtime.executor("model", brief=False)
        self.serving = Serving(
            node,
            self._on_model,
            self._on_step,
            bound=parse_bound(staleness or "0"),
            every=CHECKPOINT_EVERY,
        )
        self.pushing = Pushing(self._on_model, slow_s)
        self._clients: dict[tuple[str, int], RpcClient] = {}
        self._held: tuple[int, int, Array] | None = None
        self._changed = asyncio.Condition()
        self._epoch_tasks: list[asyncio.Task[Any]] = []
        self._beats: dict[str, tuple[str, asyncio.Task[Any]]] = {}  # life: name, asking task
        self._inside = False  # whether we were a member when we last looked
        self._reported: dict[str, None] = {}  # lives whose loss was told, the oldest first
        for name, handler, request in (
            ("train.vote", self._on_vote, Ballot),
            ("train.record", self._on_told, bytes),
            ("train.beat", self._on_beat, None),
            ("train.state", self._on_state_wanted, Wanted),
        ):
            node.service.add(name, handler, request=request)

    def __repr__(self) -> str:
        return f"<Worker {self.core!r}>"

    # -- life

    async def start(self) -> None:
        """Follow the record from now on; all else follows from that."""
        self.store.start(self._news, self._given_up)
        self.runtime.spawn(self._keep_time(), "deadlines")
        self._obey()

    async def stop(self) -> None:
        """End all that is under way, in good order."""
        self.epochs.end(GroupClosed(f"{self.core.me.name} was stopped"))
        await self.switchboard.settle()
        await self.store.leave()
        await self.runtime.cancel_tasks()
        self._executor.close()

    def _news(self, record: Record | None, alive: dict[str, Member]) -> None:
        self.core.on_alive(alive.values())
        self.core.on_record(record)
        self._obey()

    def _given_up(self) -> None:
        self.core.on_given_up()
        self._obey()

    async def _keep_time(self) -> None:
        while (deadline := self.core.next_deadline()) is not None:
            await asyncio.sleep(max(RETRY_S, deadline - self.runtime.clock.now()))
            self.core.on_deadline(self.runtime.clock.now())
            self._obey()

    def _obey(self) -> None:
        """Do what the core wants done, and let those look again who wait for it to be somewhere."""
        for output in self.core.take_outputs():
            match output:
                case e.Ask(member):
                    self.store.appear(member)
                case e.Propose(before, after):
                    self.runtime.spawn(self._propose(before, after), "propose")
                case e.Heal(epoch, step, source):
                    self._begin_epoch(self._heal(epoch, step, source))
                case e.Compute(record, rank):
                    self._begin_epoch(self._compute(record, rank))
                case e.Vote(epoch, step, to):
                    ballot = Ballot(epoch, step, self.core.me.life)
                    self._epoch_tasks.append(self.runtime.spawn(self._vote(ballot, to), "vote"))
                case e.Apply(epoch, step):
                    self._apply(epoch, step)
                case e.Drop(epoch, step):
                    self._end_epoch()
                case e.Serve(record):
                    self.serving.follow(self.core.me, self.learner, record)
                case e.Push(to):
                    us = self.core.me, self.learner
                    self._begin_epoch(self.pushing.work(*us, to, self._client(to)))
                case e.Fence(epoch):
                    self._end_epoch()
                    self.runtime.spawn(self.serving.end(), "end of service")
                    self.runtime.spawn(self._tell_of_fence(epoch), "fence")
                case e.Finish(step):
                    self._end_epoch()
                    self.runtime.spawn(self._finish(step), "finish")
        self.core.check()
        present = self.core.record
        if present is not None and present.epoch != self.epochs.epoch:
            self.epochs.begin(present, present.rank(self.core.me.life))
        self._watch_members()
        self.runtime.spawn(self._wake(), "wake")

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _begin_epoch(self, work: Any) -> None:
        self._end_epoch()
        self._epoch_tasks = [self.runtime.spawn(work, "step")]

    def _end_epoch(self) -> None:
        """Nothing that belongs to an earlier step goes on."""
        for task in self._epoch_tasks:
            task.cancel()
        self._epoch_tasks = []

    # -- the record

    async def _propose(self, before: Record | None, after: Record) -> None:
        with contextlib.suppress(Exception):  # won, lost or unknown: the record tells which
            await self.store.swap(before, after)
        found = await self.store.read()
        self.core.on_record(found)
        self.core.on_proposal_over()
        self._obey()
        for member in found.members if found is not None else ():
            if found is not None and member.life != self.core.me.life:
                self.runtime.spawn(self._tell(member, found.encode()), "tell")

    async def _tell(self, member: Member, record: bytes) -> None:
        """What the store has now; the watch would tell it too, if its node lives."""
        with contextlib.suppress(RpcError):
            await self._client(member).call("train.record", record, timeout_s=self.silence_s)

    async def _on_told(self, record: bytes, call: Call) -> None:
        """RPC: this is the record, as I have read it."""
        self.core.on_record(Record.decode(record))
        self._obey()

    # -- a step

    async def _compute(self, record: Record, rank: int) -> None:
        step, workers = record.step, len(record.workers)
        if not workers:
            return  # a server alone has nothing to add
        served = len(record.members) > workers
        if self.core.me.role == SERVER:
            part = self.learner.nothing()
        else:
            part = await self._on_model(lambda: self.learner.gradient(step, rank, workers))
            await asyncio.sleep(self.slow_s)
        try:
            group = await self.epochs.ready()
            await outcome(
                group.start("allreduce", part, algorithm=SERVED if served else IN_RANK_ORDER)
            )
        except DdpError as error:
            if isinstance(error, RankLost):  # whose loss the group tells, unless it has moved on
                await asyncio.sleep(4 * self.silence_s)
            self._over(record, error)
            return
        self._held = (record.epoch, step, part)
        self.core.on_sum(record.epoch, step)
        self._obey()

    async def _vote(self, ballot: Ballot, to: Member) -> None:
        while True:
            with contextlib.suppress(RpcError):
                timeout_s = 4 * self.silence_s
                await self._client(to).call("train.vote", ballot, timeout_s=timeout_s)
                return
            await asyncio.sleep(RETRY_S)

    async def _on_vote(self, ballot: Ballot, call: Call) -> None:
        """RPC: I have the sum."""
        self.core.on_vote(ballot.epoch, ballot.step, ballot.life)
        self._obey()

    def _apply(self, epoch: int, step: int) -> None:
        assert self._held is not None
        assert self._held[:2] == (epoch, step)
        total, self._held = self._held[2], None
        record = self.core.record
        assert record is not None
        members, last = len(record.members), record.members[-1]
        who = {"first": record.members[0].name, "server": last.name if last.role == SERVER else ""}

        def change() -> tuple[float, int, Snapshot | None]:
            loss = self.learner.apply(total)
            due = (step + 1) % CHECKPOINT_EVERY == 0
            kept = self.learner.snapshot(step + 1) if due else None
            if kept is not None:
                self.checkpoints.save(kept)
            return loss, self.learner.checksum(), kept

        changed = self._on_model(change)  # now: whoever wants our state after this gets it so

        async def report() -> None:
            loss, checksum, kept = await changed
            figures = {"loss": loss, "checksum": checksum, "members": members}
            self.emit("step", step=step, epoch=epoch, **figures, **who)
            if kept is not None:
                self.emit("checkpoint", step=step + 1)

        self.runtime.spawn(report(), "apply")

    def _on_step(self, done: StepDone) -> None:
        """We serve, and a step has become whole."""
        record = self.core.record
        assert record is not None
        figures = {"loss": done.loss, "checksum": done.checksum, "clocks": done.clocks}
        who = {"members": len(record.members), "server": self.core.me.name}
        self.emit("step", step=done.step, epoch=record.epoch, **figures, **who)
        if done.kept is not None:
            self.runtime.spawn(self._keep(done.kept), "checkpoint")

    async def _keep(self, kept: Snapshot) -> None:
        await self._on_model(partial(self.checkpoints.save, kept))
        self.emit("checkpoint", step=kept.step)
        assert isinstance(self.core, Asynchronous)
        self.core.on_kept(kept.step)
        self._obey()

    async def _tell_of_fence(self, epoch: int) -> None:
        await self._on_model(lambda: None)  # behind the steps that are still being applied
        self.emit("fenced", epoch=epoch, name=self.core.me.name)

    async def _finish(self, step: int) -> None:
        report = await self.serving.end()
        accuracy, checksum = await self._on_model(
            lambda: (self.learner.accuracy(), self.learner.checksum())
        )
        self.emit("finished", step=step, accuracy=accuracy, checksum=checksum, **report)
        self.finished.set()

    # -- healing

    async def _heal(self, epoch: int, step: int, source: Member | None) -> None:
        began = self.runtime.clock.now()
        while True:
            try:
                if source is None:
                    found = await self._on_model(self._from_checkpoint)
                else:
                    found = await self._fetch(source, epoch, step)
                    await self._on_model(partial(self.learner.restore, found))
                break
            except (RpcError, BadCheckpoint) as error:
                self.emit("heal_failed", epoch=epoch, source=str(source), cause=str(error))
                await asyncio.sleep(RETRY_S)
        took = self.runtime.clock.now() - began
        where = "checkpoint" if source is None else source.name
        for refused in self.checkpoints.refused:
            self.emit("refused", cause=refused)
        self.checkpoints.refused.clear()
        self.emit("healed", epoch=epoch, step=found.step, source=where, seconds=took)
        self.core.on_healed(epoch, found.step)
        self._obey()

    def _from_checkpoint(self) -> Snapshot:
        """Our newest; without any, the beginning, which follows from the seed."""
        found = self.checkpoints.newest(self.job.to_json())
        if found is None:
            self.learner = Learner(self.job)
            return self.learner.snapshot(0)
        self.learner.restore(found)
        return found

    async def _fetch(self, source: Member, epoch: int, step: int) -> Snapshot:
        wanted = Wanted(epoch, step)
        stream = self._client(source).stream("train.state", wanted, timeout_s=SUM_S)
        snapshot = Snapshot.decode(b"".join([piece async for piece in stream]))
        if snapshot.step != step:
            raise BadCheckpoint(f"{source} sent the state of step {snapshot.step}, not {step}")
        return snapshot

    async def _on_state_wanted(self, wanted: Wanted, call: Call) -> AsyncIterator[bytes]:
        """RPC: give me your parameters, as they are before that step."""
        await self._until(lambda: self._position() >= (wanted.epoch, wanted.step))
        healthy = self.core.phase in (e.COMPUTING, e.VOTED, e.OVER)
        if not healthy or self._position() != (wanted.epoch, wanted.step):
            raise Failed("stale", f"{self.core!r} has not what epoch {wanted.epoch} wants")
        data = (await self._on_model(lambda: self.learner.snapshot(wanted.step))).encode()
        for at in range(0, len(data), CHUNK_BYTES):
            yield data[at : at + CHUNK_BYTES]

    # -- who is alive

    def _watch_members(self) -> None:
        """One asking task for each other life in the record."""
        record = self.core.record
        others = [m for m in record.members if m.life != self.core.me.life] if record else []
        wanted = {member.life: member for member in others}
        for life in [life for life in self._beats if life not in wanted]:
            name, asking = self._beats.pop(life)
            asking.cancel()
            if record is not None and self._inside:
                during = "a step: another member put it out"
                self._report(life, PeerLost((name,), record.epoch - 1, during))
        for life, member in wanted.items():
            if life not in self._beats:
                self._beats[life] = member.name, self.runtime.spawn(self._ask_after(member), "beat")
        self._inside = record is not None and record.rank(self.core.me.life) is not None

    async def _ask_after(self, member: Member) -> None:
        client = self._client(member)
        while True:
            cause = ""
            try:
                life = await client.call("train.beat", None, timeout_s=self.silence_s)
                if life == member.life:
                    self.core.on_answer(life)
                else:
                    cause = f"another life answers there: {life}"
            except RpcError as error:
                cause = str(error)
            if cause and (record := self.core.record) is not None:
                self._lost(record, member, f"step {record.step}: {cause}")
            await asyncio.sleep(BEAT_S)

    def _gone(self, formed: Record, member: Member, why: str) -> None:
        """The group of an epoch has lost a member."""
        record = self.core.record
        if record is not None and record.epoch == formed.epoch:
            self._lost(record, member, f"step {record.step}: {why}")

    def _over(self, formed: Record, error: Exception) -> None:
        """The group of an epoch is over, whoever lives."""
        self.core.on_over(formed.epoch)
        self._obey()

    async def _on_beat(self, body: Any, call: Call) -> str:
        """RPC: do you live, and which life is it?"""
        return self.core.me.life

    def _lost(self, record: Record, member: Member, during: str) -> None:
        self._report(member.life, PeerLost((member.name,), record.epoch, during))
        self.core.on_lost(record.epoch, [member.life])
        self._obey()

    def _report(self, life: str, error: PeerLost) -> None:
        """A life is lost once."""
        if life not in self._reported:
            self._reported[life] = None
            self.emit("lost", name=error.names[0], epoch=error.epoch, error=str(error))
        if len(self._reported) > LIVES_MAX:
            del self._reported[next(iter(self._reported))]

    # -- means

    def _position(self) -> tuple[int, int]:
        """(epoch, step) of the newest record that we know."""
        record = self.core.record
        return (record.epoch, record.step) if record else (0, 0)

    async def _until(self, true: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(true)

    def _client(self, member: Member) -> RpcClient:
        address = member.card.address
        assert address is not None, f"{member} has no address"
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = self.node.client(address, SERVICE)
        return client

    def _on_model(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """In the executor, behind what is there already; goes on if the caller is cancelled."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(value: T, error: BaseException | None) -> None:
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)

        self._executor.submit(work, done)
        return result

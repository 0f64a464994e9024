"""One rank of an elastic run: elastic.py's core on sockets, a disk, and a model to train.

    record, requests   ──► core ──► Heal      state of a member, by stream, checksum and all
    silence of a peer  ──►      ──► Compute   gradients in a thread; parts to the first, sum back
    votes              ──►      ──► Vote, Propose, Apply, Drop, Fence, Finish

The first member is the parameter server of its epoch: it adds the parts in the order of ranks, so
the sum has the same bits whoever was late. If it dies, the next epoch has another first.

Every call names its epoch, and who is called answers for a life: what comes from an epoch that is
over, or to a life that has ended, is refused, not used. A member is lost when its process has
ended, which the kernel tells those of its host (`watch`), or when it has not answered for
`silence_s`; whoever notices says so, by name, and proposes to go on without it.

All use of the model is in one executor, one job behind the other: a snapshot is taken between
steps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from ddp.training import elastic as e
from ddp.training.autograd import Array
from ddp.training.checkpoint import Checkpoints, Snapshot
from ddp.training.elastic import Elastic, Member, Record
from ddp.training.errors import BadCheckpoint, PeerLost
from ddp.training.job import Job, Learner
from ddp.training.mourning import Mourning
from ddp.training.replicated import RecordStore, decode_record, encode_record
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import Failed, RpcError
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import message
from netstack.rpc.service import Call
from netstack.runtime.runtime import Runtime

T = TypeVar("T")

SERVICE: Final = "ddp"
# How often a member asks each other whether it lives.
BEAT_S: Final = 0.03
# No answer for so long, and it counts as dead. On a machine that is not overloaded an answer takes
# a millisecond; an error costs the one that was wrongly put out a heal, and no step.
SILENCE_S: Final = 0.15
# Of the gradients, in one message: well below the largest that rpc carries.
CHUNK_BYTES: Final = 4 << 20
# A sum waits for its slowest member; the dead are known by their silence, long before.
SUM_S: Final = 120.0
RETRY_S: Final = 0.02
# Lives whose end is remembered, so that it is told once.
LIVES_MAX: Final = 1000
# Steps from one checkpoint to the next.
CHECKPOINT_EVERY: Final = 20

Emit = Callable[..., None]


@message
class Part:
    """One member's part of one chunk of a sum."""

    epoch: int
    step: int
    chunk: int
    life: str
    data: bytes


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


@dataclass(slots=True)
class Sum:
    """Parts of one chunk, until all are there."""

    parts: dict[str, bytes] = field(default_factory=dict)
    total: asyncio.Future[bytes] = field(default_factory=asyncio.Future)


class Worker:
    """See above.

    Args:
        node: started; its address is `me`'s.
        emit: told of everything that a person may want to see, as `emit(kind, **fields)`.
        mourning: tells of deaths on this host; None: silence has to.
    """

    def __init__(
        self,
        runtime: Runtime,
        node: RpcNode,
        store: RecordStore,
        job: Job,
        me: Member,
        emit: Emit,
        *,
        founders: int,
        silence_s: float = SILENCE_S,
        mourning: Mourning | None = None,
    ) -> None:
        self.runtime, self.node, self.store, self.job, self.emit = runtime, node, store, job, emit
        self.silence_s, self.mourning = silence_s, mourning
        now = runtime.clock.now()
        self.core = Elastic(me, steps=job.steps, founders=founders, now=now)
        self.learner = Learner(job)
        self.checkpoints = Checkpoints(runtime.disk)
        self.finished = asyncio.Event()
        self._executor = runtime.executor("model", brief=False)
        self._clients: dict[tuple[str, int], RpcClient] = {}
        self._sums: dict[tuple[int, int, int], Sum] = {}
        self._held: tuple[int, int, Array] | None = None
        self._changed = asyncio.Condition()
        self._epoch_tasks: list[asyncio.Task[Any]] = []
        self._beats: dict[str, tuple[str, asyncio.Task[Any]]] = {}  # life: name, asking task
        self._inside = False  # whether we were a member when we last looked
        self._reported: dict[str, None] = {}  # lives whose loss was told, the oldest first
        for name, handler, request in (
            ("train.sum", self._on_part, Part),
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
        self.runtime.spawn(self.store.follow(self._news), "record")
        self.runtime.spawn(self._keep_time(), "deadlines")
        self._obey()

    async def stop(self) -> None:
        """End all that is under way."""
        await self.runtime.cancel_tasks()
        if self.mourning is not None:
            self.mourning.close()
        self._executor.close()

    def _news(self, record: Record | None, asked: list[Member]) -> None:
        self.core.on_joiners(asked)
        self.core.on_record(record)
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
                    self.runtime.spawn(self.store.ask(member), "ask")
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
                case e.Fence(epoch):
                    self._end_epoch()
                    self.runtime.spawn(self._tell_of_fence(epoch), "fence")
                case e.Finish(step):
                    self._end_epoch()
                    self.runtime.spawn(self._finish(step), "finish")
        self.core.check()
        self._watch_members()
        self.runtime.spawn(self._wake(), "wake")

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _begin_epoch(self, work: Any) -> None:
        self._end_epoch()
        self._epoch_tasks = [self.runtime.spawn(work, "step")]

    def _end_epoch(self) -> None:
        """Nothing that belongs to an earlier step goes on; whoever waits for its sum is told."""
        for task in self._epoch_tasks:
            task.cancel()
        self._epoch_tasks = []
        for key in [key for key in self._sums if key[:2] < self._position()]:
            total = self._sums.pop(key).total
            if not total.done():
                total.cancel()

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
                self.runtime.spawn(self._tell(member, encode_record(found)), "tell")

    async def _tell(self, member: Member, record: bytes) -> None:
        """What the store has now; the watch would tell it too, if its node lives."""
        with contextlib.suppress(RpcError):
            await self._client(member).call("train.record", record, timeout_s=self.silence_s)

    async def _on_told(self, record: bytes, call: Call) -> None:
        """RPC: this is the record, as I have read it."""
        self.core.on_record(decode_record(record))
        self._obey()

    # -- a step

    async def _compute(self, record: Record, rank: int) -> None:
        step, size = record.step, len(record.members)
        part = await self._on_model(lambda: self.learner.gradient(step, rank, size))
        data, first = part.tobytes(), record.members[0]
        chunks = range(0, len(data), CHUNK_BYTES)
        try:
            sums = await asyncio.gather(
                *(
                    self._sum(record, number, data[at : at + CHUNK_BYTES])
                    for number, at in enumerate(chunks)
                )
            )
        except Failed:
            return  # the first has seen a later record; so shall we
        except RpcError as error:
            self._lost(record, first, f"the sum of step {step}: {error}")
            return
        total = np.frombuffer(b"".join(sums), part.dtype)
        self._held = (record.epoch, step, total)
        self.core.on_sum(record.epoch, step)
        self._obey()

    async def _sum(self, record: Record, chunk: int, data: bytes) -> bytes:
        life, first = self.core.me.life, record.members[0]
        part = Part(record.epoch, record.step, chunk, life, data)
        if first.life == life:
            return await self._meet(part, record)
        total: bytes = await self._client(first).call("train.sum", part, timeout_s=SUM_S)
        return total

    async def _on_part(self, part: Part, call: Call) -> bytes:
        """RPC: here is my part; the answer is the sum of all."""
        await self._until(lambda: self._position() >= (part.epoch, part.step))
        record = self.core.record
        if record is None or (record.epoch, record.step) != (part.epoch, part.step):
            raise Failed("stale", f"epoch {part.epoch} step {part.step} is not {record!r}")
        if record.members[0].life != self.core.me.life or record.rank(part.life) is None:
            raise Failed("stale", f"{part.life} and {self.core.me.life} do not meet in {record!r}")
        return await self._meet(part, record)

    async def _meet(self, part: Part, record: Record) -> bytes:
        key = (part.epoch, part.step, part.chunk)
        meeting = self._sums.setdefault(key, Sum())
        meeting.parts[part.life] = part.data
        if len(meeting.parts) == len(record.members) and not meeting.total.done():
            dtype = self.job.dtype
            total = np.zeros(len(part.data) // np.dtype(dtype).itemsize, dtype)
            for member in record.members:  # in the order of ranks, whoever came first
                total += np.frombuffer(meeting.parts[member.life], dtype)
            meeting.total.set_result(total.tobytes())
        try:
            return await asyncio.shield(meeting.total)
        except asyncio.CancelledError:
            if meeting.total.cancelled():
                raise Failed("stale", f"epoch {part.epoch} is over") from None
            raise

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
        members, first = len(record.members), record.members[0].name

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
            figures = {"loss": loss, "checksum": checksum, "members": members, "first": first}
            self.emit("step", step=step, epoch=epoch, **figures)
            if kept is not None:
                self.emit("checkpoint", step=step + 1)

        self.runtime.spawn(report(), "apply")

    async def _tell_of_fence(self, epoch: int) -> None:
        await self._on_model(lambda: None)  # behind the steps that are still being applied
        self.emit("fenced", epoch=epoch, name=self.core.me.name)

    async def _finish(self, step: int) -> None:
        accuracy, checksum = await self._on_model(
            lambda: (self.learner.accuracy(), self.learner.checksum())
        )
        self.emit("finished", step=step, accuracy=accuracy, checksum=checksum)
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
            if self.mourning is not None:
                self.mourning.forget(life)
            if record is not None and self._inside:
                during = "a step: another member put it out"
                self._report(life, PeerLost((name,), record.epoch - 1, during))
        for life, member in wanted.items():
            if life not in self._beats:
                self._beats[life] = member.name, self.runtime.spawn(self._ask_after(member), "beat")
                if self.mourning is not None:
                    self.mourning.watch(member, partial(self._died, member))
        self._inside = record is not None and record.rank(self.core.me.life) is not None

    async def _ask_after(self, member: Member) -> None:
        client = self._client(member)
        while True:
            cause = ""
            try:
                life = await client.call("train.beat", None, timeout_s=self.silence_s)
                if life != member.life:
                    cause = f"another life answers there: {life}"
            except RpcError as error:
                cause = str(error)
            if cause and (record := self.core.record) is not None:
                self._lost(record, member, cause)
            await asyncio.sleep(BEAT_S)

    def _died(self, member: Member) -> None:
        if (record := self.core.record) is not None and record.rank(member.life) is not None:
            self._lost(record, member, f"step {record.step}: its process ended")

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
        address = (member.host, member.port)
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

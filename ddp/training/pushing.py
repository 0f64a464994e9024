"""The two ends of a push, between processes: stale.py's core on sockets.

    worker                                      server
    train.read ───────────────────────────────► waits until the bound lets it
               ◄── ticket, clock, rank, size; then the parameters, in pieces
    computes part `rank` of `size` of the clock's batch
    train.push ── ticket; gradients and loss, in pieces ──► applied when it comes (bound 0: when all
               ◄── whether it counted                       have come)

Both name the server's life and the worker's: what was read from one life of a server is never
pushed to its next, and who was put out is refused. A call whose fate is unknown is not made again:
the worker reads anew, which ends its old ticket.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from ddp.membership import Member, Record
from ddp.training.autograd import Array
from ddp.training.checkpoint import Snapshot
from ddp.training.errors import TrainingError
from ddp.training.job import Learner
from ddp.training.stale import Share, StaleServer
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import Failed, RpcError
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import decode, encode, message
from netstack.rpc.service import Call

T = TypeVar("T")

# Of parameters and gradients, in one message: well below the largest that rpc carries.
PIECE_BYTES: Final = 4 << 20
# A read waits for the slowest; the dead are known by their silence, long before.
READ_S: Final = 120.0
PUSH_S: Final = 20.0
RETRY_S: Final = 0.02
# Why a call is refused: it is of a life, or a read, that has ended.
STALE: Final = "stale"


class OnModel(Protocol):
    """Runs what touches the model, one behind the other, off the loop."""

    def __call__(self, work: Callable[[], T], /) -> asyncio.Future[T]:
        """Its result."""


@message
class Ask:
    """`life` wants to read from that life of the server."""

    server: str
    life: str


@message
class Head:
    """Of what was read: see Share."""

    ticket: int
    clock: int
    rank: int
    size: int


@message
class Piece:
    """Of a push: bytes from `at` on."""

    server: str
    life: str
    ticket: int
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step has become whole. clocks: by name. kept: what is to be kept of it, if it is due."""

    step: int
    loss: float
    checksum: int
    clocks: dict[str, int]
    kept: Snapshot | None = field(repr=False)


class Reign:
    """One life of a server: all of it but `life` is used on the model only.

    Args:
        record: its step is where the parameters are.
        every: steps from one checkpoint to the next.
    """

    def __init__(
        self, me: Member, learner: Learner, record: Record, bound: int | None, every: int
    ) -> None:
        self.life, self._learner, self._every = me.life, learner, every
        self._names = {member.life: member.name for member in record.workers}
        self._pushes: Counter[str] = Counter()
        self.core = StaleServer(
            learner.parameters, learner.optimizer, list(self._names), bound, step=record.step
        )

    def __repr__(self) -> str:
        return f"<Reign {self.life} {self.core!r}>"

    @property
    def push_bytes(self) -> int:
        """Of one push, whole."""
        return self._learner.nothing().nbytes

    def follow(self, record: Record) -> None:
        """The workers are those of this record, by now."""
        self._names |= {member.life: member.name for member in record.workers}
        self.core.change(member.life for member in record.workers)

    def read(self, now: float) -> list[tuple[str, Share]]:
        """(life, share) of those that have asked, and may read."""
        if self.core.step >= self._learner.job.steps:
            return []
        lives = [str(life) for life in self.core.take_ready(now)]
        return [(life, self.core.read(life)) for life in lives]

    def push(self, life: str, ticket: int, data: bytes) -> tuple[bool, list[StepDone]]:
        """Whether it counted, and what became whole by it."""
        if self.core.step >= self._learner.job.steps:
            return False, []
        whole = np.frombuffer(data, self._learner.job.dtype)
        counted = self.core.push(life, ticket, self._learner.cut(whole), float(whole[-1]))
        if counted:
            self._pushes[self._names[life]] += 1
        return counted, [self._done(step, loss) for step, loss in self.core.take_steps()]

    def _done(self, step: int, loss: float) -> StepDone:
        due = (step + 1) % self._every == 0 or step + 1 == self._learner.job.steps
        clocks = {self._names[str(life)]: clock for life, clock in self.core.clocks.items()}
        kept = self._learner.snapshot(step + 1) if due else None
        return StepDone(step, loss, self._learner.checksum(), clocks, kept)

    def report(self) -> dict[str, Any]:
        """Who pushed how often; who waited for whom; the most updates between read and push."""
        waits: dict[tuple[str, str], float] = {}
        for (who, whom), seconds in self.core.waited_s.items():
            pair = self._names[str(who)], self._names[str(whom)]
            waits[pair] = waits.get(pair, 0.0) + seconds
        return {
            "pushes": dict(sorted(self._pushes.items())),
            "waits": [[who, whom, round(seconds, 3)] for (who, whom), seconds in waits.items()],
            "stalest": max(self.core.staleness, default=0),
        }


class Serving:
    """The server's end. It serves from its first `follow` on, until its `end`.

    Args:
        bound: as of StaleServer.
        whole: told of each step that has become whole, in the epoch's record.
    """

    def __init__(
        self,
        node: RpcNode,
        on_model: OnModel,
        whole: Callable[[StepDone], None],
        *,
        bound: int | None,
        every: int,
    ) -> None:
        self.bound, self.every = bound, every
        self._runtime, self._on_model, self._whole = node.runtime, on_model, whole
        self._reign: Reign | None = None
        self._turns: dict[str, asyncio.Future[Share]] = {}  # reads that wait
        self._pieces: dict[str, bytearray] = {}  # of pushes that have not come whole
        node.service.add("train.read", self._on_read, request=Ask)
        node.service.add("train.push", self._on_push, request=Piece)

    def __repr__(self) -> str:
        return f"<Serving {self._reign!r}>"

    def follow(self, me: Member, learner: Learner, record: Record) -> None:
        """Serve the workers of this record."""
        if self._reign is None:
            self._reign = Reign(me, learner, record, self.bound, self.every)
        else:
            self._on_model(partial(self._reign.follow, record))
        lives = {member.life for member in record.workers}
        for life in self._turns.keys() - lives:
            self._refuse(life, f"{life} is no member of epoch {record.epoch}")
        for life in self._pieces.keys() - lives:
            del self._pieces[life]
        self._runtime.spawn(self._wake(self._reign), "turns")

    async def end(self) -> dict[str, Any]:
        """No more: whoever waits is told. What there is to report; nothing, if it had not begun."""
        reign, self._reign = self._reign, None
        self._pieces.clear()
        for life in list(self._turns):
            self._refuse(life, "the service has ended")
        return await self._on_model(reign.report) if reign is not None else {}

    # -- reads

    async def _on_read(self, ask: Ask, call: Call) -> AsyncIterator[Any]:
        """RPC: what shall I compute, and from which parameters?"""
        reign = self._serving(ask.server)
        self._refuse(ask.life, "it has asked again")
        turn = self._turns[ask.life] = asyncio.get_running_loop().create_future()
        try:
            await self._ask(reign, ask.life)
            await self._wake(reign)
            share = await turn
        finally:
            turn.cancel()  # nobody waits for it any more
        yield encode(Head(share.ticket, share.clock, share.rank, share.size))
        data = np.concatenate([array.reshape(-1) for array in share.parameters]).tobytes()
        for at in range(0, len(data), PIECE_BYTES):
            yield data[at : at + PIECE_BYTES]

    async def _ask(self, reign: Reign, life: str) -> None:
        now = self._runtime.clock.now
        try:
            await self._on_model(lambda: reign.core.ask(life, now()))
        except TrainingError as error:
            raise Failed(STALE, str(error)) from None

    async def _wake(self, reign: Reign) -> None:
        """Whoever may read by now, reads."""
        now = self._runtime.clock.now
        for life, share in await self._on_model(lambda: reign.read(now())):
            turn = self._turns.pop(life, None)
            if turn is not None and not turn.done():
                turn.set_result(share)

    def _refuse(self, life: str, why: str) -> None:
        turn = self._turns.pop(life, None)
        if turn is not None and not turn.done():
            turn.set_exception(Failed(STALE, why))

    def _serving(self, life: str) -> Reign:
        if self._reign is None or self._reign.life != life:
            raise Failed(STALE, f"{life} does not serve")
        return self._reign

    # -- pushes

    async def _on_push(self, piece: Piece, call: Call) -> bool:
        """RPC: my gradient, or some of it. Whether it counted; of all pieces but the last: no."""
        reign = self._serving(piece.server)
        if piece.at == 0:
            self._pieces[piece.life] = bytearray()
        data = self._pieces.get(piece.life, bytearray())
        if not len(data) == piece.at <= reign.push_bytes - len(piece.data):
            raise Failed(STALE, f"{len(piece.data)} bytes at {piece.at}, after {len(data)}")
        data += piece.data
        if len(data) < reign.push_bytes:
            return False
        del self._pieces[piece.life]
        whole = bytes(data)
        counted, done = await self._on_model(lambda: reign.push(piece.life, piece.ticket, whole))
        if self._reign is reign:
            for step in done:
                self._whole(step)
            await self._wake(reign)
        return counted


class Pushing:
    """A worker's end.

    Args:
        slow_s: added to each gradient: a straggler.
    """

    def __init__(self, on_model: OnModel, slow_s: float) -> None:
        self._on_model, self._slow_s = on_model, slow_s

    def __repr__(self) -> str:
        return f"<Pushing slow_s={self._slow_s:g}>"

    async def work(self, me: Member, learner: Learner, server: Member, client: RpcClient) -> None:
        """Read, compute, push, and again; until it is cancelled."""
        while True:
            try:
                head, parameters = await self._read(Ask(server.life, me.life), client)
                work = partial(_compute, learner, head, parameters)
                data = (await self._on_model(work)).tobytes()
                await asyncio.sleep(self._slow_s)
                for at in range(0, len(data), PIECE_BYTES):
                    part = data[at : at + PIECE_BYTES]
                    piece = Piece(server.life, me.life, head.ticket, at, part)
                    await client.call("train.push", piece, timeout_s=PUSH_S)
            except RpcError:  # it is busy, dead, or knows nothing of us: the record will tell
                await asyncio.sleep(RETRY_S)

    async def _read(self, ask: Ask, client: RpcClient) -> tuple[Head, bytes]:
        stream = client.stream("train.read", ask, timeout_s=READ_S)
        items = [item async for item in stream]
        return decode(Head, items[0]), b"".join(items[1:])


def _compute(learner: Learner, head: Head, parameters: bytes) -> Array:
    learner.put(np.frombuffer(parameters, learner.job.dtype))
    return learner.gradient(head.clock, head.rank, head.size)

"""The fabric between hosts: a raw stream of netstack for each pair of ranks, encrypted.

    switchboard = Switchboard(node)                  one a process: who rings is put through to us
    fabric = await NetworkFabric.open(switchboard, cards, rank, epoch, group="train")

The lower rank of a pair dials and opens the stream; its first frame is HELLO: group, epoch and
rank. So all runs over the one socket that a daemon has, and under the certificates of its
cluster: a rank is who its certificate names. Frames leave while the stream has room, and wait
here otherwise.

Ranks that share a host with some of the others, and not with all, talk to these through memory once
`mix` was called (neighbours.py): the same frames, of the same schedules.

A rank is lost when its connection ends (silence included: `IDLE_S`), and at once when it is a
process of this host that dies (deaths.py). Who rings with an epoch that is over is told so
(FENCED).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgpack

from ddp.call import Call
from ddp.card import Card, have_mates, mates, one_host
from ddp.deaths import Deaths
from ddp.elements import Array
from ddp.engine import Engine
from ddp.errors import DdpError, GroupClosed, RankLost
from ddp.fabric import Fabric, bind
from ddp.frames import NO_CALL, Frame, Type
from ddp.neighbours import Neighbours
from ddp.operation import Operation
from ddp.schedules.hierarchical import hierarchical
from ddp.schedules.schedule import Schedule
from ddp.shared import share
from ddp.switchboard import SERVICE, Line, Switchboard
from ddp.work import Work
from netstack.rpc.dialler import Dialler
from netstack.rpc.errors import RpcError
from netstack.transport.config import TransportConfig
from netstack.transport.errors import TransportError

# Name of one that reaches some through memory.
MIXED: Final = "netstack + shared memory"

# Bytes that a stream may hold unacknowledged before frames wait here: half of its buffer, which is
# what `Stream.drain` waits for.
STREAM_BYTES: Final = TransportConfig().stream_buffer // 2

# Until all ranks of a new group have found one another.
GATHER_S: Final = 15.0

# How often calls are looked through for those past their time.
TICK_S: Final = 0.05


def _fitted(cards: Sequence[Card]) -> Schedule | None:
    """Hierarchical on the hosts that there are; None where they tell nothing apart."""
    if not have_mates(cards):
        return None
    hosts: dict[str, list[int]] = {}
    for rank, card in enumerate(cards):
        hosts.setdefault(card.host, []).append(rank)
    return hierarchical(len(cards), list(hosts.values()))


class NetworkFabric(Fabric):
    """One rank's end; made by `open`, on the loop of its node."""

    def __init__(
        self, switchboard: Switchboard, cards: list[Card], rank: int, epoch: int, group: str
    ) -> None:
        super().__init__(Engine(rank, len(cards), epoch))
        self.model = None
        self.name = "netstack"
        self._near: Neighbours | None = None  # whom we reach through memory
        self._mixed = False  # whether any two ranks do
        self._on_lost: Callable[[int, str], None] | None = None
        self._parted: set[int] = set()  # ranks that have closed the group in good order
        self._switchboard = switchboard
        self._runtime = switchboard.node.runtime
        self._loop = asyncio.get_running_loop()
        self._cards, self._group = cards, group
        self._hierarchy = _fitted(cards)
        self._lines: dict[int, Line] = {}
        self._met: set[int] = set()  # ranks that are known to be in this epoch
        self._complete = asyncio.Event()
        self._leaving: dict[int, deque[Frame]] = {r: deque() for r in range(len(cards))}
        self._draining: set[int] = set()
        self._deaths = Deaths()
        self._watched: list[int] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._flushing = False
        self._closed = False

    @classmethod
    async def open(
        cls,
        switchboard: Switchboard,
        cards: list[Card],
        rank: int,
        epoch: int,
        *,
        group: str = "ranks",
        timeout_s: float = GATHER_S,
        on_lost: Callable[[int, str], None] | None = None,
    ) -> NetworkFabric:
        """Find all other ranks; raises RankLost naming those not found, or Fenced.

        on_lost: told of each rank that is gone, though not of one that has left in good order.
        """
        fabric = cls(switchboard, cards, rank, epoch, group)
        fabric._on_lost = on_lost
        fabric._watch_deaths()
        switchboard.register(group, fabric)
        dials = [
            fabric._runtime.spawn(fabric._dial(other), f"dial rank {other}")
            for other in range(rank + 1, len(cards))
        ]
        try:
            fabric._check_complete()
            async with asyncio.timeout(timeout_s):
                await fabric._complete.wait()
            if fabric.engine.broken is not None:
                raise fabric.engine.broken
        except TimeoutError:
            missing = [str(r) for r in range(len(cards)) if r != rank and r not in fabric._met]
            fabric.close()
            raise RankLost(f"ranks {', '.join(missing)} were not found in {timeout_s} s") from None
        except BaseException:
            fabric.close()
            raise
        finally:
            for dial in dials:
                dial.cancel()
        fabric._tick()
        return fabric

    # -- Fabric, from any thread

    def call(self, call: Call, vector: Array, timeout_s: float, *, ahead: bool = False) -> Work:
        """See Fabric."""
        if self.engine.broken is not None:
            raise self.engine.broken
        work = Work(str(call))

        def begin() -> None:
            try:
                fitted = self._hierarchy if call.algorithm == "hierarchical" else None
                operation = self.engine.start(call, vector, self._now(), timeout_s, fitted)
                if operation.ended:
                    self._ended(work, operation)
                else:
                    operation.on_end = lambda ended: self._ended(work, ended)
                self._flush()
            except DdpError as error:
                work.end(error)

        self._on_loop(begin)
        return work

    def _ended(self, work: Work, operation: Operation) -> None:
        """The vector is its owner's again. After a good end nobody needs it any more; after a bad
        one others may, who have yet to hear of it, or who do better: see Engine."""
        if operation.error is not None:
            for dst, frame in self.engine.take_outputs():
                self._leaving[dst].append(frame)
            for dst, leaving in self._leaving.items():
                for at, frame in enumerate(leaving):
                    leaving[at] = frame.owned()
                if dst in self._lines:
                    self._lines[dst].stream.keep()
        work.end(operation.error)

    def send(self, vector: Array, dtype: str, dst: int, tag: int, timeout_s: float) -> Work:
        """See Fabric."""
        work = Work(f"send to {dst}")

        def begin() -> None:
            try:
                deadline = self._now() + timeout_s
                bind(work, self.engine.messages.send(vector, dtype, dst, tag, deadline))
                self._flush()
            except DdpError as error:
                work.end(error)

        self._on_loop(begin)
        return work

    def receive(self, vector: Array, dtype: str, src: int, tag: int, timeout_s: float) -> Work:
        """See Fabric."""
        work = Work(f"receive from {src}")

        def begin() -> None:
            try:
                now = self._now()
                messages = self.engine.messages
                bind(work, messages.ask(vector, dtype, src, tag, now + timeout_s))
                messages.match(src, tag, now)
                self._flush()
            except DdpError as error:
                work.end(error)

        self._on_loop(begin)
        return work

    def close(self, error: DdpError | None = None) -> None:
        """See Fabric."""
        self._on_loop(lambda: self._close(error or GroupClosed("the group was closed")))

    def split(
        self, members: Sequence[int], number: int, exchange: Callable[[bytes], list[bytes]]
    ) -> Fabric:
        """See Fabric; from a thread that is not the loop's."""
        cards, rank = [self._cards[m] for m in members], list(members).index(self.engine.rank)
        if self._mixed and len(members) > 1 and one_host(cards):
            return share(rank, members, self.engine.epoch, exchange)
        name = f"{self._group}/{number}.{members[0]}"
        opening = NetworkFabric.open(self._switchboard, cards, rank, self.engine.epoch, group=name)
        part = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        if self._mixed:  # all ranks exchange places, or none does

            def among_members(place: bytes) -> list[bytes]:
                found = exchange(place)
                return [found[member] for member in members]

            part.mix(among_members)
        return part

    def mix(self, exchange: Callable[[bytes], list[bytes]]) -> None:
        """From here on talk to those of our host through memory; from a thread, on all ranks.

        `exchange` gives the bytes of all ranks of this fabric. Before anybody may close it, all
        must have come back from here. Raises RankLost.
        """
        rank = self.engine.rank
        near = Neighbours(rank, self.engine.size)
        try:
            places = exchange(near.place)
            near.meet({mate: places[mate] for mate in mates(self._cards, rank)})
            asyncio.run_coroutine_threadsafe(self._use_memory(near), self._loop).result()
        except BaseException:
            near.close()
            raise

    async def _use_memory(self, near: Neighbours) -> None:
        if self._closed:
            raise self.engine.broken or GroupClosed("the group was closed")
        self._near, self._mixed, self.name = near, have_mates(self._cards), MIXED
        self._loop.add_reader(near.bell, self._hear)
        self._hear()  # of those who were faster

    def _on_loop(self, act: Callable[[], None]) -> None:
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            act()
        else:
            self._loop.call_soon_threadsafe(act)

    def _now(self) -> float:
        return self._runtime.clock.now()

    # -- lines

    async def _dial(self, rank: int) -> None:
        card = self._cards[rank]
        assert card.address is not None, f"{card} has no address"
        dialler = Dialler(self._switchboard.node, card.address, SERVICE, card.name)
        while True:
            connection = await dialler.dial()
            try:
                stream = connection.open_stream()
            except RpcError:
                continue
            line = Line(connection, stream)
            stream.receiver = line.feed
            self._greet(line)
            self._use(rank, line)
            return

    def _greet(self, line: Line) -> None:
        hello = msgpack.packb([self._group, self.engine.epoch, self.engine.rank])
        line.send(Frame(Type.HELLO, self.engine.epoch, 0, NO_CALL, payload=hello))

    def accept(self, rank: int, line: Line) -> None:
        """The line to `rank`; it must be the one of that card's owner."""
        known = 0 <= rank < len(self._cards) and rank != self.engine.rank
        if not known or line.connection.peer_name != self._cards[rank].name or rank in self._lines:
            line.stream.reset(1)
            return
        self._greet(line)
        self._met.add(rank)
        self._use(rank, line)

    def _use(self, rank: int, line: Line) -> None:
        self._lines[rank] = line
        line.connection.on_close.append(lambda c: self._lost(rank, str(c.closed)))
        line.stream.on_reset = lambda code: self._lost(rank, "it gave up the stream")
        line.on_garbage = self._garbage
        line.on_fed = self._flush
        line.use(lambda frame: self._received(rank, frame))
        self._check_complete()
        self._flush()

    def _check_complete(self) -> None:
        if len(self._met) == len(self._cards) - 1 or self.engine.broken is not None:
            self._complete.set()

    def _received(self, rank: int, frame: Frame) -> None:
        if not self._closed:
            if frame.type is Type.HELLO:
                self._met.add(rank)
            elif frame.type is Type.LEFT:
                self._left(rank)
            else:
                self.engine.receive(rank, frame, self._now())
            self._check_complete()

    def _hear(self) -> None:
        """Somebody of our host has rung."""
        if self._near is None or self._closed:
            return
        try:
            for rank, frame in self._near.hear():
                self._received(rank, frame)
        except DdpError as error:
            self._garbage(error)
        self._near.go_on()
        self._flush()

    def _hear_last(self, rank: int) -> None:
        """What one who is gone has left in memory came before that he went."""
        if self._near is not None and rank in self._near and not self._closed:
            try:
                for frame in self._near.pull(rank):
                    self._received(rank, frame)
            except DdpError as error:
                self._garbage(error)

    def _garbage(self, error: DdpError) -> None:
        self.engine.fail(error, self._now())
        self._flush()

    def _watch_deaths(self) -> None:
        if not self._cards[self.engine.rank].is_here:
            return
        for rank in mates(self._cards, self.engine.rank):
            pid = self._cards[rank].pid
            descriptor = self._deaths.watch(rank, pid)
            if descriptor is None:
                self._lost(rank, f"its process {pid} is gone")
                continue
            self._watched.append(descriptor)
            self._loop.add_reader(descriptor, self._someone_died)

    def _someone_died(self) -> None:
        for descriptor in self._watched:
            self._loop.remove_reader(descriptor)
        found = self._deaths.look()
        self._watched = self._deaths.descriptors()
        for descriptor in self._watched:
            self._loop.add_reader(descriptor, self._someone_died)
        for rank in found:
            self._lost(rank, "its process ended")

    def _left(self, rank: int) -> None:
        """It closed the group in good order: nothing more comes, but nobody has died."""
        self._hear_last(rank)
        self._parted.add(rank)
        self.engine.lost(rank, "it has left the group", self._now())

    def _lost(self, rank: int, why: str) -> None:
        if self._closed:
            return
        self._hear_last(rank)
        self.engine.lost(rank, why, self._now())
        self._check_complete()
        self._flush()
        if self._on_lost is not None and rank not in self._parted:
            self._on_lost(rank, why)

    # -- frames out

    def _flush(self) -> None:
        if self._flushing:
            return
        self._flushing = True
        try:
            while True:
                for dst, frame in self.engine.take_outputs():
                    self._leaving[dst].append(frame)
                left = [self._leave(dst) for dst, leaving in self._leaving.items() if leaving]
                if not any(left):
                    return
        finally:
            self._flushing = False

    def _leave(self, dst: int) -> bool:
        """Push what the way has room for; whether anything left."""
        leaving, line = self._leaving[dst], self._lines.get(dst)
        if self._near is not None and dst in self._near:
            return self._leave_through(self._near, dst, leaving)
        if line is None or dst in self._draining:
            return False
        left = 0
        try:
            while leaving and line.stream.buffered < STREAM_BYTES:
                frame = leaving.popleft()
                line.push(frame)
                left += 1
                self.engine.sent(len(frame.payload), self._now())
        except TransportError:
            leaving.clear()  # its end is told by on_close
            return False
        if leaving:
            self._draining.add(dst)
            self._runtime.spawn(self._drain(dst, line), f"room to rank {dst}")
        return left > 0

    def _leave_through(self, near: Neighbours, dst: int, leaving: deque[Frame]) -> bool:
        left = 0
        while leaving and near.ready(dst):
            frame = leaving.popleft()
            near.send(dst, frame)
            left += 1
            if frame.type is Type.DATA:
                self.engine.counters["memory_bytes"] += len(frame.payload)
            self.engine.sent(len(frame.payload), self._now())
        return left > 0

    async def _drain(self, dst: int, line: Line) -> None:
        with contextlib.suppress(TransportError):
            await line.stream.drain()
        self._draining.discard(dst)
        self._flush()

    def _tick(self) -> None:
        if self._closed:
            return
        self.engine.expire(self._now())
        if self._near is not None:
            self._near.go_on()
        self._flush()
        self._ticker = self._loop.call_later(TICK_S, self._tick)

    def _close(self, error: DdpError) -> None:
        if self._closed:
            return
        self.engine.close(error, self._now())
        self._flush()
        self._closed = True
        self._switchboard.forget(self._group, self)
        if self._ticker is not None:
            self._ticker.cancel()
        for descriptor in self._watched:
            self._loop.remove_reader(descriptor)
        self._deaths.close()
        if self._near is not None:
            self._loop.remove_reader(self._near.bell)
            self._near.close()
        for rank, line in self._lines.items():
            self._switchboard.retire(line, self.engine.epoch, dialled=rank > self.engine.rank)

"""One rank's part in one schedule on one vector, without I/O.

    execution.begin()                     the sends of the first turn are in `outbox`
    execution.receive(src, …, data)       a piece of a transfer; more may be in `outbox`
    execution.done                        the vector is what the schedule makes of it

Pieces of a transfer come in order, transfers of different ranks in any. Those that are not yet
due are put by: the order in which things are *added* is the schedule's, never that of arrival.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import numpy as np

from ddp.call import Call
from ddp.elements import Array, combine
from ddp.errors import Corrupted
from ddp.frames import SEGMENT_BYTES, Payload
from ddp.schedules.schedule import Action, Key, Schedule, Transfer, bounds

# From so many bytes on a transfer is sent from the vector itself, if it may be: to find out whether
# costs more than to copy a few.
LENT_BYTES_MIN: Final = 16 * 1024


class Piece(NamedTuple):
    """A piece of a transfer, to be sent; `data` may be the vector's own memory."""

    dst: int
    round: int
    lo: int
    offset: int
    data: Payload


class Execution:
    """See above. `vector` is one-dimensional and contiguous, and becomes the result."""

    def __init__(self, schedule: Schedule, rank: int, vector: Array, call: Call) -> None:
        self.schedule, self.rank, self.vector, self.call = schedule, rank, vector, call
        self.outbox: list[Piece] = []
        self.done = False
        self.fan_in = 0  # most transfers that came whole in one round
        self.rounds = 0  # one more than the last in which something was sent or came
        self._arrivals = 0  # in this round
        self._turns = schedule.program(rank)
        self._starts = bounds(len(vector), schedule.chunks)
        self._bytes = vector.view(np.uint8)
        self._at = -1  # turn
        self._due: deque[Transfer] = deque()  # of this turn, in the order in which they are taken
        self._got = 0  # bytes of the first of them
        self._early: dict[Key, deque[tuple[int, Payload]]] = {}
        self._kept: dict[int, dict[int, Array]] = {}  # lo -> source -> values
        self._to_come: set[Key] = {
            (turn.round, t.src, t.lo) for turn in self._turns for t in turn.receives
        }

    def __repr__(self) -> str:
        return f"<Execution {self.schedule.name} rank={self.rank} turn={self._at}>"

    def begin(self) -> None:
        """Enter the first turn."""
        self._next_turn()

    def receive(self, src: int, round_: int, lo: int, offset: int, data: Payload) -> None:
        """A piece has come; raises Corrupted if the schedule has no place for it."""
        if (round_, src, lo) not in self._to_come:
            raise Corrupted(f"rank {src} sent round {round_}, chunk {lo}: not in {self.schedule!r}")
        due = self._due[0] if self._due else None
        if due is None or (round_, src, lo) != (self._turns[self._at].round, due.src, due.lo):
            self._early.setdefault((round_, src, lo), deque()).append((offset, data))
            return
        self._take(due, offset, data)
        self._take_early()

    def waits_for(self, rank: int) -> bool:
        """Whether something of `rank` is still to come."""
        if self.done:
            return False
        number = self._turns[self._at].round if self._at >= 0 else -1
        transfers = [(number, t) for t in self._due]
        transfers += [
            (turn.round, t) for turn in self._turns[self._at + 1 :] for t in turn.receives
        ]
        for i, (round_, t) in enumerate(transfers):
            if t.src != rank:
                continue
            here = self._got if i == 0 and self._due else 0
            pieces = self._early.get((round_, rank, t.lo), ())
            here += sum(len(data) for _, data in pieces)
            if here < self._length(t) or (not self._length(t) and not pieces):
                return True
        return False

    # -- inside

    def _length(self, t: Transfer) -> int:
        return (self._starts[t.hi] - self._starts[t.lo]) * self.vector.itemsize

    def _next_turn(self) -> None:
        while not self._due:
            if self._at >= 0 and self._turns[self._at].fold:
                self._fold()
            self._at += 1
            if self._at == len(self._turns):
                self._finish()
                return
            turn = self._turns[self._at]
            self._arrivals = 0
            for transfer in turn.sends:
                self._send(turn.round, transfer)
            self._due.extend(turn.receives)
        self._take_early()

    def _send(self, round_: int, t: Transfer) -> None:
        """What is sent is what was there before this round's receives: a copy, if need be."""
        start, length = self._starts[t.lo] * self.vector.itemsize, self._length(t)
        self.rounds = max(self.rounds, round_ + 1)
        lent = length >= LENT_BYTES_MIN and (round_, t.dst, t.lo) in self._lasting()
        for offset in range(0, max(length, 1), SEGMENT_BYTES):
            end = min(offset + SEGMENT_BYTES, length)
            piece = self._bytes[start + offset : start + end]
            data = piece.data if lent else piece.tobytes()
            self.outbox.append(Piece(t.dst, round_, t.lo, offset, data))

    def _lasting(self) -> frozenset[Key]:
        return self.schedule.lasting(self.rank, rewritten=self.call.op == "mean")

    def _take_early(self) -> None:
        while self._due:
            due = self._due[0]
            key = (self._turns[self._at].round, due.src, due.lo)
            pieces = self._early.get(key)
            if not pieces:
                return
            offset, data = pieces.popleft()
            if not pieces:
                del self._early[key]
            self._take(due, offset, data)

    def _take(self, t: Transfer, offset: int, data: Payload) -> None:
        if offset != self._got or self._got + len(data) > self._length(t):
            raise Corrupted(f"a piece at {offset} of {t}, of which {self._got} bytes are here")
        self._apply(t, offset, data)
        self._got += len(data)
        if self._got == self._length(t):
            self._got = 0
            self._due.popleft()
            self._arrivals += 1
            self.fan_in = max(self.fan_in, self._arrivals)
            self.rounds = max(self.rounds, self._turns[self._at].round + 1)
            self._to_come.discard((self._turns[self._at].round, t.src, t.lo))
            if not self._due:
                self._next_turn()

    def _apply(self, t: Transfer, offset: int, data: Payload) -> None:
        values = np.frombuffer(data, self.vector.dtype)
        begin = offset // self.vector.itemsize
        start = self._starts[t.lo] + begin
        mine = self.vector[start : start + len(values)]
        if t.action is Action.COPY:
            mine[...] = values
        elif t.action is Action.REDUCE:
            left, right = (values, mine) if t.src < self.rank else (mine, values)
            combine(self.call.op, self.call.dtype, left, right, mine)
        else:
            by_source = self._kept.setdefault(t.lo, {})
            if t.src not in by_source:
                length = self._starts[t.hi] - self._starts[t.lo]
                by_source[t.src] = np.empty(length, self.vector.dtype)
            by_source[t.src][begin : begin + len(values)] = values

    def _fold(self) -> None:
        """All that was kept of a chunk, and one's own, in the order of ranks."""
        for lo, by_source in self._kept.items():
            some = next(iter(by_source.values()))
            mine = self.vector[self._starts[lo] : self._starts[lo] + len(some)]
            if self.rank not in self.schedule.silent:
                by_source[self.rank] = mine.copy()
            ordered = [by_source[source] for source in sorted(by_source)]
            mine[...] = ordered[0]
            for values in ordered[1:]:
                combine(self.call.op, self.call.dtype, mine, values, mine)
        self._kept.clear()

    def _finish(self) -> None:
        if self.schedule.place:
            own = self.vector[self._starts[self.rank] : self._starts[self.rank + 1]].copy()
            for by_source in self._kept.values():
                for source, values in by_source.items():
                    start = self._starts[source]
                    self.vector[start : start + len(values)] = values
            self.vector[self._starts[self.rank] : self._starts[self.rank + 1]] = own
        self._kept.clear()
        self.done = True

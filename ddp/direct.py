"""A sum through memory that all ranks see, without the memory: its steps, and who may give up when.

    program(rank, size, windows, exchange)    the steps of one rank, as data
    Sum(…).fill, .add, .take                  what they do to the numbers
    hopeless(…)                               whether a failure that is known ends the call

A vector goes through in windows. Between ranks of any number, in each window:

    FILL    show the others their shards; FILLED says so
    AWAIT   until all have filled
    ADD     one's own shard, of all ranks in their order; REDUCED says so; TAKE it
    AWAIT   of each other rank in turn, until it has added; TAKE its sums

Between two, `exchange`: FILL all that one has, which counts as both; AWAIT the other; ADD. A vector
without elements has one window too, or else ranks would part without having heard of each other.

**One outcome.** A rank returns the sum once REDUCED of every rank has come to the call's last
window. Counters only grow, and those of a rank that is dead, or that has given up and said so, are
frozen. If a frozen one is short, nobody returns the sum, then or later: whoever knows of it may
fail at once. If no frozen one is short, a failure that one knows of changes nothing: the living are
waited for, until one's patience ends. So all survivors have the sum, or none has. A rank that is
only said to be dead (it may be stopped, and go on) is not frozen: who has shown all its sums goes
on waiting, for another may have taken them; who has not can give up, since its own counter is then
short for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from ddp.call import Call
from ddp.elements import Array, combine, divide
from ddp.recorder import Record
from ddp.schedules.schedule import bounds


class Verb(IntEnum):
    """What a rank does next."""

    FILL = 0
    ADD = 1
    AWAIT = 2
    TAKE = 3


class Mark(IntEnum):
    """A counter of windows."""

    FILLED = 0
    REDUCED = 1


class Step(NamedTuple):
    """`window` counts from 1; `mark`: what is shown after it, or awaited; `rank`: of whom."""

    verb: Verb
    window: int
    mark: Mark
    rank: int = -1


@lru_cache(maxsize=256)
def program(rank: int, size: int, windows: int, exchange: bool) -> tuple[Step, ...]:
    """The steps of `rank` in one call."""
    others = [r for r in range(size) if r != rank]
    steps = []
    for window in range(1, windows + 1):
        if exchange:
            steps.append(Step(Verb.FILL, window, Mark.REDUCED))
            steps.append(Step(Verb.AWAIT, window, Mark.REDUCED, others[0]))
            steps.append(Step(Verb.ADD, window, Mark.REDUCED))
            continue
        steps.append(Step(Verb.FILL, window, Mark.FILLED))
        steps += [Step(Verb.AWAIT, window, Mark.FILLED, other) for other in others]
        steps.append(Step(Verb.ADD, window, Mark.REDUCED))
        steps.append(Step(Verb.TAKE, window, Mark.REDUCED, rank))
        for other in others:
            steps.append(Step(Verb.AWAIT, window, Mark.REDUCED, other))
            steps.append(Step(Verb.TAKE, window, Mark.REDUCED, other))
    return tuple(steps)


def windows_of(vector: Array, window_bytes: int) -> int:
    """How many it takes."""
    step = window_bytes // vector.itemsize
    return max(1, -(-len(vector) // step))


def hopeless(last: int, own: int, frozen: Iterable[int], *, alone: bool) -> bool:
    """Whether a rank that knows of a failure fails the call.

    Args:
        last: the call's last window.
        own: this rank's REDUCED.
        frozen: REDUCED of each rank that is dead or has given up.
        alone: no other rank is left that could have the sum.
    """
    ended = list(frozen)
    if alone or any(reduced < last for reduced in ended):
        return True
    return not ended and own < last


class Area(NamedTuple):
    """Of one rank: what it shows of its own, and what it has added. Elements of one window."""

    filled: Array
    reduced: Array


class Sum:
    """The numbers of one rank in one call.

    Args:
        first: windows before this call, on all ranks the same.
        areas: of all ranks; only one's own is written.
    """

    def __init__(
        self,
        call: Call,
        vector: Array,
        rank: int,
        areas: Sequence[Area],
        first: int,
        record: Record,
        *,
        exchange: bool,
    ) -> None:
        self.call, self.vector, self.rank, self.areas = call, vector, rank, areas
        self.first, self.record, self.exchange = first, record, exchange
        self.received = 0  # bytes
        self._elements = len(areas[rank].filled)
        self._phase = (0, Mark.FILLED)
        self._rounds = self._arrivals = 0

    def __repr__(self) -> str:
        return f"<Sum rank={self.rank}/{len(self.areas)} {self.call}>"

    def fill(self, window: int) -> None:
        """Show the others what they need of ours."""
        vector, area = self._window(window), self._shown(self.rank, window)
        if self.exchange:
            area[: len(vector)] = vector
            self.record.sent += vector.nbytes
            return
        lo, hi = self._shard(vector, self.rank)
        area[:lo] = vector[:lo]
        area[hi : len(vector)] = vector[hi:]
        self.record.sent += vector[:lo].nbytes + vector[hi:].nbytes

    def heard(self, window: int, mark: Mark) -> None:
        """Another rank has come so far: one arrival of this round."""
        if window != self._phase[0]:
            self._rounds = 0
        if (window, mark) != self._phase:
            self._phase = (window, mark)
            self._rounds += 1
            self._arrivals = 0
        self._arrivals += 1
        self.record.rounds = max(self.record.rounds, self._rounds)
        self.record.fan_in = max(self.record.fan_in, self._arrivals)

    def add(self, window: int) -> None:
        """Our shard of all ranks, in their order; all of it between two."""
        vector = self._window(window)
        lo, hi = (0, len(vector)) if self.exchange else self._shard(vector, self.rank)
        mine = vector[lo:hi]
        parts = [self._shown(r, window)[lo:hi] for r in range(len(self.areas))]
        self.received += sum(part.nbytes for part in parts) - mine.nbytes
        parts[self.rank] = mine
        sums = mine if self.exchange else self.areas[self.rank].reduced[: hi - lo]
        combine(self.call.op, self.call.dtype, parts[0], parts[1], sums)
        for part in parts[2:]:
            combine(self.call.op, self.call.dtype, sums, part, sums)
        if self.call.op == "mean":
            divide(self.call.dtype, sums, len(parts))
        if not self.exchange:
            self.record.sent += sums.nbytes * (len(parts) - 1)  # each other rank takes them

    def take(self, window: int, rank: int) -> None:
        """The sums of one rank; our own too, once the others can see them."""
        vector = self._window(window)
        lo, hi = self._shard(vector, rank)
        vector[lo:hi] = self.areas[rank].reduced[: hi - lo]
        if rank != self.rank:
            self.received += vector[lo:hi].nbytes

    def close(self) -> None:
        """Let go of the areas: the traceback of an error would hold them, and so the memory."""
        self.areas = ()

    def _window(self, window: int) -> Array:
        start = (window - 1) * self._elements
        return self.vector[start : start + self._elements]

    def _shard(self, vector: Array, rank: int) -> tuple[int, int]:
        starts = bounds(len(vector), len(self.areas))
        return starts[rank], starts[rank + 1]

    def _shown(self, rank: int, window: int) -> Array:
        """Between two the halves of the staging areas take turns: who shows window w + 1 has added
        w, so when both have shown it the place of w is free."""
        area = self.areas[rank]
        return area.reduced if self.exchange and (self.first + window) % 2 else area.filled

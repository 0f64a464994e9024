"""A sum through memory that all ranks see, without the memory: its steps, and who may give up when.

    program(rank, size, windows, way)         the steps of one rank, as data
    Sum(…).fill, .add, .take                  what they do to the numbers; each way has its own
    hopeless(…)                               whether a failure that is known ends the call

There are three ways. SHARDS, between ranks of any number, through windows of memory that all have
mapped. In each window:

    FILL    show the others their shards; FILLED says so
    AWAIT   until all have filled
    ADD     one's own shard, of all ranks in their order; REDUCED says so
    AWAIT   of each other rank in turn, until it has added; TAKE its sums

EXCHANGE, between two: FILL all that one has, which counts as both; AWAIT the other; ADD.

Before the first window all ranks meet over what they called. Who may (`fills_early`) has filled it
by then, so that one wait does for both.

REACH, where ranks may read one another's vectors (reach.py), so that nothing is copied first. There
is one window, the whole vector:

    ADD     one's own shard, of the vectors of all ranks; REDUCED says so
    AWAIT   of each other rank in turn, until it has added; TAKE its sums from its vector
    CHECK   whose vectors were read live, and have not given up: so they were theirs; TAKEN says so
    AWAIT   until all have taken: only then may a vector be its owner's again

A vector without elements has one window too, or else ranks would part without having heard of each
other.

**One outcome.** A rank returns the sum once the last mark of its way (REDUCED, of REACH TAKEN) of
every rank has come to the call's last window. Counters only grow, and those of a rank that is dead,
or that has given up and said so, are frozen. If a frozen one is short, nobody returns the sum, then
or later: whoever knows of it may fail at once. If no frozen one is short, a failure that one knows
of changes nothing: the living are waited for, until one's patience ends. So all survivors have the
sum, or none has. A rank that is only said to be dead (it may be stopped, and go on) is not frozen:
who has shown all its sums goes on waiting, for another may have taken them; who has not can give
up, since its own counter is then short for ever.

Who gives up has his vector back, and writes to it, while others may still read it. He has said so
before; so either CHECK sees it, or what was read before CHECK was right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from ddp.call import Call
from ddp.elements import Array, combiner, divide
from ddp.recorder import Record
from ddp.schedules.schedule import bounds


class Way(IntEnum):
    """How the numbers come together."""

    SHARDS = 0
    EXCHANGE = 1
    REACH = 2


class Verb(IntEnum):
    """What a rank does next."""

    FILL = 0
    ADD = 1
    AWAIT = 2
    TAKE = 3
    CHECK = 4


class Mark(IntEnum):
    """A counter of windows."""

    FILLED = 0
    REDUCED = 1
    TAKEN = 2


LAST_MARK: Final = {
    Way.SHARDS: Mark.REDUCED,
    Way.EXCHANGE: Mark.REDUCED,
    Way.REACH: Mark.TAKEN,
}


class Step(NamedTuple):
    """`window` counts from 1; `mark`: what is shown after it, or awaited; `rank`: of whom."""

    verb: Verb
    window: int
    mark: Mark
    rank: int = -1


@lru_cache(maxsize=256)
def program(rank: int, size: int, windows: int, way: Way) -> tuple[Step, ...]:
    """The steps of `rank` in one call."""
    others = [(rank + i) % size for i in range(1, size)]
    steps = []
    for window in range(1, windows + 1):
        if way is Way.EXCHANGE:
            steps.append(Step(Verb.FILL, window, Mark.REDUCED))
            steps.append(Step(Verb.AWAIT, window, Mark.REDUCED, others[0]))
            steps.append(Step(Verb.ADD, window, Mark.REDUCED))
            continue
        if way is Way.SHARDS:
            steps.append(Step(Verb.FILL, window, Mark.FILLED))
            steps += [Step(Verb.AWAIT, window, Mark.FILLED, other) for other in others]
        steps.append(Step(Verb.ADD, window, Mark.REDUCED))
        for other in others:
            steps.append(Step(Verb.AWAIT, window, Mark.REDUCED, other))
            steps.append(Step(Verb.TAKE, window, Mark.REDUCED, other))
        if way is Way.REACH:
            steps.append(Step(Verb.CHECK, window, Mark.TAKEN))
            steps += [Step(Verb.AWAIT, window, Mark.TAKEN, other) for other in others]
    return tuple(steps)


def fills_early(way: Way, before: Way | None) -> bool:
    """Whether a rank may FILL before it has met the others, as it does between windows.

    before: the way of what was staged last. After another one somebody may still read, in this
    area, what the next window overwrites.
    """
    return way is before


def hopeless(last: int, own: int, frozen: Iterable[int], *, alone: bool) -> bool:
    """Whether a rank that knows of a failure fails the call.

    Args:
        last: the call's last window.
        own: the last mark of this rank.
        frozen: the same of each rank that is dead or has given up.
        alone: no other rank is left that could have the sum.
    """
    ended = list(frozen)
    if alone or any(shown < last for shown in ended):
        return True
    return not ended and own < last


class Area(NamedTuple):
    """Of one rank: what it shows of its own, and what it has added. Elements of one window."""

    filled: Array
    reduced: Array


class Sum(ABC):
    """The numbers of one rank in one call, whichever way they come."""

    way: Way
    windows = 1

    def __init__(self, call: Call, vector: Array, rank: int, size: int, record: Record) -> None:
        self.call, self.vector, self.rank, self.size = call, vector, rank, size
        self.record = record
        self.received = 0  # bytes
        self._combine = combiner(call.op, call.dtype)
        self._phase = (0, Mark.FILLED)
        self._rounds = self._arrivals = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} rank={self.rank}/{self.size} {self.call}>"

    def fill(self, window: int) -> None:  # noqa: B027
        """Show the others what they need of ours, where they do not see it anyhow."""

    @abstractmethod
    def add(self, window: int) -> None:
        """Our shard of all ranks, in their order."""

    def take(self, window: int, rank: int) -> None:  # noqa: B027
        """The sums of another rank, where we do not add all ourselves."""

    def heard(self, window: int, mark: Mark) -> None:
        """What another rank has shown so far is here: one arrival of this round. TAKEN shows
        nothing but that it is over."""
        if mark is Mark.TAKEN:
            return
        if window != self._phase[0]:
            self._rounds = 0
        if (window, mark) != self._phase:
            self._phase = (window, mark)
            self._rounds += 1
            self._arrivals = 0
        self._arrivals += 1
        self.record.rounds = max(self.record.rounds, self._rounds)
        self.record.fan_in = max(self.record.fan_in, self._arrivals)

    def close(self) -> None:  # noqa: B027
        """Let go of memory that others gave: the traceback of an error would hold it."""

    def _fold(self, parts: Iterable[Array], mine: Array, room: Array) -> None:
        """Add all ranks' parts in their order, of which ours is `mine`, where the result ends.
        What comes before ours is added up in `room`."""
        total: Array | None = None
        for rank, part in enumerate(parts):
            if total is None:
                total = part
                continue
            into = mine if rank >= self.rank else room
            self._combine(total, part, out=into)
            total = into
        if self.call.op == "mean":
            divide(self.call.dtype, mine, self.size)

    def _shard(self, vector: Array, rank: int) -> tuple[int, int]:
        starts = _starts(len(vector), self.size)
        return starts[rank], starts[rank + 1]


@lru_cache(maxsize=256)
def _starts(count: int, ranks: int) -> list[int]:
    """Of shards; nobody changes it."""
    return bounds(count, ranks)


class StagedSum(Sum):
    """Through windows.

    Args:
        areas: of all ranks; only one's own is written.
        first: windows before this call, on all ranks the same.
    """

    def __init__(
        self,
        call: Call,
        vector: Array,
        rank: int,
        areas: Sequence[Area],
        first: int,
        record: Record,
    ) -> None:
        super().__init__(call, vector, rank, len(areas), record)
        self.areas, self.first = areas, first
        self._elements = self._at_a_time(len(areas[rank].filled))
        self.windows = max(1, -(-len(vector) // self._elements))

    def close(self) -> None:
        """See Sum."""
        self.areas = ()

    def _at_a_time(self, room: int) -> int:
        """Elements of a window, in areas of so many: half of it, so that what is read and written
        of all the areas leaves room in a cache."""
        return max(1, room // 2)

    def _window(self, window: int) -> Array:
        start = (window - 1) * self._elements
        return self.vector[start : start + self._elements]


class ShardSum(StagedSum):
    """Way.SHARDS."""

    way = Way.SHARDS

    def fill(self, window: int) -> None:
        """See Sum."""
        vector, area = self._window(window), self.areas[self.rank].filled
        lo, hi = self._shard(vector, self.rank)
        area[:lo] = vector[:lo]
        area[hi : len(vector)] = vector[hi:]
        self.record.sent += vector.nbytes - vector[lo:hi].nbytes

    def add(self, window: int) -> None:
        """See Sum. The sums are ours at once, and are shown by a copy: to add into memory that
        others have just read costs twice as much as to copy there."""
        vector = self._window(window)
        lo, hi = self._shard(vector, self.rank)
        mine, room = vector[lo:hi], self.areas[self.rank].reduced[: hi - lo]
        parts = [area.filled[lo:hi] for area in self.areas]
        parts[self.rank] = mine
        self._fold(parts, mine, room)
        room[:] = mine
        others = mine.nbytes * (self.size - 1)
        self.received += others
        self.record.sent += others  # each of them takes our sums

    def take(self, window: int, rank: int) -> None:
        """See Sum."""
        vector = self._window(window)
        lo, hi = self._shard(vector, rank)
        theirs = self.areas[rank].reduced[: hi - lo]
        vector[lo:hi] = theirs
        self.received += theirs.nbytes

    def _at_a_time(self, room: int) -> int:
        """A vector that fits goes at once: with fewer waits, and these cost more than the cache
        gives where ranks outnumber cores."""
        return room if len(self.vector) <= room else super()._at_a_time(room)


class ExchangeSum(StagedSum):
    """Way.EXCHANGE. The areas take turns: who shows window w + 1 has added w, so when both have
    shown it the place of w is free."""

    way = Way.EXCHANGE

    def fill(self, window: int) -> None:
        """See Sum; all that we have."""
        vector = self._window(window)
        self._area(self.rank, window)[: len(vector)] = vector
        self.record.sent += vector.nbytes

    def add(self, window: int) -> None:
        """See Sum; on both sides all of it, with the lower rank on the left."""
        mine = self._window(window)
        theirs = self._area(1 - self.rank, window)[: len(mine)]
        self._fold((mine, theirs) if self.rank == 0 else (theirs, mine), mine, mine)
        self.received += mine.nbytes

    def _area(self, rank: int, window: int) -> Array:
        area = self.areas[rank]
        return area.reduced if (self.first + window) % 2 else area.filled

"""What a total may be: no less than what was surely added, no more than what may have been.

    add 3   ├────┤
    add 2      ├──────────────── …       nobody knows what became of it
    add 1                   ├────┤
    read               ├──────┤          3 is surely in it, 2 and 1 may be: 3 to 6

An addition that was answered before a read began is in it. One that was asked for before the read
ended may be in it, unless it failed. What is taken away is an addition below zero, and the same
holds the other way round.

A read is evidence too. One that was answered before another began has settled what was in it, so
the other can differ from it only by what was done meanwhile:

    add 2   ├──────────────────── …
    read -> 2    ├──┤
    read               ├──┤              2 again: what nobody knew of was there

The bounds of all earlier reads are held as the best of a few sums, so that a hundred thousand
operations need no more than sorting.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cluster.verify.history import OK, Operation


class Change(NamedTuple):
    """What an operation that may have been done adds."""

    operation: Operation
    amount: int


class Total(NamedTuple):
    """What a read has told."""

    read: Operation
    total: int


class Misfit(NamedTuple):
    """A total that cannot be. `after` is the earlier read that shows it, if one is needed."""

    read: Operation
    total: int
    low: float  # whole, or infinite if there is no such bound
    high: float
    after: Operation | None


class _Bound(NamedTuple):
    value: float
    after: Operation | None


def misfits(
    changes: Sequence[Change], totals: Iterable[Total], start: int | None = 0
) -> Iterator[Misfit]:
    """The reads of one total that cannot be, in the order of their calls; O(n log n).

    Args:
        changes: all that may have been done, without what failed.
        start: the total before everything; None: nobody knows, and the first reads tell.
    """
    sums = _Changes(changes)
    by_call = sorted(totals, key=lambda item: item.read.called)
    by_return = sorted(by_call, key=lambda item: item.read.returned)
    known = _Known(sums, start)
    wrong: set[int] = set()
    settled = 0
    for read, total in by_call:
        while by_return[settled].read.returned < read.called:
            earlier = by_return[settled]
            settled += 1
            if earlier.read.index not in wrong:  # or each after it would look wrong too
                known.settle(earlier)
        low, high = known.bounds(read)
        if not low.value <= total <= high.value:
            wrong.add(read.index)
            after = (low if total < low.value else high).after
            yield Misfit(read, total, low.value, high.value, after)


class _Known:
    """What the reads so far say about any read that begins after them.

    For a later read that is called at c and answered at r, each earlier one, of total t, says

        t - less_sure - more_maybe + less_maybe(r) + more_sure(c)  <= total, and without the
        t - less_sure              + less_maybe(r)                 <= total  sure ones, the same

    where what has no argument is of the earlier read; and likewise from above.
    """

    def __init__(self, sums: _Changes, start: int | None) -> None:
        self._sums = sums
        low = -math.inf if start is None else start
        high = math.inf if start is None else start
        self._low, self._low_sure = _Bound(low, None), _Bound(low, None)
        self._high, self._high_sure = _Bound(high, None), _Bound(high, None)

    def settle(self, earlier: Total) -> None:
        read, sums = earlier.read, self._sums
        low = earlier.total - sums.less_sure.before(read.called)
        high = earlier.total - sums.more_sure.before(read.called)
        low_sure = low - sums.more_maybe.until(read.returned)
        high_sure = high - sums.less_maybe.until(read.returned)
        self._low = max(self._low, _Bound(low, read), key=_value)
        self._low_sure = max(self._low_sure, _Bound(low_sure, read), key=_value)
        self._high = min(self._high, _Bound(high, read), key=_value)
        self._high_sure = min(self._high_sure, _Bound(high_sure, read), key=_value)

    def bounds(self, read: Operation) -> tuple[_Bound, _Bound]:
        sums = self._sums
        less, more = sums.less_maybe.until(read.returned), sums.more_maybe.until(read.returned)
        less_sure, more_sure = (
            sums.less_sure.before(read.called),
            sums.more_sure.before(read.called),
        )
        low = max(
            _Bound(self._low_sure.value + less + more_sure, self._low_sure.after),
            _Bound(self._low.value + less, self._low.after),
            key=_value,
        )
        high = min(
            _Bound(self._high_sure.value + more + less_sure, self._high_sure.after),
            _Bound(self._high.value + more, self._high.after),
            key=_value,
        )
        return low, high


def _value(bound: _Bound) -> float:
    return bound.value


class _Changes:
    """What was added (more) and taken away (less), surely or perhaps, as sums over time."""

    def __init__(self, changes: Sequence[Change]) -> None:
        sure = [change for change in changes if change.operation.outcome == OK]
        self.more_sure = _Sums([(c.operation.returned, max(0, c.amount)) for c in sure])
        self.less_sure = _Sums([(c.operation.returned, min(0, c.amount)) for c in sure])
        self.more_maybe = _Sums([(c.operation.called, max(0, c.amount)) for c in changes])
        self.less_maybe = _Sums([(c.operation.called, min(0, c.amount)) for c in changes])


class _Sums:
    """Sums of all amounts up to a time."""

    def __init__(self, amounts: list[tuple[float, int]]) -> None:
        amounts.sort()
        self._times = [time for time, _ in amounts]
        self._sums = [0, *itertools.accumulate(amount for _, amount in amounts)]

    def before(self, time: float) -> int:
        """What is answered at the very moment of a call is beside it, not before it."""
        return self._sums[bisect_left(self._times, time)]

    def until(self, time: float) -> int:
        """And so is what is called at the very moment of an answer."""
        return self._sums[bisect_right(self._times, time)]

"""A counter: every read must lie between what was surely added and what may have been.

    {"f": "add", "value": 3}          may be negative
    {"f": "read"}  ->  42             the total

An addition that was answered before a read began is in it. One that was asked for before the read
ended may be in it, unless it failed. Everything between is possible, nothing else: a total that is
too low has lost an addition, one that is too high has counted one twice.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Sequence

from cluster.verify.finding import Finding
from cluster.verify.history import FAIL, OK, Operation
from cluster.verify.linear import INVALID, VALID

CHECK = "counter"


def judge_counter(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all reads; O(n log n). The counter begins at 0."""
    adds = [op for op in history if op.f == "add" and op.outcome != FAIL]
    reads = [op for op in history if op.f == "read" and op.outcome == OK]
    sure = [op for op in adds if op.outcome == OK]
    more_sure = _Sums(sure, lambda op: op.returned, lambda op: max(0, op.value))
    less_sure = _Sums(sure, lambda op: op.returned, lambda op: min(0, op.value))
    more_asked = _Sums(adds, lambda op: op.called, lambda op: max(0, op.value))
    less_asked = _Sums(adds, lambda op: op.called, lambda op: min(0, op.value))
    findings = []
    for read in reads:
        low = more_sure.before(read.called) + less_asked.before(read.returned)
        high = more_asked.before(read.returned) + less_sure.before(read.called)
        if not low <= read.result <= high:
            what = "an addition was lost" if read.result < low else "one was counted twice"
            sentence = f"{read} should be {low} to {high}: {what}"
            findings.append(Finding(CHECK, INVALID, sentence, [read]))
    return findings or [Finding(CHECK, VALID, f"{len(reads):,} reads of {len(adds):,} additions")]


class _Sums:
    """Sums of amounts of all operations before a time."""

    def __init__(
        self,
        operations: Sequence[Operation],
        time: Callable[[Operation], float],
        amount: Callable[[Operation], int],
    ) -> None:
        ordered = sorted(operations, key=time)
        self._times = [time(op) for op in ordered]
        self._sums = [0, *itertools.accumulate(amount(op) for op in ordered)]

    def before(self, time: float) -> int:
        return self._sums[bisect_left(self._times, time)]

"""Counters: every read lies between what was surely added and what may have been (totals.py).

    {"f": "add", "value": 3}          a whole number, also below zero
    {"f": "read"}  ->  42             the total

A counter, one for each `key`, begins at 0. A total that is too low has lost an addition; one that
is too high has counted one twice, as happens when a request is sent again without being known.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from cluster.verify.finding import Finding, told
from cluster.verify.history import FAIL, OK, HistoryError, Operation
from cluster.verify.linear import INVALID, UNSURE, VALID
from cluster.verify.totals import Change, Misfit, Total, misfits

CHECK = "counter"

# Of the adds that a read may have seen or not so many are named, out of so many.
NAMED_MAX = 3
LOOK_BACK = 100


def judge_counter(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all reads of all counters; raises HistoryError for what is no number."""
    by_key: dict[object, list[Operation]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    return [finding for operations in by_key.values() for finding in _judge_one(operations)]


def _judge_one(history: Sequence[Operation]) -> list[Finding]:
    adds = _Adds([op for op in history if op.f == "add" and op.outcome != FAIL])
    changes = [Change(op, _number(op, op.value)) for op in adds.by_call]
    totals = [
        Total(op, _number(op, op.result)) for op in history if op.f == "read" and op.outcome == OK
    ]
    findings = told(CHECK, (_wrong(misfit, adds) for misfit in misfits(changes, totals)))
    summary = f"{len(totals):,} reads of {len(changes):,} additions"
    # Nobody loses what was never added.
    first = min((c.operation.called for c in changes if c.amount), default=math.inf)
    seen = any(total.read.returned >= first for total in totals)
    return findings or [Finding(CHECK, VALID if seen else UNSURE, summary)]


class _Adds:
    """The additions of one counter: how many a read may have seen, and which."""

    def __init__(self, adds: Sequence[Operation]) -> None:
        self.by_call = sorted(adds, key=lambda op: op.called)
        self._returns = sorted(op.returned for op in adds if op.outcome == OK)
        self.only_more = all(op.value >= 0 for op in adds)

    def sure(self, read: Operation) -> int:
        """How many had been acknowledged when it began."""
        return bisect_left(self._returns, read.called)

    def asked(self, read: Operation) -> int:
        """How many had been asked for when it ended."""
        return bisect_right(self.by_call, read.returned, key=lambda op: op.called)

    def unsure(self, read: Operation) -> list[Operation]:
        """The last few that it may have seen or not."""
        last = self.by_call[max(0, self.asked(read) - LOOK_BACK) : self.asked(read)]
        return [op for op in last if op.returned >= read.called][-NAMED_MAX:]


def _wrong(misfit: Misfit, adds: _Adds) -> Finding:
    """What was sure by then, what was not, what follows, and what was read."""
    read, low, high = misfit.read, misfit.low, misfit.high
    sure, unsure = adds.sure(read), adds.asked(read) - adds.sure(read)
    named = adds.unsure(read)
    which = f" ({', '.join(map(repr, named))})" if named else ""
    after = f" after {misfit.after}" if misfit.after else ""
    may_be = f"must be {low}" if low == high else f"may be {low} to {high}"
    sentence = (
        f"{read}: {sure:,} adds were acknowledged and {unsure:,} unsure{which}:"
        f" the total{after} {may_be}, and is {misfit.total}: {_fate(misfit, adds)}"
    )
    return Finding(CHECK, INVALID, sentence, [*named, read])


def _fate(misfit: Misfit, adds: _Adds) -> str:
    if misfit.total < misfit.low:
        return "one was lost" if adds.only_more else "one was lost, or one below zero repeated"
    return "one was counted twice" if adds.only_more else "one was repeated, or one below zero lost"


def _number(op: Operation, value: object) -> int:
    if type(value) is not int:
        raise HistoryError(f"{op!r}: a counter adds and reads whole numbers, not {value!r}")
    return value

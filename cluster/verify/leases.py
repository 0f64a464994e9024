"""Leases: nobody gets what another may still believe to have, and old tokens are worth nothing.

    {"f": "acquire", "key": "job"}                ->  {"token": 12, "until": 4.5}, or null
    {"f": "renew",   "key": "job", "value": 12}   ->  6.1          until then, or null
    {"f": "work",    "key": "job", "value": 12}   ->  true         whether the token was accepted
    {"f": "release", "key": "job", "value": 12}   ->  true

`until` is what a holder may believe by its own clock: the moment before it asked, and the length
of the lease. Times are those of the history.

    holders   two never believe to hold the same thing. This is a promise about clocks: it cannot
              be kept where they run at another rate
    tokens    a greater token was given to each later holder, and once work was accepted under one,
              none is accepted under a smaller one. This holds whatever clocks do (fencing)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cluster.verify.finding import Finding, told
from cluster.verify.history import OK, HistoryError, Operation
from cluster.verify.linear import INVALID, UNSURE, VALID

CHECK = "leases"


@dataclass(slots=True)
class _Hold:
    """One holder's belief: from `acquire.returned` to `until`, as the last renewal has it."""

    acquire: Operation
    token: int
    until: float
    by: Operation  # what it has the `until` from

    def __repr__(self) -> str:
        return (
            f"process {self.acquire.process} (token {self.token}, acquired at"
            f" {self.acquire.returned:.3f}, until {self.until:.3f} by {self.by})"
        )


def judge_leases(history: Sequence[Operation]) -> list[Finding]:
    """Findings about each thing that can be held; raises HistoryError for another form."""
    by_key: dict[Any, list[Operation]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    findings: list[Finding] = []
    count = worked = 0
    for key, operations in by_key.items():
        holds = _holds(operations)
        count += len(holds)
        findings += told(CHECK, _overlaps(key, holds))
        works = [op for op in operations if op.f == "work" and op.outcome == OK and op.result]
        worked += len(works)
        findings += told(CHECK, _unfenced(key, works))
    if findings:
        return findings
    summary = f"{count:,} holders, never two at once; {worked:,} times their token was accepted"
    # Who holds something alone proves nothing.
    return [Finding(CHECK, VALID if count > 1 else UNSURE, summary)]


def _holds(operations: Sequence[Operation]) -> list[_Hold]:
    """By the order in which they were acquired."""
    holds: dict[int, _Hold] = {}
    for op in operations:
        if op.f == "acquire" and op.outcome == OK and op.result is not None:
            token, until = _acquired(op)
            holds[token] = _Hold(op, token, until, op)
    for op in operations:
        hold = holds.get(op.value)
        if op.f != "renew" or op.outcome != OK or op.result is None or hold is None:
            continue
        if op.result > hold.until:
            hold.until, hold.by = op.result, op
    for op in operations:
        hold = holds.get(op.value)
        if op.f == "release" and hold is not None and op.called < hold.until:
            # From here on it does not believe anything, whatever the answer was.
            hold.until, hold.by = op.called, op
    return sorted(holds.values(), key=lambda hold: hold.acquire.returned)


def _overlaps(key: Any, holds: Sequence[_Hold]) -> Iterator[Finding]:
    """Whoever acquires while another believes. Only the longest belief so far matters."""
    longest: _Hold | None = None
    for hold in holds:
        if longest is not None and hold.acquire.returned < longest.until:
            sentence = f"{key} had two holders: {longest}, and {hold}"
            where = [longest.acquire, longest.by, hold.acquire]
            yield Finding(CHECK, INVALID, sentence, list(dict.fromkeys(where)))
        if longest is None or hold.until > longest.until:
            longest = hold
    for before, after in pairwise(holds):
        if before.acquire.returned < after.acquire.called and before.token >= after.token:
            sentence = f"{key}: token {after.token} was given after {before.token}"
            yield Finding(CHECK, INVALID, sentence, [before.acquire, after.acquire])


def _unfenced(key: Any, works: Sequence[Operation]) -> Iterator[Finding]:
    """Work accepted under a token when work under a greater one had been accepted before."""
    ended = sorted(works, key=lambda op: op.returned)
    greatest: Operation | None = None
    done = 0
    for op in sorted(works, key=lambda op: op.called):
        while ended[done].returned < op.called:
            if greatest is None or ended[done].value > greatest.value:
                greatest = ended[done]
            done += 1
        if greatest is not None and op.value < greatest.value:
            sentence = f"{key}: {op} was accepted after {greatest}: the token was worth nothing"
            yield Finding(CHECK, INVALID, sentence, [greatest, op])


def _acquired(op: Operation) -> tuple[int, float]:
    try:
        answer: Mapping[str, Any] = dict(op.result)
        return answer["token"] + 0, answer["until"] + 0.0
    except (TypeError, ValueError, KeyError):
        raise HistoryError(f"{op!r}: an acquire answers with null, or token and until") from None

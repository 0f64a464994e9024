"""Queues whose order does not matter: what went in comes out, once (Jepsen's total-queue).

    {"f": "enqueue", "value": 7}
    {"f": "dequeue"}  ->  7           null: there was nothing in it
    {"f": "drain"}    ->  [8, 9]      all that is left; only then can something be missed

    lost          acknowledged, and not in the queue when it was found empty, nor taken before
    duplicated    taken more often than it was put in
    unexpected    taken, and nobody had put it in by then, or that had failed
    recovered     of the unsure ones, those that came out

A dequeue or a drain of which nobody knows may have taken something along. So of what is missing,
as many elements as there were such dequeues are not called lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.verify.finding import Finding, told
from cluster.verify.history import FAIL, INFO, OK, HistoryError, Operation
from cluster.verify.linear import INVALID, UNSURE, VALID

CHECK = "total queue"

# Elements that are named in one sentence.
NAMED_MAX = 5


@dataclass(slots=True)
class _Element:
    """Who put it in, and who took it out."""

    put: list[Operation] = field(default_factory=list)
    taken: list[Operation] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[Operation]:
        return [op for op in self.put if op.outcome == OK]

    @property
    def possible(self) -> list[Operation]:
        return [op for op in self.put if op.outcome != FAIL]


def judge_total_queue(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all elements of each queue (`key`)."""
    by_key: dict[object, list[Operation]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    return [finding for operations in by_key.values() for finding in _judge_one(operations)]


def _judge_one(history: Sequence[Operation]) -> list[Finding]:
    elements: dict[Any, _Element] = {}
    empty_at = -math.inf  # the last call that found nothing left
    for op in history:
        if op.f == "enqueue":
            elements.setdefault(op.value, _Element()).put.append(op)
        elif op.outcome == OK:
            for value in _taken(op):
                elements.setdefault(value, _Element()).taken.append(op)
            if op.f == "drain" or op.result is None:
                empty_at = max(empty_at, op.called)
    findings = [
        *told(CHECK, _unexpected(elements)),
        *told(CHECK, _duplicated(elements)),
        *_lost(elements, empty_at, [op for op in history if op.outcome == INFO]),
    ]
    if findings:
        return findings
    put = sum(len(element.acknowledged) for element in elements.values())
    taken = sum(len(element.taken) for element in elements.values())
    recovered = sum(
        max(0, len(element.taken) - len(element.acknowledged)) for element in elements.values()
    )
    summary = (
        f"{put:,} were put in, {taken:,} taken out, {recovered:,} of them recovered;"
        f" {put + recovered - taken:,} still in it"
    )
    return [Finding(CHECK, VALID if taken else UNSURE, summary)]


def _taken(op: Operation) -> tuple[Any, ...]:
    if op.f == "dequeue":
        return () if op.result is None else (op.result,)
    if not isinstance(op.result, tuple):
        raise HistoryError(f"{op!r}: a drain answers with a list of what was left")
    return op.result


def _unexpected(elements: dict[Any, _Element]) -> Iterator[Finding]:
    for value, element in elements.items():
        asked = min((op.called for op in element.possible), default=math.inf)
        for op in element.taken:
            if op.returned < asked:
                failed = bool(element.put) and not element.possible
                why = "putting it in had failed" if failed else "nobody had put it in"
                sentence = f"{value!r} came out at {op.returned:.3f}, and {why}"
                yield Finding(CHECK, INVALID, sentence, [*element.put[:1], op])


def _duplicated(elements: dict[Any, _Element]) -> Iterator[Finding]:
    for value, element in elements.items():
        put, taken = len(element.possible), len(element.taken)
        if taken > put > 0:
            sentence = f"{value!r} was put in {put} times at most, and came out {taken} times"
            yield Finding(CHECK, INVALID, sentence, [*element.possible, *element.taken])


def _lost(
    elements: dict[Any, _Element], empty_at: float, unsure: Sequence[Operation]
) -> list[Finding]:
    missing: list[Operation] = []
    for element in elements.values():
        # The last ones: the earlier ones are those that were taken.
        left = element.acknowledged[len(element.taken) :]
        missing += [op for op in left if op.returned < empty_at]
    if not missing:
        return []
    named = ", ".join(repr(op.value) for op in missing[:NAMED_MAX])
    named += ", …" * (len(missing) > NAMED_MAX)
    sentence = f"{len(missing):,} were acknowledged and did not come out ({named})"
    drains = sum(op.f == "drain" for op in unsure)
    perhaps = sum(op.f == "dequeue" for op in unsure)
    if drains or perhaps >= len(missing):
        why = "a drain" if drains else f"{perhaps} dequeues"
        return [Finding(CHECK, UNSURE, f"{sentence}; {why} of unknown outcome may have them")]
    if perhaps:
        sentence += f"; {perhaps} dequeues of unknown outcome may have as many"
    lost = len(missing) - perhaps
    return [Finding(CHECK, INVALID, f"{sentence}: {lost:,} were lost", missing[:NAMED_MAX])]

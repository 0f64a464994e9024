"""A set that only grows: what became of each element (Jepsen's set-full).

    {"f": "add", "value": 7}
    {"f": "read"}  ->  [1, 2, 7]      all of it

    add 7   ├──┤
    reads          [7]   [7]   []   []       lost: from some read on it is not there any more
                   []    [7]   []   [7]      stale: it was away, and came back
               []                            never read: none began after it was acknowledged

From then on an element must be there: when adding it was acknowledged, or when a read had shown
it. An addition of which nobody knows may be there or not (*recovered* if it is); one that failed,
or that nobody had asked for when the read ended, is *from nowhere*; none is in a read twice.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple

from cluster.verify.finding import Finding, told
from cluster.verify.history import FAIL, OK, HistoryError, Operation
from cluster.verify.linear import INVALID, UNSURE, VALID

CHECK = "set"

# What becomes of an element.
KEPT, STALE, LOST, NEVER_READ, RECOVERED, UNSEEN = FATES = (
    "kept", "stale", "lost", "never read", "recovered", "unsure and not seen",
)  # fmt: skip
SHOWN: Final = FATES[:-1]


@dataclass(slots=True)
class _Element:
    """What is known of one; `seen` are places among the reads in the order of their calls."""

    add: Operation | None = None
    asked: float = math.inf  # when adding it was begun, unless it failed
    there: float = math.inf  # from when on it must be there
    acknowledged: bool = False
    seen: list[int] = field(default_factory=list)


class _Wrong(NamedTuple):
    """`what` became of an element, and the read that shows it."""

    what: str
    read: Operation
    add: Operation | None


def judge_set(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all elements of each set (`key`), in one pass over all that was read."""
    by_key: dict[object, list[Operation]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    return [finding for operations in by_key.values() for finding in _judge_one(operations)]


def _judge_one(history: Sequence[Operation]) -> list[Finding]:
    reads = sorted(
        (op for op in history if op.f == "read" and op.outcome == OK), key=lambda op: op.called
    )
    elements: dict[Any, _Element] = {}
    for op in history:
        if op.f == "add":
            _ask(elements.setdefault(op.value, _Element()), op)
    strange = [wrong for place in range(len(reads)) for wrong in _see(elements, reads, place)]
    fates: Counter[str] = Counter()
    missing = []
    for value, element in elements.items():
        fate, absent = _fate(element, reads)
        fates[fate] += 1
        if absent is not None:
            missing.append(_Wrong(_told(value, fate, element), absent, element.add))
    key = "" if history[0].key is None else f"{history[0].key}: "
    numbers = ", ".join(f"{fates[fate]:,} {fate}" for fate in SHOWN)
    summary = f"{key}{len(elements):,} elements in {len(reads):,} reads: {numbers}"
    if strange or missing:
        details = told(CHECK, map(_finding, chain(missing, strange)))
        return [Finding(CHECK, INVALID, summary), *details]
    return [Finding(CHECK, VALID if fates[KEPT] else UNSURE, summary)]


def _ask(element: _Element, add: Operation) -> None:
    """One more attempt to add it: an element that failed may be tried again."""
    element.add = element.add or add
    if add.outcome == FAIL:
        return
    element.asked = min(element.asked, add.called)
    if add.outcome == OK:
        element.acknowledged = True
        element.there = min(element.there, add.returned)


def _see(elements: dict[Any, _Element], reads: Sequence[Operation], place: int) -> Iterator[_Wrong]:
    """Note what a read has shown; yields what cannot be in it."""
    read = reads[place]
    if not isinstance(read.result, tuple):
        raise HistoryError(f"{read!r}: a read of a set answers with a list of its elements")
    content = dict.fromkeys(read.result)
    if len(content) < len(read.result):
        for value, count in Counter(read.result).items():
            if count > 1:
                yield _Wrong(f"has {value!r} {count} times", read, None)
    for value in content:
        element = elements.get(value)
        if element is None or element.asked > read.returned:
            failed = element is not None and element.asked == math.inf
            why = "adding it had failed" if failed else "nobody had added it"
            yield _Wrong(f"has {value!r}, and {why}", read, element.add if element else None)
            continue
        element.seen.append(place)
        element.there = min(element.there, read.returned)


def _fate(element: _Element, reads: Sequence[Operation]) -> tuple[str, Operation | None]:
    """What became of it, and the first read in which it is missing."""
    first = bisect_right(reads, element.there, key=lambda read: read.called)
    late = element.seen[bisect_left(element.seen, first) :]
    if len(late) < len(reads) - first:
        absent = sorted(set(range(first, len(reads))) - set(late))
        came_back = bool(late) and late[-1] > absent[-1]
        return (STALE if came_back else LOST), reads[absent[0]]
    if not element.acknowledged:
        return (RECOVERED if element.seen else UNSEEN), None
    return (KEPT if element.seen else NEVER_READ), None


def _told(value: Any, fate: str, element: _Element) -> str:
    assert element.add is not None  # or it would be from nowhere
    known = "acknowledged" if element.acknowledged else "seen"
    told = f"has not {value!r}, which was {known} at {element.there:.3f} at the latest"
    return f"{told}, and came back" if fate == STALE else f"{told}: it was lost"


def _finding(wrong: _Wrong) -> Finding:
    read, add = wrong.read, wrong.add
    who = f"the read that process {read.process} began at {read.called:.3f}"
    return Finding(CHECK, INVALID, f"{who} {wrong.what}", [*([add] if add else []), read])

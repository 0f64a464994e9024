"""A set that only grows: what became of each element (Jepsen's set-full).

    {"f": "add", "value": 7}          each element is added once
    {"f": "read"}  ->  [1, 2, 7]      all of it

    lost          acknowledged or seen before a read began that does not have it, nor a later one
    stale         the same, but a later read has it again
    from nowhere  read, and nobody had asked for it by then, or the addition had failed
    twice         in one read more than once

An addition of which nobody knows may be there or not; seen once, it must stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.verify.finding import Finding
from cluster.verify.history import FAIL, OK, Operation
from cluster.verify.linear import INVALID, VALID

CHECK = "set"


def judge_set(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all elements of each set (`key`); reads × elements."""
    keys = dict.fromkeys(op.key for op in history)
    return [f for key in keys for f in _judge_one([op for op in history if op.key == key])]


def _judge_one(history: Sequence[Operation]) -> list[Finding]:
    adds = {op.value: op for op in history if op.f == "add"}
    reads = sorted(
        (op for op in history if op.f == "read" and op.outcome == OK), key=lambda op: op.called
    )
    findings = [*_strange(adds, reads), *_missing(adds, reads)]
    if findings:
        return findings
    unsure = sum(op.outcome not in (OK, FAIL) for op in adds.values())
    told = f"{len(adds):,} elements, {unsure} of them unsure, in {len(reads):,} reads"
    return [Finding(CHECK, VALID, told)]


def _strange(adds: dict[Any, Operation], reads: Sequence[Operation]) -> Iterator[Finding]:
    for read in reads:
        for element, count in Counter(read.result).items():
            add = adds.get(element)
            if count > 1:
                yield _wrong(f"{element!r} is in it {count} times", read)
            if add is None or add.called > read.returned:
                yield _wrong(f"{element!r} is in it, and nobody had added it", read)
            elif add.outcome == FAIL:
                yield _wrong(f"{element!r} is in it, and adding it had failed", read, add)


def _missing(adds: dict[Any, Operation], reads: Sequence[Operation]) -> Iterator[Finding]:
    contents = [frozenset(read.result) for read in reads]
    for element, add in adds.items():
        if add.outcome == FAIL:
            continue
        # From then on it must be there: it was acknowledged, or a read had shown it.
        shown = [add.returned] if add.outcome == OK else []
        shown += [r.returned for r, had in zip(reads, contents, strict=True) if element in had]
        if not shown:
            continue
        since = min(shown)
        late = [
            place
            for place, (read, had) in enumerate(zip(reads, contents, strict=True))
            if read.called > since and element not in had
        ]
        if late:
            again = any(element in had for had in contents[late[-1] + 1 :])
            fate = "is missing from it, and came back" if again else "was lost"
            yield _wrong(f"{element!r} {fate}", reads[late[0]], add)


def _wrong(what: str, read: Operation, *more: Operation) -> Finding:
    asked = f"the read that process {read.process} began at {read.called:.3f}"
    return Finding(CHECK, INVALID, f"{asked}: {what}", [*more, read])

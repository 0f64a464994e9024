"""Watches: whoever follows a range is told of every change of it, in order, whole and once.

    {"f": "put",    "key": "w/1", "value": "7"}  ->  12              the revision it has
    {"f": "commit", "value": {"w/1": "8", …}}    ->  12              several at one revision
    {"f": "delete", "key": "w/1"}                ->  [true, 13]      whether it was there, and that
    {"f": "watch",  "key": "w/", "value": 12}    ->  [[12, "w/1", "7"], [13, "w/1", null]]
    {"f": "compact", "value": 20}                ->  null            forget what came up to there
    {"f": "gap",    "key": "w/", "value": 14}    ->  21              what it asked for is gone

A watch is told by a follower (`process`) each time it gets something: `value` is the revision that
it had asked to begin with, and may be later than the last it knows if it does not want the rest.

    ordered     revisions never go back
    unique      no revision comes twice, nor in two parts (so what one transaction did comes whole)
    complete    what lies between what it asked for and what it was told of is there: every change
                that was acknowledged, and every one that another follower was told of
    true        nothing but what somebody had asked for by then
    forgotten   only what somebody wanted to be, by then
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cluster.verify.finding import Finding, told
from cluster.verify.history import FAIL, OK, HistoryError, Operation
from cluster.verify.linear import INVALID, UNSURE, VALID

CHECK = "watches"


class _Change(NamedTuple):
    revision: int
    key: Any
    value: Any  # None: deleted

    def __repr__(self) -> str:
        done = "delete" if self.value is None else "put"
        value = "" if self.value is None else f" {self.value!r}"
        return f"{done} {self.key}{value} at revision {self.revision}"


class _Told(NamedTuple):
    """What came at once, and the revision from which on the follower was owed everything."""

    operation: Operation
    changes: tuple[_Change, ...]
    owed_from: int


def judge_watches(history: Sequence[Operation]) -> list[Finding]:
    """Findings about all followers; raises HistoryError for an answer of another form."""
    writes = [op for op in history if op.f in ("put", "commit", "delete")]
    followers: dict[Any, list[Operation]] = {}
    for op in history:
        if op.f == "watch" and op.outcome == OK and op.result:
            followers.setdefault((op.process, op.key), []).append(op)
    batches: list[_Told] = []
    findings: list[Finding] = []
    for tellings in followers.values():
        findings += told(CHECK, _out_of_order(tellings, batches))
    known = _known(writes, batches)
    findings += told(CHECK, _missed(batches, known))
    findings += told(CHECK, _untrue(batches, writes))
    findings += told(CHECK, _gone_too_early(history))
    if findings:
        return findings
    count = sum(len(batch.changes) for batch in batches)
    summary = f"{len(followers):,} followers were told of {count:,} changes, in order, each once"
    return [Finding(CHECK, VALID if count else UNSURE, summary)]


def _out_of_order(tellings: Sequence[Operation], batches: list[_Told]) -> Iterator[Finding]:
    """What comes too late, twice or in parts; adds what was told to `batches`."""
    last: int | None = None
    before: Operation | None = None
    for op in sorted(tellings, key=lambda op: op.index):
        changes = _changes(op)
        revisions = [change.revision for change in changes]
        owed_from = op.value if last is None else max(op.value, last + 1)
        if before is not None and last is not None and revisions[0] <= last:
            how = "a part of it had come" if revisions[0] == last else f"{last} had come"
            sentence = f"{op}: revision {revisions[0]} came after {how} in {before}"
            yield Finding(CHECK, INVALID, sentence, [before, op])
        elif revisions[0] < op.value:
            sentence = f"{op}: it was to begin with revision {op.value}"
            yield Finding(CHECK, INVALID, sentence, [op])
        if revisions != sorted(revisions):
            yield Finding(CHECK, INVALID, f"{op}: the revisions are not in order", [op])
        if len(set(changes)) < len(changes):
            yield Finding(CHECK, INVALID, f"{op}: the same change twice", [op])
        batches.append(_Told(op, changes, owed_from))
        last = revisions[-1] if last is None else max(last, revisions[-1])
        before = op


def _known(writes: Sequence[Operation], batches: Sequence[_Told]) -> list[_Change]:
    """All changes that surely were, in order: acknowledged, or told to anybody."""
    sure = {change for batch in batches for change in batch.changes}
    for op in writes:
        if op.outcome != OK:
            continue
        if op.f != "delete":
            revision = _revision(op, op.result)
            sure.update(_Change(revision, key, value) for key, value in _puts(op))
        elif _deleted(op):
            sure.add(_Change(_revision(op, op.result[1]), op.key, None))
    return sorted(sure, key=lambda change: (change.revision, str(change.key)))


def _missed(batches: Sequence[_Told], known: Sequence[_Change]) -> Iterator[Finding]:
    for batch in batches:
        first = bisect_left(known, batch.owed_from, key=lambda change: change.revision)
        last = bisect_right(known, batch.changes[-1].revision, key=lambda change: change.revision)
        had = set(batch.changes)
        prefix = str(batch.operation.key)
        for change in known[first:last]:
            if change not in had and str(change.key).startswith(prefix):
                sentence = f"{batch.operation} came, and of {change} it was never told"
                yield Finding(CHECK, INVALID, sentence, [batch.operation])


def _untrue(batches: Sequence[_Told], writes: Sequence[Operation]) -> Iterator[Finding]:
    """What nobody had asked for, or with another revision than its writer was told."""
    asked: dict[tuple[Any, Any], list[Operation]] = {}
    for op in writes:
        if op.outcome != FAIL:
            for wanted in [(op.key, None)] if op.f == "delete" else _puts(op):
                asked.setdefault(wanted, []).append(op)
    for batch in batches:
        for change in batch.changes:
            candidates = asked.get((change.key, change.value), [])
            if not any(_may_be(op, change, batch.operation) for op in candidates):
                sentence = f"{batch.operation}: nobody can have made {change}"
                yield Finding(CHECK, INVALID, sentence, [*candidates[:1], batch.operation])


def _gone_too_early(history: Sequence[Operation]) -> Iterator[Finding]:
    """Gaps that nobody can have made."""
    compactions = [op for op in history if op.f == "compact" and op.outcome != FAIL]
    for gap in history:
        if gap.f != "gap" or gap.outcome != OK:
            continue
        upto = _revision(gap, gap.result) - 1
        if not any(_revision(op, op.value) >= upto for op in _before(compactions, gap)):
            yield Finding(CHECK, INVALID, f"{gap}: nobody wanted so much to be forgotten", [gap])


def _before(writes: Sequence[Operation], gap: Operation) -> Iterator[Operation]:
    return (op for op in writes if op.called <= gap.returned)


def _may_be(write: Operation, change: _Change, told_by: Operation) -> bool:
    if write.called > told_by.returned:
        return False
    if write.outcome != OK:
        return True
    if write.f != "delete":
        return bool(write.result == change.revision)
    return _deleted(write) and write.result[1] == change.revision


def _puts(op: Operation) -> list[tuple[Any, Any]]:
    """(key, value) of a put or a commit."""
    if op.f == "put":
        return [(op.key, op.value)]
    try:
        return list(dict(op.value).items())
    except (TypeError, ValueError):
        raise HistoryError(f"{op!r}: a commit is a map of keys to values") from None


def _changes(op: Operation) -> tuple[_Change, ...]:
    try:
        changes = tuple(_Change(*row) for row in op.result)
    except TypeError:
        changes = ()
    if not changes or not all(type(change.revision) is int for change in changes):
        raise HistoryError(f"{op!r}: a watch is told of rows [revision, key, value or null]")
    if type(op.value) is not int:
        raise HistoryError(f"{op!r}: the value of a watch is the revision it begins with")
    return changes


def _deleted(op: Operation) -> bool:
    if not isinstance(op.result, tuple) or len(op.result) != 2:
        raise HistoryError(f"{op!r}: a delete answers with [whether it was there, revision]")
    return bool(op.result[0])


def _revision(op: Operation, revision: object) -> int:
    if type(revision) is not int:
        raise HistoryError(f"{op!r}: {revision!r} is no revision")
    return revision

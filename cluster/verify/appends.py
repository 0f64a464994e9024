"""Transactions that append to lists and read them: judged by what depends on what (Elle, 2020).

A list shows its whole history: if somebody read [1, 2, 3], then 1 was appended before 2 and 2
before 3. So a few reads tell in which order the transactions must have come, and no search is
needed, however many there were.

    {"f": "txn", "value": [["append", "x", 1], ["r", "y", null]]}      asked
    {"f": "txn", "value": [["append", "x", 1], ["r", "y", [4, 2]]]}    answered

Each value is appended to a key once. Besides circles (cycles.py), it finds what needs none:

    internal         a transaction contradicts itself
    duplicate        a list has a value twice
    incompatible     two reads of a key, neither a beginning of the other
    garbage          a value that nobody appended
    G1a              a value of a transaction that failed
    G1b              a list in the middle of another transaction's appends
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.verify.cycles import RT, RULES_OUT, RW, WR, WW, Graph, cycles
from cluster.verify.history import FAIL, INFO, OK, HistoryError, Operation

APPEND, READ = "append", "r"

# Anomalies of one kind that are told in full.
TOLD_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that cannot happen in a strictly serializable system."""

    kind: str
    sentence: str
    where: Sequence[Operation] = ()

    @property
    def rules_out(self) -> str:
        """The weakest promise that it breaks."""
        bare = self.kind.removesuffix("-realtime")
        if self.kind != bare:
            return "strict serializable"
        return RULES_OUT.get(bare, "read committed" if bare.startswith("G1") else "any isolation")


@dataclass(slots=True)
class _Key:
    """What is known of one list."""

    versions: tuple[Any, ...] = ()  # the longest that was read
    longest: Operation | None = None
    writers: dict[Any, Operation] = field(default_factory=dict)
    reads: list[tuple[Operation, tuple[Any, ...]]] = field(default_factory=list)


def judge_appends(history: Sequence[Operation]) -> list[Anomaly]:
    """All anomalies of a history of `txn`; raises HistoryError for what is no such history."""
    keys: dict[Any, _Key] = {}
    found: list[Anomaly] = []
    for txn in history:
        found += _internal(txn)
        _gather(txn, keys)
    for name, key in keys.items():
        found += _judge_key(name, key)
    graph = Graph()
    for name, key in keys.items():
        _depend(name, key, graph)
    _real_time(history, graph)
    by_index = {txn.index: txn for txn in history}
    found += [
        Anomaly(cycle.kind, cycle.sentence, [by_index[node] for node in cycle.nodes])
        for cycle in cycles(graph)
    ]
    return found


def anything_read(history: Sequence[Operation]) -> bool:
    """Whether anybody read a list to which another had appended, or might have."""
    asked: dict[Any, set[int]] = {}
    for txn in sorted(history, key=lambda txn: txn.called):
        for verb, key, _ in _steps(txn):
            if verb == APPEND and txn.outcome != FAIL:
                asked.setdefault(key, set()).add(txn.index)
            elif verb == READ and txn.outcome == OK and asked.get(key, set()) - {txn.index}:
                return True
    return False


def _steps(txn: Operation) -> Sequence[tuple[str, Any, Any]]:
    """What it did, with the answers if there are any."""
    steps = txn.result if txn.outcome == OK else txn.value
    if not isinstance(steps, tuple):
        raise HistoryError(
            f"{txn!r}: a transaction is a list of [append, key, value] and [r, key, list]"
        )
    for step in steps:
        if not isinstance(step, tuple) or len(step) != 3 or step[0] not in (APPEND, READ):
            raise HistoryError(
                f"{txn!r}: {step!r} is neither [append, key, value] nor [r, key, list]"
            )
    return steps


def _internal(txn: Operation) -> list[Anomaly]:
    """Whether its reads agree with its own appends and earlier reads."""
    if txn.outcome != OK:
        return []
    seen: dict[Any, tuple[Any, ...] | None] = {}  # the whole list, where it was read
    tail: dict[Any, tuple[Any, ...]] = {}  # else what was appended
    for verb, key, value in _steps(txn):
        if verb == APPEND:
            if key in seen:
                seen[key] = (*(seen[key] or ()), value)
            else:
                tail[key] = (*tail.get(key, ()), value)
            continue
        got, mine = tuple(value or ()), tail.get(key, ())
        wrong = got != seen[key] if key in seen else got[len(got) - len(mine) :] != mine
        if wrong:
            expected = seen.get(key) or mine
            why = (
                f"T{txn.index} read {list(got)} of {key!r},"
                f" where its own steps led to {list(expected)}"
            )
            return [Anomaly("internal", why, [txn])]
        seen[key] = got
    return []


def _gather(txn: Operation, keys: dict[Any, _Key]) -> None:
    for verb, name, value in _steps(txn):
        key = keys.setdefault(name, _Key())
        if verb == APPEND:
            if value in key.writers:
                raise HistoryError(
                    f"{value!r} is appended to {name!r} twice: no read can tell which"
                )
            key.writers[value] = txn
        elif txn.outcome == OK:
            read = tuple(value or ())
            key.reads.append((txn, read))
            if len(read) > len(key.versions) or key.longest is None:
                key.versions, key.longest = read, txn


def _judge_key(name: Any, key: _Key) -> list[Anomaly]:
    found: list[Anomaly] = []
    for reader, read in key.reads:
        if len(set(read)) < len(read):
            why = f"T{reader.index} read {list(read)} of {name!r}"
            found.append(Anomaly("duplicate", why, [reader]))
        if key.longest is not None and read != key.versions[: len(read)]:
            why = (
                f"T{reader.index} read {list(read)} of {name!r}, and T{key.longest.index}"
                f" {list(key.versions)}: neither can have become the other"
            )
            found.append(Anomaly("incompatible", why, [reader, key.longest]))
        found += _sources(name, key, reader, read)
    return found[:TOLD_MAX]


def _sources(name: Any, key: _Key, reader: Operation, read: tuple[Any, ...]) -> list[Anomaly]:
    """Whose values these are."""
    found = []
    for value in read:
        writer = key.writers.get(value)
        if writer is None:
            why = f"T{reader.index} read {value!r} of {name!r}, which nobody appended"
            found.append(Anomaly("garbage", why, [reader]))
        elif writer.outcome == FAIL:
            why = (
                f"T{reader.index} read {value!r} of {name!r},"
                f" which T{writer.index} appended, and failed"
            )
            found.append(Anomaly("G1a", why, [writer, reader]))
    if read and (writer := key.writers.get(read[-1])) is not None and writer is not reader:
        last = [v for verb, k, v in _steps(writer) if verb == APPEND and k == name][-1]
        if last != read[-1]:
            why = (
                f"T{reader.index} read {list(read)} of {name!r} and so saw T{writer.index}'s"
                f" {read[-1]!r}, but not its {last!r}"
            )
            found.append(Anomaly("G1b", why, [writer, reader]))
    return found


def _depend(name: Any, key: _Key, graph: Graph) -> None:
    """Edges between those who touched one list."""
    writers = [key.writers.get(value) for value in key.versions]
    for i in range(1, len(writers)):
        before, after = writers[i - 1], writers[i]
        if before is not None and after is not None:
            why = (
                f"T{after.index} appended {key.versions[i]!r} to {name!r}"
                f" after T{before.index} appended {key.versions[i - 1]!r}"
            )
            graph.add(before.index, after.index, WW, why)
    for reader, read in key.reads:
        if read != key.versions[: len(read)]:
            continue
        if read and (writer := writers[len(read) - 1]) is not None:
            why = f"T{reader.index} observed T{writer.index}'s append of {read[-1]!r} to {name!r}"
            graph.add(writer.index, reader.index, WR, why)
        if len(read) < len(writers) and (later := writers[len(read)]) is not None:
            value = key.versions[len(read)]
            why = (
                f"T{reader.index} did not observe T{later.index}'s append of {value!r} to {name!r}"
            )
            graph.add(reader.index, later.index, RW, why)


def _real_time(history: Sequence[Operation], graph: Graph) -> None:
    """An edge from each answer to each call after it, less those that follow from others."""
    done = [txn for txn in history if txn.outcome == OK]
    asked = sorted((txn for txn in history if txn.outcome in (OK, INFO)), key=lambda t: t.called)
    answers = sorted(done, key=lambda t: t.returned)
    # Those that have answered and that no other who was asked after them has answered since.
    frontier: list[Operation] = []
    at = 0
    for txn in asked:
        while at < len(answers) and answers[at].returned < txn.called:
            newest = answers[at]
            frontier = [old for old in frontier if old.returned >= newest.called]
            frontier.append(newest)
            at += 1
        for before in frontier:
            why = f"T{before.index} had its answer before T{txn.index} was asked"
            graph.add(before.index, txn.index, RT, why)

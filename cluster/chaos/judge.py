"""The verdict on a campaign: the history's, and whether anything was tried at all.

the history            whatever model the workload is judged by (cluster.verify)
all was well again     after the faults: a leader, every node, every worker
it went on             while a quorum was unharmed, somebody was answered every so often
every fault was there  of each kind at least one took effect, or nobody knows
leaders changed        where leaders were taken away, or nobody knows
invariants             of the nodes' own logs
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from cluster.chaos.campaign import Result
from cluster.chaos.catalogue import FAULTS_BY_NAME, package_of
from cluster.chaos.injector import Record
from cluster.verify.finding import Finding
from cluster.verify.linear import INVALID, UNSURE, VALID

# With a quorum unharmed for this long, somebody must have been answered.
STALL_S: Final = 10.0
# And so much later for each leader that was taken away meanwhile: Raft goes on where leaders last
# longer than it takes to elect one (Ongaro and Ousterhout 2014, §5.6).
ELECTION_S: Final = 1.0


def judge_result(result: Result, nodes: Sequence[str], slowness: float = 1.0) -> list[Finding]:
    """What a campaign shows beside its history, whatever its faults came to."""
    return [
        _well(result),
        _went_on(result, len(nodes), STALL_S * slowness),
        *_leaders(result),
    ]


def _well(result: Result) -> Finding:
    check = "all was well again"
    if result.complaints:
        return Finding(check, INVALID, "; ".join(result.complaints))
    return Finding(check, VALID, f"{result.peace_s:.1f} s after the faults had ended")


def _went_on(result: Result, nodes: int, limit_s: float) -> Finding:
    """Liveness, where it was owed: a majority of nodes that nothing was wrong with."""
    check = "it went on while a quorum was able"
    unseated = sorted(record.begin for record in _unseating(result))
    longest, owed_s = 0.0, 0.0
    for begin, end in _able(result, nodes):
        owed_s += end - begin
        first = bisect_left(result.answered_at, begin)
        last = bisect_left(result.answered_at, end)
        moments = [begin, *result.answered_at[first:last], end]
        for a, b in pairwise(moments):
            longest = max(longest, b - a)
            leaders = bisect_left(unseated, b) - bisect_left(unseated, a)
            if b - a > limit_s + leaders * ELECTION_S:
                sentence = f"nobody was answered for {b - a:.1f} s from {a:.2f} on"
                return Finding(check, INVALID, sentence)
    return Finding(check, VALID, f"{owed_s:.0f} s in all; {longest:.1f} s the longest wait")


def _able(result: Result, nodes: int) -> list[tuple[float, float]]:
    """The times in which a majority was unharmed."""
    spans: list[tuple[float, float]] = []
    changes = [*result.harmed, (result.trouble_s, frozenset[str]())]
    for (begin, harmed), (end, _) in pairwise(changes):
        if nodes - len(harmed) <= nodes // 2 or end <= begin:
            continue
        if spans and spans[-1][1] == begin:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((begin, end))
    return spans


def judge_effects(records: Sequence[Record]) -> list[Finding]:
    """Of each package some fault must have been there, in one run or in many together."""
    check = "faults took effect"
    begun = [record for record in records if record.took_effect is not None]
    if records and not begun:
        return [Finding(check, UNSURE, "none could be begun: " + records[0].evidence)]
    seen = {package_of(record.fault) for record in begun if record.took_effect}
    findings = []
    for package in dict.fromkeys(package_of(record.fault) for record in begun):
        if package not in seen:
            told = {r.evidence for r in begun if package_of(r.fault) == package}
            findings.append(Finding(check, UNSURE, f"none of {package}: {'; '.join(sorted(told))}"))
    count = sum(record.took_effect is True for record in begun)
    return findings or [Finding(check, VALID, f"{count} of {len(begun)}, and some of each package")]


def _unseating(result: Result) -> list[Record]:
    """The faults that took a leader away."""
    return [
        record
        for record in result.records
        if record.took_effect and FAULTS_BY_NAME[record.fault].unseats
        if record.target in ("leader", "majority", "all")
    ]


def _leaders(result: Result) -> list[Finding]:
    unseated = _unseating(result)
    if not unseated:
        return []
    check = "leaders changed"
    if result.terms < 2:
        return [Finding(check, UNSURE, f"{len(unseated)} were taken away, and none came instead")]
    return [Finding(check, VALID, f"{result.terms} reigns")]

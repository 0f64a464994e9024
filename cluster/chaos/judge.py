"""The verdict on a campaign: the history's, and whether anything was tried at all.

the history            whatever model the workload is judged by (cluster.verify)
all was well again     after the faults: a leader, every node, every worker
it went on             while a quorum was unharmed, somebody was answered every so often
every fault was there  of each package that was asked for some fault took effect, or nobody knows
leaders changed        where leaders were taken away, or nobody knows
invariants             of the nodes' own logs
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any, Final

from cluster.chaos.campaign import Result
from cluster.chaos.catalogue import package
from cluster.chaos.injector import Record
from cluster.verify.finding import Finding
from cluster.verify.history import Operation
from cluster.verify.invariants import judge_events
from cluster.verify.linear import INVALID, UNSURE, VALID
from cluster.verify.verdict import Verdict, judge_history

# Of a fault whose end nobody saw.
OPEN: Final = "still under way when the run ended"
# With a quorum unharmed for this long, all in all, somebody must have been answered.
STALL_S: Final = 5.0
# In virtual time nothing but the system itself is slow: half of all limits.
VIRTUAL: Final = 0.5
# And so much later for each leader that was taken away meanwhile: Raft goes on where leaders last
# longer than it takes to elect one (Ongaro and Ousterhout 2014, §5.6).
ELECTION_S: Final = 1.0
# When a quorum comes back it has to find itself first; so much of each such time is not owed.
RECOVERY_S: Final = 1.0

WENT_ON: Final = "it went on while a quorum was able"

Span = tuple[float, float]


def judge_run(
    history: Sequence[Operation],
    model: str,
    events: Iterable[Mapping[str, Any]],
    beside: Sequence[Finding],
    *,
    limit_s: float,
) -> Verdict:
    """All of it: what the campaign showed, the nodes' own logs, and the history.

    Args:
        beside: what judge_result, judge_effects and the daemons themselves have found.
        limit_s: what the search for an order may take.
    """
    verdict = judge_history(history, model, limit_s=limit_s)
    verdict.findings = [*beside, *judge_events(events), *verdict.findings]
    return verdict


def judge_result(result: Result, nodes: Sequence[str], slowness: float = 1.0) -> list[Finding]:
    """What a campaign shows beside its history, whatever its faults came to."""
    return [
        _well(result),
        _went_on(result, len(nodes), slowness),
        *_leaders(result),
    ]


def _well(result: Result) -> Finding:
    check = "all was well again"
    if result.complaints:
        return Finding(check, INVALID, "; ".join(result.complaints))
    return Finding(check, VALID, f"{result.peace_s:.1f} s after the faults had ended")


def _went_on(result: Result, nodes: int, slowness: float) -> Finding:
    """Liveness, where it was owed: by a majority of nodes that nothing was wrong with.

    A silence is as long as the time that was owed in it. That a majority was harmed for a moment
    interrupts it, and does not begin it anew.
    """
    check = WENT_ON
    limit_s = STALL_S * slowness
    unseated = sorted(record.begin for record in _unseating(result))
    spans = _owed(result, nodes, RECOVERY_S * slowness)
    first = bisect_left(result.answered_at, result.began_s)
    last = bisect_left(result.answered_at, result.trouble_s)
    moments = [result.began_s, *result.answered_at[first:last], result.trouble_s]
    longest, owed_s = 0.0, sum(end - begin for begin, end in spans)
    for (a, b), silence_s in zip(pairwise(moments), _within(spans, moments), strict=True):
        longest = max(longest, silence_s)
        leaders = bisect_left(unseated, b) - bisect_left(unseated, a)
        if silence_s > limit_s + leaders * ELECTION_S:
            able = "" if b - a < silence_s + 0.05 else f", {silence_s:.1f} s of it with a quorum"
            sentence = f"nobody was answered for {b - a:.1f} s from {a:.2f} on{able}"
            return Finding(check, INVALID, sentence)
    could_s = _longest_possible(spans, unseated)
    if could_s <= limit_s:
        sentence = f"{owed_s:.1f} s in all: only more than {limit_s:.1f} s at a time would tell"
        return Finding(check, UNSURE, sentence)
    return Finding(check, VALID, f"{owed_s:.0f} s in all; {longest:.1f} s the longest wait")


def _longest_possible(spans: Sequence[Span], unseated: Sequence[float]) -> float:
    """What a silence could have come to, less what is excused of it: the best part of a run."""
    edges = [-inf, *unseated, inf]
    best = here = 0.0
    for number, owed_s in enumerate(_within(spans, edges)):
        here = max(0.0, here - (ELECTION_S if number else 0.0)) + owed_s
        best = max(best, here)
    return best


def judge_progress(runs: Iterable[tuple[Result, Sequence[str]]], slowness: float) -> list[Finding]:
    """Whether liveness was owed for long enough to be told, in one of several short runs at least.

    That it was missing is told of the run itself.
    """
    findings = [_went_on(result, len(nodes), slowness) for result, nodes in runs]
    told = [finding for finding in findings if finding.verdict != UNSURE]
    if not findings:
        return []
    if not told:
        return [Finding(f.check, f.verdict, f"in no run: {f.sentence}") for f in findings[:1]]
    return [Finding(WENT_ON, VALID, f"to be told in {len(told)} of {len(findings)} runs")]


def _owed(result: Result, nodes: int, recovery_s: float) -> list[Span]:
    """The times of trouble in which a majority was unharmed and had had time to find itself."""
    able: list[Span] = []
    changes = [*result.harmed, (result.trouble_s, frozenset[str]())]
    for (begin, harmed), (end, _) in pairwise(changes):
        begin, end = max(begin, result.began_s), min(end, result.trouble_s)
        if nodes - len(harmed) <= nodes // 2 or end <= begin:
            continue
        if able and able[-1][1] == begin:
            able[-1] = (able[-1][0], end)
        else:
            able.append((begin, end))
    spans = [(begin if begin == result.began_s else begin + recovery_s, end) for begin, end in able]
    return [(begin, end) for begin, end in spans if begin < end]


def _within(spans: Sequence[Span], moments: Sequence[float]) -> Iterable[float]:
    """How much of the time between each two moments lies in the spans."""
    at = 0
    for a, b in pairwise(moments):
        while at < len(spans) and spans[at][1] <= a:
            at += 1
        total, here = 0.0, at
        while here < len(spans) and spans[here][0] < b:
            total += min(b, spans[here][1]) - max(a, spans[here][0])
            here += 1
        yield total


def judge_effects(records: Sequence[Record], packages: Sequence[str]) -> list[Finding]:
    """Of each package that was asked for some fault must have been there, in these runs together.

    Args:
        packages: names of packages or of single faults; none: it was asked for none.
    """
    check = "faults took effect"
    effective = {record.fault for record in records if record.took_effect}
    findings = []
    for name in dict.fromkeys(packages):
        faults = package(name)
        if not effective.intersection(faults):
            told = {record.evidence or OPEN for record in records if record.fault in faults}
            why = "; ".join(sorted(told)) or "the plan had nothing of it"
            findings.append(Finding(check, UNSURE, f"none of {name}: {why}"))
    if findings:
        return findings
    if not packages and not records:
        return [Finding(check, VALID, "none was asked for")]
    count = sum(record.took_effect is True for record in records)
    if not count:
        return [Finding(check, UNSURE, "none: " + records[0].evidence)]
    begun = sum(record.took_effect is not None for record in records)
    return [Finding(check, VALID, f"{count} of {begun}, and some of each package")]


def _unseating(result: Result) -> list[Record]:
    """The faults that really took a leader away."""
    return [record for record in result.records if record.took_effect and record.unseated]


def _leaders(result: Result) -> list[Finding]:
    unseated = _unseating(result)
    if not unseated:
        return []
    check = "leaders changed"
    if result.terms < 2:
        return [Finding(check, UNSURE, f"{len(unseated)} were taken away, and none came instead")]
    return [Finding(check, VALID, f"{result.terms} reigns")]

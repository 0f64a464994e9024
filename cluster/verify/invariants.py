"""What must hold of the nodes' own logs, whatever clients have noticed.

    election safety    in each term at most one node leads
    terms grow         within one life of a node its term never goes back
    commits grow       nor does what it knows to be committed
    completeness       who is elected has every entry that was committed in an earlier term
    elections          nobody stands for election in a term without having asked whether it would be
                       elected, or been told to by the leader (dissertation §9.6, §3.10)
    one order          nodes that applied the same stretch of entries applied the same ones
                       (raft.checkpoint, raftd/checkpoints.py)
    promises kept      what a node has acknowledged is there when its leader asks for it
    no code fails      nothing in a node raised what nobody expects there: whatever is done to its
                       machine, that is a bug, and an answer that hides it is none

(Ongaro and Ousterhout 2014, figure 3.) Lives begin with `node.start`. A system that writes no such
events is not judged by them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.verify.finding import Finding, told
from cluster.verify.linear import INVALID, VALID

Event = Mapping[str, Any]

# What a node writes down of its own bugs. One that gives up over its disk says `Fatal`, and has
# none (netstack.runtime.runtime).
_BUGS = {
    "rpc.handler_error": "a handler raised {error}, asked by {peer}",
    "raft.callback_error": "whoever waited for an outcome raised {error}",
    "raft.malformed": "{source} sent what is no message: {cause}",
    "node.fatal": "it ended in {where} over {error}",
}
_GIVES_UP = "Fatal: "

# A pre-candidate names the term that it would have.
_HAS_TERM = ("follower", "candidate", "leader")


def read_node_events(folder: Path) -> list[dict[str, Any]]:
    """All events of all files in a folder, each file in its order; without what was cut off."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # a process was killed while it wrote this
    return found


def judge_events(events: Iterable[Event]) -> list[Finding]:
    """Findings about all nodes; nothing if they wrote nothing that could be judged.

    Args:
        events: those of each node in its own order; nodes may be mixed in any way.
    """
    all_events = list(events)
    return [
        *_election_safety(all_events),
        *_grow("terms grow", _terms(all_events)),
        *_grow("commits grow", _commits(all_events)),
        *_complete_leaders(all_events),
        *_stands_when_asked(all_events),
        *_one_order(all_events),
        *_promises_kept(all_events),
        *_no_code_fails(all_events),
    ]


def _election_safety(events: Sequence[Event]) -> list[Finding]:
    check = "election safety"
    leaders: dict[int, list[str]] = {}
    for event in events:
        if event["kind"] == "raft.role" and event["role"] == "leader":
            names = leaders.setdefault(event["term"], [])
            if event["node"] not in names:
                names.append(event["node"])
    if not leaders:
        return []
    wrong = (
        Finding(check, INVALID, f"in term {term} {' and '.join(names)} have led")
        for term, names in sorted(leaders.items())
        if len(names) > 1
    )
    return told(check, wrong) or [
        Finding(check, VALID, f"terms with a leader: {len(leaders):,}, with two: none")
    ]


def _terms(events: Sequence[Event]) -> Iterator[tuple[str, int]]:
    for event in events:
        if event["kind"] == "node.start":
            yield event["node"], -1
        elif event["kind"] == "raft.role" and event["role"] in _HAS_TERM:
            yield event["node"], event["term"]


def _commits(events: Sequence[Event]) -> Iterator[tuple[str, int]]:
    for event in events:
        if event["kind"] == "node.start":
            yield event["node"], -1
        elif event["kind"] == "log.commit":
            yield event["node"], event["index"]


def _grow(check: str, numbers: Iterable[tuple[str, int]]) -> list[Finding]:
    """Of each node, from one life to the next (-1)."""
    last: dict[str, int] = {}
    count = 0
    wrong = []
    for node, number in numbers:
        if number >= 0:
            count += 1
            if number < last.get(node, -1):
                sentence = f"{node} went back from {last[node]:,} to {number:,}"
                wrong.append(Finding(check, INVALID, sentence))
        last[node] = number
    if not count:
        return []
    return told(check, wrong) or [Finding(check, VALID, f"{count:,} times told, never less")]


def _complete_leaders(events: Sequence[Event]) -> list[Finding]:
    """What a node knows to be committed was, in its term or before (leader completeness)."""
    check = "leader completeness"
    told_in: dict[int, Event] = {}  # of each term: who knew of the highest index
    leaders = []
    for event in events:
        if event["kind"] == "log.commit" and "term" in event:
            best = told_in.setdefault(event["term"], event)
            if event["index"] > best["index"]:
                told_in[event["term"]] = event
        elif event["kind"] == "raft.role" and event["role"] == "leader" and "last" in event:
            leaders.append(event)
    wrong = []
    for leader in leaders:
        earlier = (told_in[term] for term in told_in if term < leader["term"])
        known = max(earlier, key=lambda event: event["index"], default=None)
        if known is not None and known["index"] > leader["last"]:
            sentence = (
                f"{leader['node']} leads term {leader['term']} with entries up to"
                f" {leader['last']:,}; {known['node']} knew in term {known['term']} that"
                f" {known['index']:,} are committed"
            )
            wrong.append(Finding(check, INVALID, sentence))
    if not leaders:
        return []
    return told(check, wrong) or [
        Finding(check, VALID, f"leaders: {len(leaders):,}, and each had all of it")
    ]


def _stands_when_asked(events: Sequence[Event]) -> list[Finding]:
    check = "elections are asked for"
    last: dict[str, Event] = {}  # of each node: its last word on elections, in this life
    stood = 0
    wrong = []
    for event in events:
        node, kind = event["node"], event["kind"]
        if kind == "node.start":
            last.pop(node, None)
        elif kind in ("raft.role", "raft.transfer"):
            if event.get("role") == "candidate":
                stood += 1
                if not _asked(last.get(node), event["term"]):
                    sentence = f"{node} stood for term {event['term']} without having asked"
                    wrong.append(Finding(check, INVALID, sentence))
            last[node] = event
    if not stood:
        return []
    return told(check, wrong) or [
        Finding(check, VALID, f"candidates: {stood:,}, and each had asked")
    ]


def _asked(before: Event | None, term: int) -> bool:
    """Whether a node that said this may stand for that term now."""
    if before is None or before["kind"] == "raft.transfer":
        return before is not None
    return bool(before["role"] == "precandidate" and before["term"] == term)


def _one_order(events: Sequence[Event]) -> list[Finding]:
    check = "one order of entries"
    first: dict[int, Event] = {}
    compared = 0
    wrong = []
    for event in events:
        if event["kind"] != "raft.checkpoint":
            continue
        other = first.setdefault(event["index"], event)
        if other is event:
            continue
        compared += 1
        if (other["sum"], other["term"]) != (event["sum"], event["term"]):
            sentence = (
                f"{other['node']} and {event['node']} have applied different entries"
                f" up to index {event['index']:,}"
            )
            wrong.append(Finding(check, INVALID, sentence))
    if not first:
        return []
    return told(check, wrong) or [
        Finding(check, VALID, f"stretches of entries compared: {compared:,}, all alike")
    ]


def _promises_kept(events: Sequence[Event]) -> list[Finding]:
    """Only breaches are told: a node that has lost nothing writes down nothing."""
    wrong = (
        Finding(
            "promises kept",
            INVALID,
            f"{event['node']} had acknowledged entries up to {event['acknowledged']:,}, and has"
            f" {event['last']:,}",
        )
        for event in events
        if event["kind"] == "raft.lost"
    )
    return told("promises kept", wrong)


def _no_code_fails(events: Sequence[Event]) -> list[Finding]:
    check = "no code fails"
    lives = sum(event["kind"] == "node.start" for event in events)
    bugs = (event for event in events if event["kind"] in _BUGS and not _gives_up(event))
    wrong = [Finding(check, INVALID, f"{e['node']}: {_in_words(e)}") for e in bugs]
    if not lives and not wrong:
        return []
    return told(check, wrong) or [
        Finding(check, VALID, f"lives of nodes: {lives:,}, and none met a bug of its own")
    ]


def _gives_up(event: Event) -> bool:
    return event["kind"] == "node.fatal" and str(event.get("error", "")).startswith(_GIVES_UP)


def _in_words(event: Event) -> str:
    return _BUGS[event["kind"]].format_map(defaultdict(lambda: "?", event))

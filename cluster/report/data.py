"""What the page about a run shows, read from the folder of the run (chaos/run.py) and nothing else.

    run.json  plan          what was run                        -> run
    verdict.json            what is to be said of it            -> verdict
    history.jsonl           what clients asked and were told    -> operations, in columns
    faults.jsonl            what befell the nodes               -> faults
    events/*.jsonl          what the nodes wrote down           -> reigns, events

Times are seconds since the run began. Operations have the numbers that the verdict calls them by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Final

from cluster.verify.history import FAIL, INFO, OK, Operation, operations, read_events
from cluster.verify.invariants import read_node_events

# More node events than this make the page slow; the rarest kinds are kept.
EVENTS_MAX: Final = 4_000
# Values are shown, not kept: a longer one is cut.
TEXT_MAX: Final = 160

OUTCOMES: Final = (OK, FAIL, INFO)
# What every event has; the rest is told as text.
_COMMON: Final = frozenset(("v", "seq", "wall", "mono", "node", "kind"))


def load(folder: Path) -> dict[str, Any]:
    """Everything for the page; raises OSError, ValueError or KeyError if it is no run's folder."""
    run = json.loads((folder / "run.json").read_text())
    raw = list(read_events(folder / "history.jsonl"))
    history = operations(iter(raw))
    given_up = {e["process"]: float(e["time"]) for e in raw if e["type"] == INFO}
    end = max((float(event["time"]) for event in raw), default=0.0)
    faults = _lines(folder / "faults.jsonl")
    end = max([end, *(fault["end"] or 0.0 for fault in faults)])
    events = _events(folder / "events", run, end)
    return {
        "run": run,
        "verdict": json.loads((folder / "verdict.json").read_text()),
        "end": end,
        "faults": faults,
        "reigns": _reigns(events, end),
        "events": _told(events),
        **_columns(history, given_up, end),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


# -- operations


def _columns(
    history: Sequence[Operation], given_up: dict[Any, float], end: float
) -> dict[str, Any]:
    """Columns of one length, with words in tables of their own: a tenth of the size of records."""
    ended = [
        op.returned if op.returned < float("inf") else given_up.get(op.process, end)
        for op in history
    ]
    words, word_of = _table(op.f for op in history)
    keys, key_of = _table(op.key for op in history)
    lanes = _lanes(history, ended)
    return {
        "words": words,
        "keys": keys,
        "lanes": 1 + max(lanes, default=0),
        "operations": {
            "f": word_of,
            "key": key_of,
            "process": [op.process for op in history],
            "lane": lanes,
            "called": [round(op.called, 6) for op in history],
            "ended": [round(time, 6) for time in ended],
            "outcome": [OUTCOMES.index(op.outcome) for op in history],
            "value": ["" if op.value is None else _text(op.value) for op in history],
            "result": [_text(op.result) if op.outcome == OK else "" for op in history],
        },
    }


def _table(values: Iterable[Any]) -> tuple[list[str], list[int]]:
    """The different values as text, and the place of each."""
    places: dict[str, int] = {}
    column = ["" if value is None else str(value) for value in values]
    return list(dict.fromkeys(column)), [places.setdefault(v, len(places)) for v in column]


def _lanes(history: Sequence[Operation], ended: Sequence[float]) -> list[int]:
    """A row for each process, which another takes over when it is never heard of again.

    A worker that was left unsure goes on under a new number: so each worker keeps about one row.
    """
    last: dict[Any, float] = {}
    for op, time in zip(history, ended, strict=True):
        last[op.process] = max(last.get(op.process, 0.0), time)
    lane_of: dict[Any, int] = {}
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    for op in history:
        if op.process in lane_of:
            continue
        while busy and busy[0][0] <= op.called:
            heappush(free, heappop(busy)[1])
        lane = heappop(free) if free else len(busy)
        lane_of[op.process] = lane
        heappush(busy, (last[op.process], lane))
    return [lane_of[op.process] for op in history]


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


# -- nodes


def _events(folder: Path, run: dict[str, Any], end: float) -> list[dict[str, Any]]:
    """Of all nodes in the order of time, with `at`; only those of this run.

    Steady clocks are of one machine, so that they can be compared; wall clocks are put off by
    some faults.
    """
    began = run.get("began_mono")
    found = read_node_events(folder) if began is not None else []
    for event in found:
        event["at"] = event["mono"] - began
    found = [event for event in found if -1.0 <= event["at"] <= end + 1.0]
    return sorted(found, key=lambda event: event["at"])


def _reigns(events: Sequence[dict[str, Any]], end: float) -> list[dict[str, Any]]:
    """Who led when: from becoming leader to becoming anything else, or to its process's end."""
    found: list[dict[str, Any]] = []
    now: dict[str, dict[str, Any]] = {}
    for event in events:
        node, kind = event["node"], event["kind"]
        ends = (kind == "raft.role" and event.get("role") != "leader") or kind == "node.start"
        if kind == "process.exit":
            node, ends = event.get("target", node), True
        if ends and node in now:
            now.pop(node)["end"] = event["at"]
        if kind == "raft.role" and event.get("role") == "leader" and node not in now:
            now[node] = {"node": node, "term": event["term"], "begin": event["at"], "end": end}
            found.append(now[node])
    return found


def _told(events: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Rows [time, node, kind, text]; where there are too many, the commonest kinds are left out."""
    count: dict[str, int] = {}
    for event in events:
        count[event["kind"]] = count.get(event["kind"], 0) + 1
    room, kept = EVENTS_MAX, set()
    for kind in sorted(count, key=lambda kind: count[kind]):
        room -= count[kind]
        if room < 0:
            break
        kept.add(kind)
    return [
        [round(event["at"], 4), event["node"], event["kind"], _said(event)]
        for event in events
        if event["kind"] in kept
    ]


def _said(event: dict[str, Any]) -> str:
    rest = {key: value for key, value in event.items() if key not in _COMMON and key != "at"}
    text = "  ".join(f"{key}={value}" for key, value in rest.items())
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"

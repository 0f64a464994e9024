"""A run's folder, written by hand: two clients, one stale read, two faults, three nodes."""

from __future__ import annotations

import json

from cluster.chaos.campaign import Result
from cluster.chaos.folder import Described, Outcome, conclude, describe, record_outcome
from cluster.chaos.injector import Record
from cluster.verify.history import operations
from cluster.verify.verdict import judge_history

BEGAN = 1000.0  # of the nodes' steady clocks


def event(time, type_, process, f, value, key="x"):
    return {"type": type_, "process": process, "f": f, "key": key, "value": value, "time": time}


def stale_history(more: int = 30, value: object = 2):
    """Writes 1, then `value`, and reads 1 again; and `more` that is all right, of another key."""
    events = [
        event(0.10, "invoke", 0, "write", 1),
        event(0.15, "ok", 0, "write", None),
        event(0.20, "invoke", 1, "write", value),
        event(0.30, "ok", 1, "write", None),
        event(0.40, "invoke", 0, "read", None),
        event(0.45, "ok", 0, "read", 1),
        event(0.50, "invoke", 1, "write", 9),
        event(2.50, "info", 1, "write", 9),
    ]
    for i in range(more):
        at = 3.0 + i / 10
        events.append(event(at, "invoke", 2, "write", i, "y"))
        events.append(event(at + 0.02 + i / 1000, "ok", 2, "write", None, "y"))
    return events


def record(fault, begin, end, took_effect, evidence):
    made = Record(fault, "leader", ["n2"], {}, begin)
    made.end, made.took_effect, made.evidence = end, took_effect, evidence
    return made


NODE_EVENTS = (
    {"at": 0.0, "node": "n1", "kind": "raft.role", "role": "leader", "term": 1},
    {"at": 1.0, "node": "supervisor", "kind": "process.exit", "target": "n1", "status": -9},
    {"at": 1.4, "node": "n3", "kind": "raft.role", "role": "leader", "term": 2},
    {"at": 2.0, "node": "n3", "kind": "raft.role", "role": "follower", "term": 3},
    {"at": 2.1, "node": "n2", "kind": "log.commit", "index": 7},
)


def write_run(folder, history):
    """A folder as `ring chaos` leaves it; the path of the page."""
    folder.mkdir(exist_ok=True)
    (folder / "history.jsonl").write_text("".join(json.dumps(e) + "\n" for e in history))
    described = Described(
        "register", "register", "raft", ("n1", "n2", "n3"), ("kill",), 42, 6.0,
        ("ring", "chaos", "register", "--time", "6", "--seed", "42"), BEGAN,
    )  # fmt: skip
    describe(folder, described, [])
    (folder / "events").mkdir(exist_ok=True)
    lines = [
        json.dumps({"v": 1, "seq": i, "mono": BEGAN + e["at"], "wall": 0.0, **e}) + "\n"
        for i, e in enumerate(NODE_EVENTS)
    ]
    (folder / "events" / "all.jsonl").write_text("".join(lines) + '{"v":1,"seq":9,"mo')
    faults = [
        record("kill", 1.0, 2.0, True, "n1: process 7 is gone"),
        record("loss", 1.5, 4.0, False, "no datagram was dropped"),
    ]
    verdict = judge_history(operations(iter(history)), "register", limit_s=10)
    result = Result(faults, [], [], 2, 6.0, 0.1)
    record_outcome(folder, Outcome(result))
    return conclude(folder, verdict)

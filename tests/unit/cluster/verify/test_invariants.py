"""Invariants of the nodes' own logs: each breach is told, and what is right is not called wrong."""

from __future__ import annotations

import pytest

from cluster.verify.invariants import judge_events, read_node_events


def role(node, role, term):
    return {"node": node, "kind": "raft.role", "role": role, "term": term}


def start(node):
    return {"node": node, "kind": "node.start"}


def commit(node, index):
    return {"node": node, "kind": "log.commit", "index": index}


def checkpoint(node, index, checksum, term=1):
    return {"node": node, "kind": "raft.checkpoint", "index": index, "term": term, "sum": checksum}


def bug(node, kind, **fields):
    return {"node": node, "kind": kind, **fields}


def test_a_node_that_gives_up_over_its_disk_has_no_bug():
    torn = bug("n1", "node.fatal", where="wal", error="Fatal: the log cannot be written: torn")
    (finding,) = judge_events([start("n1"), torn, start("n1")])
    assert (finding.check, finding.verdict) == ("no code fails", "valid")
    assert finding.sentence.startswith("lives of nodes: 2")


def elected(node, term, last):
    return {**role(node, "leader", term), "last": last}


def committed(node, term, index):
    return {**commit(node, index), "term": term}


def wrong(*events):
    return [f"{f.check}: {f.sentence}" for f in judge_events(events) if f.verdict == "invalid"]


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        (
            [role("n1", "leader", 2), role("n3", "leader", 2)],
            "election safety: in term 2 n1 and n3 have led",
        ),
        (
            [role("n1", "follower", 5), role("n1", "follower", 4)],
            "terms grow: n1 went back from 5 to 4",
        ),
        ([commit("n2", 900), commit("n2", 899)], "commits grow: n2 went back from 900 to 899"),
        (
            [role("n1", "follower", 4), role("n1", "candidate", 5)],
            "elections are asked for: n1 stood for term 5 without having asked",
        ),
        (
            [role("n1", "precandidate", 5), role("n1", "candidate", 6)],
            "elections are asked for: n1 stood for term 6 without having asked",
        ),
        (
            [role("n1", "precandidate", 5), start("n1"), role("n1", "candidate", 5)],
            "elections are asked for: n1 stood for term 5 without having asked",
        ),
        (
            [committed("n1", 2, 80), committed("n1", 2, 90), elected("n3", 4, 89)],
            "leader completeness: n3 leads term 4 with entries up to 89;"
            " n1 knew in term 2 that 90 are committed",
        ),
        (
            [checkpoint("n1", 256, 7), checkpoint("n2", 256, 8)],
            "one order of entries: n1 and n2 have applied different entries up to index 256",
        ),
        (
            [checkpoint("n1", 256, 7, term=1), checkpoint("n2", 256, 7, term=2)],
            "one order of entries: n1 and n2 have applied different entries up to index 256",
        ),
        (
            [bug("n2", "raft.lost", acknowledged=1200, last=1187)],
            "promises kept: n2 had acknowledged entries up to 1,200, and has 1,187",
        ),
        (
            [bug("n2", "rpc.handler_error", error="KeyError('k')", peer="cli")],
            "no code fails: n2: a handler raised KeyError('k'), asked by cli",
        ),
        (
            [bug("n1", "raft.callback_error", error="TypeError()")],
            "no code fails: n1: whoever waited for an outcome raised TypeError()",
        ),
        (
            [bug("n3", "raft.malformed", source="n1", cause="a vote has 4 fields, not 3")],
            "no code fails: n3: n1 sent what is no message: a vote has 4 fields, not 3",
        ),
        (
            [bug("n1", "node.fatal", where="pump", error="InvariantViolated: n1 n4 led term 2")],
            "no code fails: n1: it ended in pump over InvariantViolated: n1 n4 led term 2",
        ),
    ],
)
def test_a_breach_is_told(events, sentence):
    assert wrong(*events) == [sentence]


@pytest.mark.parametrize(
    "events",
    [
        [role("n1", "leader", 2), role("n1", "leader", 2), role("n3", "leader", 3)],
        # What was not on disk yet may be gone after a restart.
        [role("n1", "follower", 5), commit("n1", 9), start("n1"), role("n1", "follower", 4)],
        [commit("n1", 9), start("n1"), commit("n1", 3), commit("n2", 1)],
        # A pre-candidate asks about a term that it does not have.
        [role("n1", "precandidate", 6), role("n1", "follower", 5)],
        [checkpoint("n1", 256, 7), checkpoint("n2", 512, 8), checkpoint("n3", 256, 7)],
        [role("n1", "precandidate", 5), role("n1", "candidate", 5), role("n1", "leader", 5)],
        # In a later term it may be more; and a leader of the past may learn late that it is one.
        [committed("n1", 2, 90), elected("n3", 4, 90), committed("n1", 5, 95)],
        [{"node": "n1", "kind": "raft.transfer"}, role("n1", "candidate", 5)],
    ],
)
def test_what_is_right_is_not_called_wrong(events):
    findings = judge_events(events)
    assert {finding.verdict for finding in findings} == {"valid"}


def test_who_writes_nothing_is_not_judged():
    assert judge_events([]) == []
    assert judge_events([{"node": "m1", "kind": "something.else"}]) == []


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    (tmp_path / "n1.jsonl").write_text('{"node":"n1","kind":"node.start"}\n{"node":"n1","ki')
    assert read_node_events(tmp_path) == [start("n1")]

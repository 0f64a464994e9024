"""Section 7 of the Raft paper, sentence by sentence: snapshots."""

from __future__ import annotations

from dataclasses import replace

from core_kit import (
    HIGH,
    MODERN,
    Desk,
    Stage,
    append,
    entries,
    leader,
    of,
    vote_request,
)

from raftd import messages as m
from raftd.log import HardState, Restored, SnapshotMeta
from raftd.outputs import Emit

PACKED = Desk().membership.pack()


def install(term: int, at: str, data: bytes, offset: int = 0, total: int | None = None):
    """One chunk of the snapshot whose last entry is `at` (index/term)."""
    index, last_term = map(int, at.split("/"))
    total = len(data) if total is None else total
    return m.InstallSnapshot(term, index, last_term, PACKED, offset, total, data)


def test_each_server_takes_snapshots_of_its_committed_entries_on_its_own():
    desk = leader()
    desk.propose(b"a", b"b")
    desk.ack("n2")
    meta = desk.compact()
    assert (meta.index, meta.term, meta.membership) == (3, 1, desk.membership)
    desk.restart()
    assert (desk.state, desk.raft.commit, desk.raft.log.first_index) == ([b"a", b"b"], 3, 4)


def test_the_consistency_check_works_right_behind_the_snapshot():
    desk = Desk(snapshot="5/2", term=3)
    assert desk.hear(append(3, "5/2", "3"))[0][1].accepted
    assert not Desk(snapshot="5/2", term=3).hear(append(3, "5/1", "3"))[0][1].accepted
    voter = Desk(snapshot="5/2", term=3)
    assert not voter.hear(vote_request(4, "4/2"))[0][1].granted
    assert voter.hear(vote_request(5, "5/2"))[0][1].granted


def test_a_follower_that_needs_what_was_discarded_is_sent_the_snapshot():
    desk = leader(3, snapshot="5/2", log="2")
    sent = desk.hear(m.AppendReply(3, False, 6, 2, 1), "n2")
    assert sent == [("n2", m.InstallSnapshot(3, 5, 2, PACKED, 0, 7, b"as of 5"))]
    sent = desk.hear(m.SnapshotReply(3, 5, 7), "n2")
    assert [(a.prev_index, a.prev_term) for _, a in of(m.AppendEntries, sent)] == [(5, 2)]


def test_a_follower_waits_for_all_chunks_and_puts_them_together_in_order():
    desk = Desk()
    chunks = [install(2, "5/1", b"on", 0, 6), install(2, "5/1", b"e ", 2, 6)]
    asked = [desk.hear(chunk)[0][1].offset for chunk in (chunks[1], *chunks, chunks[0])]
    assert asked == [0, 2, 4, 4]
    assert desk.state == []
    desk.hear(install(2, "5/1", b"x ", 4, 6))
    assert desk.state == [b"one", b"x"]
    assert (desk.raft.commit, desk.raft.log.last_index, desk.raft.log.last_term) == (5, 5, 1)


def test_a_snapshot_is_acknowledged_when_it_is_on_stable_storage():
    desk = Desk(term=2)
    desk.hear(m.Heartbeat(2, 0, 1))
    desk.slow_disk = True
    assert desk.hear(install(2, "5/1", b"abc")) == []
    assert desk.sync() == [("n2", m.SnapshotReply(2, 5, 3))]
    desk.restart()
    assert (desk.state, desk.raft.commit) == ([b"abc"], 5)


def test_a_snapshot_replaces_a_log_that_does_not_reach_it_or_conflicts_with_it():
    for log in ("", "1 1", "1 1 1 1 1 1 1"):
        desk = Desk(log=log, term=2)
        desk.hear(install(2, "5/2", b"abc"))
        assert (desk.terms, desk.raft.log.last_index, desk.raft.log.last_term) == ("", 5, 2)
        desk.hear(append(2, "5/2", "2"))
        desk.restart()
        assert (desk.state, desk.raft.log.first_index, desk.terms) == ([b"abc"], 6, "2")


def test_entries_that_the_snapshot_on_disk_has_are_not_taken_from_the_log_again():
    meta = SnapshotMeta(3, 1, Desk().membership)
    desk = Desk()
    desk.disk.restored = lambda: Restored(HardState(1), entries("1 1 1 1 1"), meta, b"abc")
    desk.restart()
    assert repr(desk.raft.log) == "<RaftLog 4..5 last_term=1>"
    assert desk.raft.commit == 3


def test_an_older_snapshot_or_one_of_an_older_leader_is_not_installed():
    desk = Desk(term=3)
    desk.hear(append(3, new="1 1 1 1 1 1", commit=6))
    assert desk.hear(install(3, "5/1", b"abc"))[0][1] == m.AppendReply(3, True, 6, 0, 0)
    assert not desk.hear(install(2, "9/2", b"abc"))[0][1].accepted
    assert (desk.raft.log.first_index, desk.raft.log.last_index) == (1, 6)


def test_if_an_entry_has_the_snapshots_last_index_and_term_those_that_follow_are_retained():
    """Figure 13, rule 6. They were acknowledged, and the leader may have committed them."""
    desk = Desk()
    ((_, reply),) = desk.hear(append(1, new="1 1 1 1", commit=0))
    assert (reply.accepted, reply.index) == (True, 4)
    desk.hear(install(1, "2/1", b"1.1 2.1"))
    assert desk.raft.commit == 2
    desk.restart()
    assert desk.raft.log.last_index == 4


def test_a_committed_entry_outlives_a_snapshot_that_comes_late():
    """Entry 4 is committed by n1 and n2; then n2, which was sent a snapshot of 3, installs it."""
    stage = Stage(options=replace(MODERN, keep_entries=0, max_append_entries=2))
    lead = stage.elect("n1")
    lead.propose(b"two", b"three", b"four")
    stage.post("n1")
    to_n2 = [item for item in stage.wire if item[1] == "n2"]
    stage.wire = [item for item in stage.wire if item[1] == "n3"][:1]
    stage.deliver()
    stage.deliver()  # n3 has up to 3, which commits that
    assert lead.compact().index == 3
    stage.wire = to_n2
    for _ in to_n2:
        stage.deliver()  # n2 has up to 4; its answers are slow
    answers, stage.wire = stage.wire, []
    for _ in range(3):  # it answers heartbeats, so the leader tries again: with the snapshot
        context = of(m.Heartbeat, lead.beat())[0][1].context
        lead.hear(m.HeartbeatReply(1, context), "n2")
    snapshot = of(m.InstallSnapshot, lead.sent)[0][1]
    stage.wire = answers
    for _ in answers:
        stage.deliver()
    stage.wire = []
    assert b"four" in lead.state
    stage["n2"].hear(snapshot, "n1")
    stage.crash("n1")
    stage.clock.now += HIGH
    stage.elect("n3" if stage["n2"].raft.log.last_index == 3 else "n2")
    assert b"four" in stage["n2"].state


def test_a_snapshot_under_way_is_finished_although_the_leader_has_a_newer_one():
    """Or a follower on a slow link never gets there."""
    desk = leader(options=replace(MODERN, snapshot_chunk_bytes=8, keep_entries=0))
    desk.propose(b"x" * 100)
    desk.ack("n2")
    older = desk.compact()
    sent = desk.hear(m.AppendReply(1, False, 0, 0, 0), "n3")
    assert [(s.index, s.offset) for _, s in sent] == [(older.index, at) for at in (0, 8, 16, 24)]
    desk.propose(b"y")
    desk.ack("n2")
    desk.compact()
    sent = desk.hear(m.SnapshotReply(1, older.index, 8), "n3")
    assert [(s.index, s.offset) for _, s in sent] == [(older.index, 32)]


# -- a state that is too large to be sent

BOUNDED = replace(MODERN, snapshot_bytes_max=10, keep_entries=0)


def told(desk: Desk, kind: str) -> list[dict]:
    return [o.fields for o in desk.done if isinstance(o, Emit) and o.kind == kind]


def stranded(data: bytes = b"x" * 11) -> Desk:
    """A leader whose n3 needs a snapshot that is larger than a follower takes."""
    desk = leader(options=BOUNDED)
    desk.propose(data)
    desk.ack("n2")
    desk.compact()
    desk.hear(m.AppendReply(1, False, 0, 0, 0), "n3")
    return desk


def test_a_snapshot_over_the_limit_is_not_sent_and_the_leader_says_so_once():
    desk = stranded()
    for _ in range(20):
        desk.fire()
        context = of(m.Heartbeat, desk.sent)[-1][1].context
        for peer in ("n2", "n3"):
            desk.hear(m.HeartbeatReply(1, context), peer)
    assert of(m.InstallSnapshot, desk.sent) == []
    (event,) = told(desk, "snapshot.too_large")
    assert (event["to"], event["bytes"]) == ("n3", 11)
    assert "delete keys" in event["cause"]
    assert desk.raft.trouble == "n3 is stranded: it needs a snapshot that is too large; delete keys"


def test_it_is_sent_as_soon_as_there_is_one_that_fits():
    desk = stranded()
    desk.state = [b"small"]
    desk.propose(b"y")
    desk.ack("n2")
    desk.compact()
    for _ in range(3):
        context = of(m.Heartbeat, desk.beat())[-1][1].context
        desk.hear(m.HeartbeatReply(1, context), "n3")
    chunk = of(m.InstallSnapshot, desk.sent)[0][1]
    assert chunk.data == b"small y"
    assert desk.raft.trouble == ""


def test_who_is_stranded_and_removed_troubles_nobody():
    desk = stranded()
    desk.change(desk.raft.membership.removing(["n3"]))
    desk.ack("n2")
    desk.ack("n2")
    assert desk.raft.membership.voters == ("n1", "n2")
    assert desk.raft.trouble == ""


def test_a_follower_takes_no_snapshot_over_the_limit_and_says_so_once():
    """Of a leader that thinks otherwise. It is not answered, or it would begin anew for ever."""
    desk = Desk(options=BOUNDED, term=2)
    for _ in range(3):
        assert desk.hear(install(2, "5/1", b"on", 0, 11)) == []
    (event,) = told(desk, "snapshot.refused")
    assert event["bytes"] == 11
    assert desk.raft.trouble == "the leader's snapshot is too large to be taken; delete keys"
    assert desk.hear(install(2, "6/1", b"on", 0, 10))[0][1].offset == 2
    desk.hear(install(2, "6/1", b"e of six", 2, 10))
    assert (desk.raft.commit, desk.raft.trouble) == (6, "")

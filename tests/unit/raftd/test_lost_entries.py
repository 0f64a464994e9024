"""A node whose disk has broken its word: what it acknowledged is not there, and it says so."""

from __future__ import annotations

from core_kit import MODERN, Desk, append

from raftd import messages as m
from raftd.outputs import Emit


def told(desk):
    return [o.fields for o in desk.done if isinstance(o, Emit) and o.kind == "raft.lost"]


def test_whoever_hears_of_more_than_he_has_knows_that_he_has_lost_it():
    desk = Desk(term=1, log="1 1 1 1", options=MODERN)
    desk.hear(m.Heartbeat(1, 4, 1), "n2")
    assert told(desk) == []
    del desk.disk.entries[2:]  # synced, it had said
    desk.start()
    desk.hear(m.Heartbeat(1, 4, 2), "n2")
    assert told(desk) == [{"acknowledged": 4, "last": 2}]
    assert (desk.raft.acknowledged, desk.raft.log.last_index) == (4, 2)
    assert desk.raft.commit == 2
    desk.hear(m.Heartbeat(1, 4, 3), "n2")
    assert len(told(desk)) == 1, "once"


def test_what_a_new_leader_sends_again_is_lost_no_more():
    desk = Desk(term=1, log="1 1", options=MODERN)
    desk.hear(m.Heartbeat(1, 4, 1), "n2")
    desk.hear(append(2, "2/1", "1 1", 4), "n3")
    assert desk.raft.acknowledged == desk.raft.log.last_index == 4
    desk.hear(m.Heartbeat(2, 4, 1), "n3")
    assert len(told(desk)) == 1


def test_a_follower_that_is_only_behind_has_lost_nothing():
    """Its leader tells it of no more than it has acknowledged, however much is committed."""
    desk = Desk(term=1, log="1 1", options=MODERN)
    desk.hear(m.Heartbeat(1, 2, 1), "n2")
    desk.hear(append(1, "5/1", "1", 6), "n2")
    assert told(desk) == []
    assert desk.raft.acknowledged <= desk.raft.log.last_index

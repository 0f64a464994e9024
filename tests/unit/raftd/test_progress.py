"""What a leader knows of a follower: the three states, and their flow over a bad wire."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from core_kit import MODERN, Desk, append, leader, members, of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftd import messages as m
from raftd.errors import Overloaded
from raftd.progress import PROBE, REPLICATE, SNAPSHOT, Progress

WINDOW = 4


def replicating(match: int = 5) -> Progress:
    progress = Progress(next_index=match + 1)
    progress.accepted(match, 0.0)
    return progress


def test_a_probe_is_one_message_at_a_time():
    progress = Progress(next_index=6)
    assert progress.may_send(WINDOW)
    progress.sent(9, 1.0)
    assert not progress.may_send(WINDOW)
    assert progress.next_index == 6
    assert repr(progress) == "<Progress probe match=0 next=6>"


def test_an_accepted_probe_begins_the_pipeline():
    progress = Progress(next_index=6)
    progress.sent(9, 1.0)
    assert progress.accepted(9, 2.0)
    assert (progress.state, progress.match_index, progress.next_index) == (REPLICATE, 9, 10)
    assert progress.may_send(WINDOW)


def test_the_pipeline_runs_ahead_as_far_as_its_window():
    progress = replicating(5)
    for last in (7, 8, 12, 20):
        assert progress.may_send(WINDOW)
        progress.sent(last, 0.0)
        assert progress.next_index == last + 1
    assert not progress.may_send(WINDOW)
    progress.accepted(8, 0.0)
    assert (list(progress.inflight), progress.next_index) == ([12, 20], 21)
    assert progress.may_send(WINDOW)


def test_an_answer_that_came_before_is_no_news():
    progress = replicating(5)
    progress.sent(9, 0.0)
    assert not progress.accepted(5, 1.0)
    assert not progress.accepted(3, 1.0)
    assert (progress.match_index, progress.next_index, list(progress.inflight)) == (5, 10, [9])


def test_a_refused_probe_steps_back_to_the_hint_and_at_least_by_one():
    for hint, then in ((4, 4), (10, 10), (99, 10), (1, 1)):
        progress = Progress(next_index=11)
        progress.sent(12, 0.0)
        assert progress.refused(10, hint)
        assert (progress.next_index, progress.may_send(WINDOW)) == (then, True)


def test_a_refusal_of_another_probe_changes_nothing():
    progress = Progress(next_index=11)
    progress.sent(12, 0.0)
    for prev_index in (0, 9, 11):
        assert not progress.refused(prev_index, 1)
    assert (progress.next_index, progress.may_send(WINDOW)) == (11, False)


def test_a_refusal_in_the_pipeline_means_that_something_was_lost():
    progress = replicating(5)
    progress.sent(7, 0.0)
    progress.sent(9, 0.0)
    assert not progress.refused(5, 1)  # of before what it has acknowledged
    assert progress.refused(7, 6)
    assert (progress.state, progress.next_index, list(progress.inflight)) == (PROBE, 6, [])


def test_a_snapshot_holds_back_entries_until_it_is_in():
    progress = Progress(next_index=1)
    progress.start_snapshot(50, 0.0)
    assert (progress.state, progress.may_send(WINDOW)) == (SNAPSHOT, False)
    assert not progress.refused(0, 1)
    progress.accepted(49, 1.0)
    assert progress.state == SNAPSHOT
    progress.accepted(50, 2.0)
    assert (progress.state, progress.next_index) == (REPLICATE, 51)
    progress.snapshot_offset = progress.snapshot_wanted = progress.snapshot_sent = 7
    progress.start_snapshot(90, 3.0)
    assert progress.snapshot_offset == progress.snapshot_wanted == progress.snapshot_sent == 0


# -- as the leader uses it


def appends(sent) -> list[tuple[str, int, int]]:
    """(to, prev_index, number of entries)"""
    return [(to, a.prev_index, len(a.entries)) for to, a in of(m.AppendEntries, sent)]


def test_no_more_messages_are_under_way_than_the_window_allows():
    desk = leader(options=replace(MODERN, max_inflight=2, max_append_entries=3))
    desk.ack("n2")
    sent = appends(desk.propose(*[b"x"] * 20))
    assert sent == [("n2", 1, 3), ("n2", 4, 3)]
    assert appends(desk.ack("n2", 4)) == [("n2", 7, 3)]
    assert appends(desk.ack("n2", 10)) == [("n2", 10, 3), ("n2", 13, 3)]


def test_one_message_carries_no_more_bytes_than_allowed_and_at_least_one_entry():
    desk = leader(voters="n1 n2", options=replace(MODERN, max_append_bytes=100))
    desk.ack("n2")
    sent = desk.propose(b"a" * 60, b"b" * 60, b"c" * 500, b"d" * 30, b"e" * 30)
    sizes = [[len(e.data) for e in a.entries] for _, a in of(m.AppendEntries, sent)]
    assert sizes == [[60], [60], [500], [30, 30]]


def test_commands_of_one_turn_travel_in_one_message():
    desk = leader()
    desk.ack("n2")
    for number in range(10):
        desk.raft.propose([b"%d" % number], desk.now)
    assert appends(desk.pump()) == [("n2", 1, 10)]


def test_proposals_that_wait_for_a_majority_are_limited_in_bytes():
    desk = leader(options=replace(MODERN, max_uncommitted_bytes=100))
    desk.ack("n2")
    desk.propose(b"x" * 60)
    with pytest.raises(Overloaded, match="60 bytes wait"):
        desk.propose(b"x" * 41)
    assert desk.raft.log.last_index == 2
    desk.propose(b"x" * 40)
    desk.ack("n2", 2)
    desk.propose(b"x" * 60)


def test_a_follower_that_answers_heartbeats_and_nothing_else_is_sent_it_again():
    desk = leader(voters="n1 n2")
    desk.ack("n2")
    assert appends(desk.propose(b"x")) == [("n2", 1, 1)]
    sent = []
    for _ in range(3):
        context = of(m.Heartbeat, desk.beat())[0][1].context
        sent += appends(desk.hear(m.HeartbeatReply(1, context)))
    assert sent == [("n2", 1, 1)]


def test_what_is_long_on_its_way_is_sent_again_less_and_less_often():
    """On a link of 100 kB/s a large value takes seconds: each copy would keep the next waiting."""
    desk = leader(voters="n1 n2")
    desk.ack("n2")
    desk.propose(b"x")
    began, copies = desk.now, []
    while desk.now < began + 10:
        context = of(m.Heartbeat, desk.beat())[0][1].context
        again = appends(desk.hear(m.HeartbeatReply(1, context)))
        copies += [desk.now - began for _ in again]
    gaps = [b - a for a, b in pairwise(copies)]
    assert 4 <= len(copies) <= 7
    assert all(later > earlier for earlier, later in pairwise(gaps))
    assert gaps[-1] > 8 * gaps[0]
    desk.ack("n2")
    desk.propose(b"y")
    context = of(m.Heartbeat, desk.beat())[0][1].context
    desk.clock.now += 2.1 * MODERN.heartbeat_s
    assert appends(desk.hear(m.HeartbeatReply(1, context))) != [], "as soon as ever"


def test_a_follower_that_had_nothing_to_answer_is_not_taken_for_one_that_lost_something():
    desk = leader(voters="n1 n2", options=replace(MODERN, check_quorum=False))
    desk.ack("n2")
    desk.clock.now += 10
    context = of(m.Heartbeat, desk.beat())[0][1].context
    assert appends(desk.propose(b"x")) == [("n2", 1, 1)]
    assert appends(desk.hear(m.HeartbeatReply(1, context), after=0.001)) == []
    assert repr(desk.raft.leading.progress["n2"]) == "<Progress replicate match=1 next=3>"


def test_a_follower_that_answers_nothing_is_sent_nothing_more():
    desk = leader(options=replace(MODERN, check_quorum=False))
    desk.ack("n2")
    desk.propose(b"x")
    desk.ack("n2")
    sent = []
    for _ in range(20):
        sent += appends(desk.beat())
    assert sent == []


def test_chunks_that_were_lost_are_sent_again_from_where_the_follower_stands():
    options = replace(MODERN, snapshot_chunk_bytes=10, check_quorum=False)
    desk = leader(2, snapshot="50/1", log="1", options=options)
    desk.raft.snapshot = (desk.raft.snapshot[0], b"x" * 95)
    sent = of(m.InstallSnapshot, desk.hear(m.AppendReply(2, False, 51, 0, 0)))
    assert [chunk.offset for _, chunk in sent] == [0, 10, 20, 30]
    sent = desk.hear(m.SnapshotReply(2, 50, 10))
    assert [chunk.offset for _, chunk in sent] == [40]
    desk.hear(m.SnapshotReply(2, 50, 0))  # it was restarted
    again = []
    for _ in range(3):
        context = of(m.Heartbeat, desk.beat())[0][1].context
        again += of(m.InstallSnapshot, desk.hear(m.HeartbeatReply(2, context)))
    assert [chunk.offset for _, chunk in again][:4] == [0, 10, 20, 30]


def test_a_snapshot_counts_for_all_that_is_in_it():
    """Towards a majority, and for a learner that is to be promoted."""
    desk = leader(2, snapshot="50/1", log="1", membership=members("n1 n2 n3", "n4"))
    desk.propose(b"x")
    for name in ("n2", "n4"):
        sent = desk.hear(m.AppendReply(2, False, 51, 0, 0), name)
        assert [to for to, _ in of(m.InstallSnapshot, sent)] == [name]
    total = len(desk.raft.snapshot[1])
    desk.hear(m.SnapshotReply(2, 50, total), "n2")
    desk.ack("n2")
    assert desk.raft.commit == desk.raft.log.last_index
    desk.hear(m.SnapshotReply(2, 50, total), "n4")
    assert desk.raft.membership.voters == ("n1", "n2", "n3", "n4")


def test_an_answer_to_a_snapshot_that_is_not_under_way_changes_nothing():
    desk = leader(2, snapshot="50/1", log="1")
    for reply in (m.SnapshotReply(2, 50, 0), m.SnapshotReply(2, 50, 7), m.SnapshotReply(2, 9, 1)):
        assert desk.hear(reply) == []
    desk.hear(m.AppendReply(2, False, 51, 0, 0))
    assert desk.hear(m.SnapshotReply(2, 49, 7)) == []
    assert desk.raft.leading.progress["n2"].state == SNAPSHOT


def test_what_a_removed_follower_says_is_not_heard():
    desk = leader()
    desk.hear(m.AppendReply(1, True, 1, 0, 0), "n9")
    assert (desk.raft.commit, sorted(desk.raft.leading.progress)) == (0, ["n2", "n3"])


# -- over a wire that loses, repeats and reorders


class BadWire(RuleBasedStateMachine):
    """A leader with `last` entries; a follower that agrees up to `have`, and where it has more,
    differs. The leader must never believe that the follower has what it has not."""

    last = 30

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress(next_index=self.last)  # the first entry of its term
        self.have = 0
        self.match = 0
        self.to_follower: list[tuple[int, int]] = []
        self.to_leader: list[tuple[bool, int, int]] = []

    @rule(size=st.integers(1, 5))
    def send(self, size):
        if self.progress.next_index <= self.last and self.progress.may_send(WINDOW):
            prev = self.progress.next_index - 1
            last = min(prev + size, self.last)
            self.to_follower.append((prev, last))
            self.progress.sent(last, 0.0)

    @rule(count=st.integers(1, 3))
    def propose(self, count):
        self.last += count

    @precondition(lambda self: self.to_follower)
    @rule(place=st.integers(0, 50), keep=st.booleans(), lose=st.booleans())
    def at_the_follower(self, place, keep, lose):
        place %= len(self.to_follower)
        prev, last = self.to_follower[place]
        if not keep:
            del self.to_follower[place]
        if prev <= self.have:
            self.have = max(self.have, last)
            reply = (True, last, 0)
        else:
            reply = (False, prev, self.have + 1)
        if not lose:
            self.to_leader.append(reply)

    @precondition(lambda self: self.to_leader)
    @rule(place=st.integers(0, 50), keep=st.booleans())
    def at_the_leader(self, place, keep):
        place %= len(self.to_leader)
        accepted, index, hint = self.to_leader[place]
        if not keep:
            del self.to_leader[place]
        if accepted:
            self.progress.accepted(index, 0.0)
        else:
            self.progress.refused(index, hint)

    @rule()
    def stalled(self):
        """As the leader does when heartbeats are answered and entries are not."""
        if self.progress.state == REPLICATE and self.progress.inflight:
            self.progress.back_to_probe()
        elif self.progress.state == PROBE:
            self.progress.paused = False

    @invariant()
    def the_leader_believes_nothing_that_is_not_so(self):
        progress = self.progress
        assert progress.match_index <= self.have
        assert progress.match_index >= self.match, "match_index went back"
        self.match = progress.match_index
        assert 1 <= progress.match_index + 1 <= progress.next_index <= self.last + 1
        assert len(progress.inflight) <= WINDOW
        assert list(progress.inflight) == sorted(set(progress.inflight))

    def teardown(self):
        """On a good wire it gets there."""
        self.to_follower.clear()
        self.to_leader.clear()
        for _ in range(200):
            self.stalled()
            self.send(5)
            while self.to_follower:
                self.at_the_follower(0, keep=False, lose=False)
            while self.to_leader:
                self.at_the_leader(0, keep=False)
        assert self.progress.match_index == self.last == self.have


BadWire.TestCase.settings = settings(
    deadline=None, database=None, max_examples=60, stateful_step_count=40
)
test_a_leader_and_its_follower_agree_over_a_bad_wire = BadWire.TestCase


@pytest.mark.parametrize("pipelined", [1, 2, 3])
def test_appends_that_overtake_one_another_end_in_agreement(pipelined):
    follower = Desk("n2", term=1)
    messages = [append(1, new="1"), append(1, "1/1", "1 1"), append(1, "3/1", "1")]
    for message in reversed(messages[:pipelined]):
        follower.hear(message, "n1")
    for message in messages:
        follower.hear(message, "n1")
    assert follower.terms == "1 1 1 1"

"""Section 8 of the Raft paper and 6.4 of the dissertation, sentence by sentence: reads, leases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_kit import (
    FIVE,
    LOW,
    MODERN,
    Desk,
    Stage,
    leader,
    of,
    vote_request,
)

from raftd import messages as m
from raftd.leader import READS_MAX
from raftd.log import NOOP
from raftd.options import RaftOptions

LEASES = replace(MODERN, lease_reads=True)


def test_a_leader_commits_a_blank_entry_at_the_start_of_its_term():
    desk = leader(3, log="1 2")
    assert [(e.index, e.term, e.kind) for e in desk.raft.log.slice(3, 3)] == [(3, 3, NOOP)]
    desk.ack("n2")
    assert desk.raft.commit == 3


def test_a_leader_serves_no_read_before_it_has_committed_an_entry_of_its_term():
    desk = leader(3, log="1 2", commit=1)
    desk.read(1)
    desk.hear(m.HeartbeatReply(3, 1), "n2")
    assert desk.reads == {}
    desk.ack("n2")
    context = of(m.Heartbeat, desk.sent)[-1][1].context
    desk.hear(m.HeartbeatReply(3, context), "n2")
    assert desk.reads == {1: 3}


def test_a_leader_exchanges_heartbeats_with_a_majority_before_it_answers_a_read():
    desk = leader(voters=FIVE)
    for peer in ("n2", "n3"):
        desk.ack(peer)
    beats = of(m.Heartbeat, desk.read(7))
    assert beats, "it asks"
    context = beats[0][1].context
    desk.hear(m.HeartbeatReply(1, context), "n2")
    assert desk.reads == {}
    desk.hear(m.HeartbeatReply(1, context), "n4")
    assert desk.reads == {7: 1}


def test_a_leader_that_is_deposed_answers_no_read():
    desk = leader()
    desk.ack("n2")
    desk.read(7)
    desk.hear(vote_request(2, "9/9"), "n3")
    assert desk.reads == {7: None}


def test_answers_to_heartbeats_of_before_a_read_do_not_confirm_it():
    """Dissertation §6.4, step 3: a *new* round, sent after the read came."""
    desk = leader()
    desk.ack("n2")
    before = of(m.Heartbeat, desk.beat())[0][1].context
    after = of(m.Heartbeat, desk.read(7))[0][1].context
    assert after > before
    desk.hear(m.HeartbeatReply(1, before), "n2")
    desk.hear(m.HeartbeatReply(1, before), "n3")
    assert desk.reads == {}
    desk.hear(m.HeartbeatReply(1, after), "n3")
    assert desk.reads == {7: 1}


def test_one_round_of_heartbeats_confirms_all_reads_that_came_before_it():
    desk = leader()
    desk.ack("n2")
    for token in range(1, 101):
        desk.raft.read_index(token, desk.now)
    ((_, beat), _) = of(m.Heartbeat, desk.pump())
    desk.hear(m.HeartbeatReply(1, beat.context), "n3")
    assert desk.reads == dict.fromkeys(range(1, 101), 1)


def test_a_read_is_served_at_the_commit_index_of_its_arrival():
    desk = leader()
    desk.ack("n2")
    beats = of(m.Heartbeat, desk.read(7))
    assert beats, "it asks"
    context = beats[0][1].context
    desk.propose(b"later")
    desk.ack("n2")
    desk.hear(m.HeartbeatReply(1, context), "n2")
    assert (desk.raft.commit, desk.reads) == (2, {7: 1})


def test_a_follower_asks_its_leader_for_the_read_index():
    stage = Stage(options=MODERN)
    stage.elect("n1").beat()
    stage.settle()
    stage["n2"].read(5)
    stage.settle()
    assert stage["n2"].reads == {5: stage["n1"].raft.commit}


def test_who_does_not_lead_and_knows_no_leader_confirms_no_read():
    desk = Desk()
    desk.read(1)
    assert desk.reads == {1: None}
    assert desk.hear(m.ReadIndex(0, 9), "n3") == [("n3", m.ReadIndexReply(0, 9, 0))]


def test_learners_confirm_no_read():
    desk = leader(learners="n4 n5")
    desk.ack("n2")
    beats = of(m.Heartbeat, desk.read(7))
    assert beats, "it asks"
    context = beats[0][1].context
    for learner in ("n4", "n5"):
        desk.hear(m.HeartbeatReply(1, context), learner)
    assert desk.reads == {}


def test_reads_that_wait_are_limited_in_number():
    desk = leader()
    for token in range(READS_MAX + 1):
        desk.raft.read_index(token, desk.now)
    desk.pump()
    assert desk.reads == {READS_MAX: None}


def test_a_read_that_waits_when_the_leader_becomes_the_only_voter_is_answered():
    desk = leader(voters="n1 n2", options=MODERN)
    desk.ack("n2")
    desk.change(desk.raft.membership.removing(["n2"]))
    desk.read(7)
    desk.ack("n2")  # of the joint configuration; its answer to the heartbeat comes too late
    assert desk.raft.membership.voters == ("n1",)
    for _ in range(20):
        desk.fire()
    assert 7 in desk.reads


def test_a_leader_without_followers_remembers_no_more_and_more_rounds():
    desk = leader(voters="n1", options=MODERN)
    for _ in range(1000):
        desk.fire()
    assert len(desk.raft.leading._rounds_sent) < 10


# -- leases, dissertation §6.4.1


def in_office(options: RaftOptions = LEASES, voters: str = "n1 n2 n3") -> Desk:
    """A leader whose first round of heartbeats n2 has just answered."""
    desk = leader(options=options, voters=voters)
    desk.ack("n2")
    context = of(m.Heartbeat, desk.beat())[0][1].context
    desk.hear(m.HeartbeatReply(1, context), "n2")
    return desk


def test_within_its_lease_a_leader_answers_reads_without_asking():
    desk = in_office()
    assert desk.read(1) == []
    assert desk.reads == {1: 1}


def test_a_lease_ends_before_anybody_may_be_elected():
    desk = in_office()
    desk.clock.now += LOW
    assert len(of(m.Heartbeat, desk.read(1))) == 2
    assert desk.reads == {}


def test_a_lease_needs_a_majority():
    desk = in_office(voters=FIVE)
    desk.read(1)
    assert desk.reads == {}


def test_leases_need_leaders_that_check_their_quorum():
    with pytest.raises(ValueError, match="check_quorum"):
        RaftOptions(lease_reads=True, check_quorum=False)


def test_a_restarted_voter_elects_nobody_while_a_lease_it_granted_may_run():
    desk = Desk(options=LEASES)
    assert desk.hear(vote_request(5), after=LOW / 2) == []
    assert desk.raft.term == 0
    assert desk.hear(vote_request(5), after=LOW) == [("n2", m.VoteReply(5, True, False))]


def test_a_leader_that_hands_over_gives_up_its_lease():
    """The target's election ignores leases: it may be over, and written to, by now."""
    desk = in_office()
    assert desk.transfer("n2") == [("n2", m.TimeoutNow(1))]
    desk.read(1)
    assert desk.reads == {}


def test_who_heard_a_leader_just_now_votes_for_nobody_even_in_a_newer_term():
    voter = Desk(term=1, options=LEASES)
    voter.hear(vote_request(2, pre=True), "n3", after=1.0)
    voter.hear(m.Heartbeat(1, 0, 1), "n2")  # n2 counts on a lease from here on
    voter.hear(m.VoteReply(2, False, True), "n3")  # late: n3 refused what was asked long ago
    sent = voter.hear(vote_request(2), "n3")
    assert not any(reply.granted for _, reply in of(m.VoteReply, sent))

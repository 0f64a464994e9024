"""Sections 7 and 8 of the Raft paper, and the dissertation sentence by sentence: handing over
(3.10), reads (6.4), checking the quorum (6.2), the vote before the vote (9.6)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from core_kit import (
    FIVE,
    HIGH,
    LOW,
    MODERN,
    Desk,
    Stage,
    append,
    entries,
    leader,
    members,
    of,
    vote_request,
)

from raftd import messages as m
from raftd.core import CANDIDATE, FOLLOWER, LEADER, PRECANDIDATE
from raftd.errors import InvalidChange, NotLeader
from raftd.leader import READS_MAX
from raftd.log import NOOP, HardState, Restored, SnapshotMeta
from raftd.options import RaftOptions

PACKED = Desk().membership.pack()
LEASES = replace(MODERN, lease_reads=True)


def install(term: int, at: str, data: bytes, offset: int = 0, total: int | None = None):
    """One chunk of the snapshot whose last entry is `at` (index/term)."""
    index, last_term = map(int, at.split("/"))
    total = len(data) if total is None else total
    return m.InstallSnapshot(term, index, last_term, PACKED, offset, total, data)


# -- §7 Log compaction


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


# -- §8 Client interaction


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
    context = of(m.Heartbeat, desk.read(7))[0][1].context
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
    context = of(m.Heartbeat, desk.read(7))[0][1].context
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


# -- checking the quorum, dissertation §6.2


def test_a_leader_steps_down_if_an_election_timeout_passes_without_a_majority():
    desk = leader(options=MODERN, voters=FIVE)
    elected = desk.now
    while desk.raft.role == LEADER and desk.now < elected + HIGH:
        desk.hear(m.HeartbeatReply(1, 1), "n2")  # one of four is not enough
        desk.fire()
    assert desk.now - elected == pytest.approx(LOW)
    assert (desk.raft.role, desk.raft.term, desk.raft.leader_name) == (FOLLOWER, 1, None)


def test_a_leader_that_hears_a_majority_stays():
    desk = leader(options=MODERN)
    for _ in range(100):
        desk.fire()
        desk.hear(m.HeartbeatReply(1, 1), "n3")
    assert desk.raft.role == LEADER


def test_learners_do_not_keep_a_leader_in_office():
    desk = leader(options=MODERN, learners="n4 n5")
    elected = desk.now
    while desk.raft.role == LEADER and desk.now < elected + HIGH:
        for learner in ("n4", "n5"):
            desk.hear(m.HeartbeatReply(1, 1), learner)
        desk.fire()
    assert desk.now - elected == pytest.approx(LOW)


def test_who_believes_that_a_leader_is_alive_disregards_requests_for_votes():
    """§6, third issue: not answered, and the term not updated."""
    follower = Desk(term=1, options=MODERN)
    follower.hear(m.Heartbeat(1, 0, 1), "n2", after=1.0)
    for desk in (follower, leader(options=MODERN)):
        assert desk.hear(vote_request(9, "9/9"), "n3", after=LOW / 2) == []
        assert desk.raft.term == 1
    sent = follower.hear(vote_request(9, "9/9"), "n3", after=LOW)
    assert sent == [("n3", m.VoteReply(9, True, False))]


def test_a_leader_frees_a_candidate_that_nobody_answers():
    """It steps down to the candidate's term, and whoever is elected then has a higher one."""
    stage = Stage(options=MODERN)
    stage.elect("n1")
    stage["n3"].raft.campaign(pre=False)
    stage["n3"].raft.campaign(pre=False)
    stage["n3"].pump()
    stage.settle()
    assert (stage["n1"].raft.term, stage["n3"].raft.term) == (1, 3)
    stage["n1"].beat()
    stage.settle()
    assert stage["n1"].raft.role == FOLLOWER
    assert stage["n1"].raft.term == 3


# -- the vote before the vote, dissertation §9.6


def test_a_server_increments_its_term_only_when_others_would_vote_for_it():
    desk = Desk(options=MODERN)
    assert desk.fire() == [(to, m.VoteRequest(1, 0, 0, True, False)) for to in ("n2", "n3")]
    assert (desk.raft.role, desk.raft.term, desk.raft.vote) == (PRECANDIDATE, 0, None)
    assert desk.disk.hard_state == HardState()
    sent = desk.hear(m.VoteReply(1, True, True))
    assert sent == [(to, m.VoteRequest(1, 0, 0, False, False)) for to in ("n2", "n3")]
    assert (desk.raft.role, desk.raft.term, desk.raft.vote) == (CANDIDATE, 1, "n1")


def test_the_term_of_a_server_that_is_cut_off_does_not_grow():
    desk = Desk(options=MODERN)
    for _ in range(50):
        desk.fire()
    assert desk.raft.term == 0


@pytest.mark.parametrize(
    ("last", "granted"), [("2/2", True), ("1/3", True), ("1/2", False), ("9/1", False)]
)
def test_a_pre_vote_is_given_only_to_a_log_that_is_up_to_date(last, granted):
    desk = Desk(log="1 2", term=3, options=MODERN)
    ((_, reply),) = desk.hear(vote_request(4, last, pre=True))
    assert reply == m.VoteReply(4 if granted else 3, granted, True)


def test_who_cannot_write_neither_stands_nor_offers_its_vote():
    desk = Desk(log="1 2", term=3, options=MODERN)
    desk.raft.writable = False
    ((_, reply),) = desk.hear(vote_request(4, "2/2", pre=True))
    assert reply == m.VoteReply(3, False, True)
    desk.fire()
    assert (desk.raft.role, desk.raft.term) == (FOLLOWER, 3)
    desk.raft.writable = True
    desk.fire()
    assert desk.raft.role == PRECANDIDATE


def test_a_pre_vote_binds_nobody():
    desk = Desk(options=MODERN)
    due = desk.raft.next_deadline()
    for name in ("n2", "n3"):
        ((_, reply),) = desk.hear(vote_request(1, pre=True), name)
        assert reply.granted
    assert (desk.raft.term, desk.raft.vote, desk.raft.next_deadline()) == (0, None, due)
    assert desk.disk.hard_state == HardState()


def test_a_pre_vote_is_not_given_while_a_leader_is_heard():
    desk = Desk(term=1, options=MODERN)
    desk.hear(m.Heartbeat(1, 0, 1), after=1.0)
    assert desk.hear(vote_request(2, "9/1", pre=True), "n3", after=LOW / 2) == []
    ((_, reply),) = desk.hear(vote_request(2, "9/1", pre=True), "n3", after=LOW)
    assert reply.granted


def test_a_pre_vote_is_not_given_while_a_leader_is_heard_whatever_else_is_checked():
    desk = Desk(term=1, options=replace(MODERN, check_quorum=False))
    desk.hear(m.Heartbeat(1, 0, 1), after=1.0)
    sent = desk.hear(vote_request(2, "9/1", pre=True), "n3")
    assert not any(reply.granted for _, reply in of(m.VoteReply, sent))


def test_real_votes_do_not_count_as_pre_votes_nor_the_other_way_round():
    desk = Desk(term=1, options=MODERN)
    desk.fire()
    desk.hear(m.VoteReply(1, True, False))
    assert desk.raft.role == PRECANDIDATE
    desk.hear(m.VoteReply(2, True, True))
    assert desk.raft.role == CANDIDATE
    desk.hear(m.VoteReply(2, True, True), "n3")
    assert desk.raft.role == CANDIDATE


def test_who_would_not_be_elected_gives_up_and_waits_again():
    desk = Desk(voters=FIVE, options=MODERN)
    desk.fire()
    for peer in ("n2", "n3", "n4"):
        desk.hear(m.VoteReply(0, False, True), peer)
    assert (desk.raft.role, desk.raft.term) == (FOLLOWER, 0)
    assert desk.raft.next_deadline() >= desk.now + LOW


def test_a_pre_candidate_of_the_past_is_told_the_current_term():
    old, new = Desk(term=1, options=MODERN), Desk("n2", term=5, options=MODERN)
    request = old.fire()[0][1]
    ((_, reply),) = new.hear(request, "n1")
    old.hear(reply)
    assert (old.raft.role, old.raft.term) == (FOLLOWER, 5)


# -- handing over, dissertation §3.10


def test_a_leader_that_hands_over_accepts_no_client_requests():
    desk = leader()
    desk.transfer("n2")
    with pytest.raises(NotLeader) as refused:
        desk.propose(b"x")
    assert refused.value.leader == "n2"


def test_the_target_is_brought_up_to_date_first_and_then_told_to_stand():
    desk = leader()
    desk.propose(b"x")
    assert of(m.TimeoutNow, desk.transfer("n2")) == []
    assert of(m.TimeoutNow, desk.ack("n2", 1)) == []
    assert of(m.TimeoutNow, desk.ack("n3")) == []
    assert of(m.TimeoutNow, desk.ack("n2")) == [("n2", m.TimeoutNow(1))]


def test_the_target_stands_at_once_and_its_request_says_that_it_was_told_to():
    desk = Desk(term=1, options=MODERN)
    desk.hear(m.Heartbeat(1, 0, 1), "n2")
    sent = desk.hear(m.TimeoutNow(1), "n2")
    assert sent == [(to, m.VoteRequest(2, 0, 0, False, True)) for to in ("n2", "n3")]


def test_a_request_of_the_leaders_own_wish_is_granted_although_the_leader_lives():
    """§4.2.3"""
    follower = Desk(term=1, options=MODERN)
    follower.hear(m.Heartbeat(1, 0, 1), "n2")
    forced = vote_request(2, "9/1", forced=True)
    assert follower.hear(forced, "n3") == [("n3", m.VoteReply(2, True, False))]
    deposed = leader(options=MODERN)
    assert deposed.hear(forced, "n3") == [("n3", m.VoteReply(2, True, False))]
    assert deposed.raft.role == FOLLOWER


def test_if_the_target_does_not_take_over_in_an_election_timeout_the_leader_goes_on():
    desk = leader()
    desk.clock.now += 0.01  # so that nothing else is due together with the end
    desk.transfer("n2")
    began = desk.now
    while desk.raft.leading.transfer_to is not None:
        with pytest.raises(NotLeader):
            desk.propose(b"refused")
        desk.fire()
    assert desk.now == pytest.approx(began + HIGH)
    desk.propose(b"accepted again")


@pytest.mark.parametrize("to", ["n1", "n4", "n9"])
def test_leadership_goes_to_another_voter_only(to):
    desk = leader(learners="n4")
    with pytest.raises(InvalidChange, match="not another voter"):
        desk.transfer(to)


def test_told_to_stand_by_a_leader_of_the_past_or_as_a_learner_nobody_does():
    assert Desk(term=3).hear(m.TimeoutNow(2)) == []
    assert Desk("n4", learners="n4", term=2).hear(m.TimeoutNow(2)) == []


def test_a_transfer_takes_one_round_of_votes_and_unseats_nobody_else():
    stage = Stage(options=MODERN)
    stage.elect("n1")
    stage["n1"].transfer("n3")
    stage.settle()
    roles = {name: (desk.raft.role, desk.raft.term) for name, desk in stage.desks.items()}
    assert roles == {"n1": (FOLLOWER, 2), "n2": (FOLLOWER, 2), "n3": (LEADER, 2)}


# -- what the contract with the disk allows


def test_nobody_leads_the_same_term_twice():
    """The second life of an only voter must not use a term that a learner knows of the first."""
    stage = Stage("n1 n2", membership=members("n1", "n2"), options=MODERN)
    stage["n1"].slow_disk = True
    stage["n1"].fire()
    stage.settle()
    with suppress(NotLeader):
        stage["n1"].propose(b"of the first life")
    stage.settle()
    stage.crash("n1")
    stage.restart("n1")
    stage["n1"].slow_disk = False
    stage["n1"].fire()
    stage["n1"].propose(b"of the second life")
    stage.settle()
    stage["n1"].fire()
    stage.settle()
    assert stage["n1"].state == stage["n2"].state == [b"of the second life"]

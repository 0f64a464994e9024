"""Who is in office, and until when: the dissertation sentence by sentence, 3.10 (handing over), 6.2
(checking the quorum) and 9.6 (the vote before the vote)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from core_kit import (
    FIVE,
    HIGH,
    LOW,
    MODERN,
    Desk,
    Stage,
    leader,
    members,
    of,
    vote_request,
)

from raftd import messages as m
from raftd.core import CANDIDATE, DOUBT_HEARTBEATS, FOLLOWER, LEADER, PRECANDIDATE
from raftd.errors import InvalidChange, NotLeader
from raftd.log import HardState
from raftd.outputs import Doubt

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


# -- a leader whose machine says that its process is dead

LATE = DOUBT_HEARTBEATS * MODERN.heartbeat_s


def led(name: str = "n1", leader: str = "n2", **given) -> Desk:
    """A follower that has just heard its leader."""
    desk = Desk(name, term=1, options=given.pop("options", MODERN), **given)
    desk.hear(m.Heartbeat(1, 0, 1), leader, after=1.0)
    return desk


def doubts(desk: Desk) -> list[str]:
    return [output.leader for output in desk.done if isinstance(output, Doubt)]


def gone(desk: Desk, leader: str = "n2"):
    desk.raft.leader_gone(leader, desk.now)
    return desk.pump()


def test_a_leader_that_is_late_is_doubted_until_it_is_heard_again_or_an_election_begins():
    desk = led()
    began = desk.now
    desk.fire()
    assert desk.now - began == pytest.approx(LATE)
    assert doubts(desk) == ["n2"]
    desk.fire()
    assert desk.now - began == pytest.approx(LATE + MODERN.heartbeat_s)
    assert doubts(desk) == ["n2", "n2"]
    desk.hear(m.Heartbeat(1, 0, 2), "n2")
    desk.clock.now += LATE - 0.001
    desk.raft.on_deadline(desk.now)
    desk.pump()
    assert len(doubts(desk)) == 2
    while desk.raft.role == FOLLOWER:
        desk.fire()
    count = len(doubts(desk))
    desk.fire()
    assert len(doubts(desk)) == count


def test_heartbeats_in_time_leave_no_doubt():
    desk = led()
    for beat in range(50):
        desk.clock.now += MODERN.heartbeat_s
        desk.raft.on_deadline(desk.now)
        desk.hear(m.Heartbeat(1, 0, beat), "n2")
    assert doubts(desk) == []


def test_who_knows_that_its_leader_is_dead_asks_for_votes_without_waiting():
    desk = led()
    desk.clock.now += LATE
    died = desk.now
    gone(desk)
    assert (desk.raft.role, desk.raft.leader_name) == (FOLLOWER, None)
    asked = desk.fire()
    assert {request.pre for _, request in of(m.VoteRequest, asked)} == {True}
    assert desk.now - died <= 2 * MODERN.heartbeat_s
    assert desk.now - died < LOW - LATE


def test_those_who_know_it_do_not_all_stand_at_once():
    """One after another by name, and never in the same instant."""
    for seed in range(20):
        times = []
        for name in ("n1", "n3", "n4", "n5"):
            desk = led(name, voters=FIVE)
            desk.raft.rng.seed(f"{seed}/{name}")
            died = desk.now
            gone(desk)
            desk.fire()
            times.append(desk.now - died)
        assert times == sorted(times)
        assert min(b - a for a, b in pairwise(times)) >= MODERN.heartbeat_s / 4 - 1e-9


def test_the_next_leader_is_there_before_anybody_has_timed_out():
    stage = Stage(options=MODERN)
    stage.elect("n2").beat()
    stage.settle()
    stage.crash("n2")
    stage.clock.now += LATE
    died = stage.clock.now
    for name in ("n1", "n3"):
        gone(stage[name])
    stage["n1"].fire()
    stage.settle()
    assert stage["n1"].raft.role == LEADER
    assert stage["n3"].raft.leader_name == "n1"
    assert stage.clock.now - died < LOW / 2


def test_one_who_errs_about_it_unseats_nobody():
    """The others hear the leader, and give no pre-vote; nor does the term grow."""
    stage = Stage(options=MODERN)
    stage.elect("n2").beat()
    stage.settle()
    gone(stage["n1"])
    stage["n1"].fire()
    stage.settle()
    assert stage["n1"].raft.role == PRECANDIDATE
    stage["n2"].beat()
    stage.settle()
    roles = {name: (desk.raft.role, desk.raft.term) for name, desk in stage.desks.items()}
    assert roles == {"n1": (FOLLOWER, 1), "n2": (LEADER, 1), "n3": (FOLLOWER, 1)}


def test_that_somebody_else_is_dead_or_a_leader_of_the_past_means_nothing():
    desk = led()
    before = desk.raft.next_deadline()
    gone(desk, "n3")
    assert (desk.raft.leader_name, desk.raft.next_deadline()) == ("n2", before)
    candidate = led()
    while candidate.raft.role == FOLLOWER:
        candidate.fire()
    due = candidate.raft.next_deadline()
    gone(candidate)
    assert (candidate.raft.role, candidate.raft.next_deadline()) == (PRECANDIDATE, due)
    in_office = leader(options=MODERN)
    gone(in_office, "n1")
    assert in_office.raft.role == LEADER


def test_learners_do_not_stand_when_the_leader_is_dead():
    desk = led("n4", learners="n4")
    gone(desk)
    for _ in range(5):
        assert of(m.VoteRequest, desk.fire()) == []


def test_where_leaders_count_on_leases_their_end_is_waited_for():
    """A forged word of a death must not make two leaders that answer reads."""
    desk = led(options=replace(MODERN, lease_reads=True))
    due = desk.raft.next_deadline()
    gone(desk)
    assert (desk.raft.leader_name, desk.raft.next_deadline()) == ("n2", due)
    assert desk.hear(vote_request(2), "n3", after=LOW / 2) == []

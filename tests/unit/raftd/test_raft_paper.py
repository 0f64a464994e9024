"""The Raft paper (extended version) sentence by sentence: figure 2 and section 5.
Section 6 is in test_membership.py; 7 is in test_raft_compaction.py, 8 in test_raft_reads.py,
and who stays in office (the dissertation) in test_raft_office.py."""

from __future__ import annotations

import pytest
from core_kit import (
    FIVE,
    HIGH,
    LOW,
    MODERN,
    Desk,
    Stage,
    append,
    candidate,
    entries,
    leader,
    of,
    vote_request,
)

from raftd import messages as m
from raftd.core import CANDIDATE, FOLLOWER, LEADER
from raftd.errors import InvariantViolated, NotLeader
from raftd.log import COMMAND, Entry, HardState
from raftd.options import RaftOptions

PACKED = Desk().membership.pack()

# One message of each kind that carries its sender's term, as of term 7.
OF_TERM_7 = [
    vote_request(7, "0/0"),
    m.VoteReply(7, False, False),
    append(7),
    m.AppendReply(7, False, 0, 0, 0),
    m.Heartbeat(7, 0, 1),
    m.HeartbeatReply(7, 1),
    m.InstallSnapshot(7, 1, 1, PACKED, 0, 9, b"half"),
    m.SnapshotReply(7, 1, 0),
    m.ReadIndex(7, 1),
    m.ReadIndexReply(7, 1, 0),
]


def kind(message: m.Message) -> str:
    return type(message).__name__


# -- §5.1 Raft basics


def test_servers_start_as_followers():
    raft = Desk().raft
    assert repr(raft) == "<Raft n1 FOLLOWER term=0 commit=0/0>"
    assert (raft.vote, raft.leader_name) == (None, None)


@pytest.mark.parametrize("message", OF_TERM_7, ids=kind)
@pytest.mark.parametrize("make", [Desk, candidate, leader], ids=[FOLLOWER, CANDIDATE, LEADER])
def test_a_server_that_sees_a_larger_term_adopts_it_and_becomes_a_follower(make, message):
    desk = make(log="1")
    desk.hear(message)
    assert desk.raft.term == desk.disk.hard_state.term == 7
    assert desk.raft.role == FOLLOWER


@pytest.mark.parametrize("message", OF_TERM_7, ids=kind)
def test_a_message_with_a_stale_term_changes_nothing(message):
    desk = leader(9, log="1 1 2")
    before = repr(desk.raft), desk.terms, desk.disk.hard_state
    desk.hear(message)
    assert (repr(desk.raft), desk.terms, desk.disk.hard_state) == before


def test_a_request_with_a_stale_term_is_answered_with_the_current_one():
    desk = Desk(term=9)
    assert desk.hear(vote_request(7)) == [("n2", m.VoteReply(9, False, False))]
    for request in (append(7, new="7"), m.Heartbeat(7, 0, 1)):
        ((to, reply),) = desk.hear(request)
        assert (to, reply.term, reply.accepted) == ("n2", 9, False)
    assert desk.terms == ""


def test_term_and_vote_are_on_stable_storage_before_the_server_responds():
    desk = Desk()
    desk.slow_disk = True
    assert desk.hear(vote_request(1)) == []
    assert desk.sync() == [("n2", m.VoteReply(1, True, False))]
    assert desk.disk.hard_state == HardState(1, "n2", 0)


def test_a_candidates_own_vote_is_on_stable_storage_before_it_asks_for_others():
    desk = Desk()
    desk.slow_disk = True
    assert desk.fire() == []
    assert [to for to, _ in of(m.VoteRequest, desk.sync())] == ["n2", "n3"]
    assert desk.disk.hard_state == HardState(1, "n1", 0)


def test_a_restarted_server_remembers_term_vote_and_log():
    desk = Desk()
    desk.hear(append(4, new="1 4"))
    desk.hear(vote_request(5, "9/9"), "n3")
    desk.restart()
    assert (desk.raft.term, desk.raft.vote, desk.terms) == (5, "n3", "1 4")
    assert desk.hear(vote_request(5, "9/9"), "n2") == [("n2", m.VoteReply(5, False, False))]


# -- §5.2 Leader election


def test_a_follower_that_hears_nothing_for_an_election_timeout_begins_an_election():
    desk = Desk(log="1 1")
    sent = desk.fire()
    assert sent == [(to, m.VoteRequest(2, 2, 1, False, False)) for to in ("n2", "n3")]
    assert (desk.raft.role, desk.raft.term, desk.raft.vote) == (CANDIDATE, 2, "n1")


@pytest.mark.parametrize("message", OF_TERM_7, ids=kind)
def test_only_a_current_leaders_words_keep_a_follower_from_an_election(message):
    desk = Desk(term=7, vote="n2", voters=FIVE, log="1")
    due = desk.stands_at
    desk.clock.now = due - 0.001
    desk.hear(message, "n3")
    from_leader = kind(message) in ("AppendEntries", "Heartbeat", "InstallSnapshot")
    assert (desk.stands_at >= desk.now + LOW) == from_leader
    assert (desk.stands_at == due) != from_leader


def test_granting_a_vote_restarts_the_election_timer_and_refusing_one_does_not():
    desk = Desk(log="1")
    due = desk.raft.next_deadline()
    desk.hear(vote_request(1, "0/0"), after=due - 0.001)
    assert desk.raft.next_deadline() == due
    desk.hear(vote_request(2, "1/1"))
    assert desk.raft.next_deadline() >= desk.now + LOW


def test_a_leader_of_the_past_does_not_restart_the_election_timer():
    desk = Desk(term=3)
    due = desk.raft.next_deadline()
    for stale in (append(2), m.Heartbeat(2, 0, 1)):
        desk.hear(stale, after=due / 3)
    assert desk.raft.next_deadline() == due


@pytest.mark.parametrize(
    ("size", "granted", "refused", "role"),
    [
        (1, 0, 0, LEADER), (2, 0, 0, CANDIDATE), (2, 1, 0, LEADER), (2, 0, 1, FOLLOWER),
        (3, 0, 1, CANDIDATE), (3, 1, 1, LEADER), (3, 0, 2, FOLLOWER), (4, 1, 1, CANDIDATE),
        (4, 2, 1, LEADER), (4, 1, 2, FOLLOWER), (5, 1, 2, CANDIDATE), (5, 2, 0, LEADER),
        (5, 2, 2, LEADER), (5, 1, 3, FOLLOWER), (7, 2, 3, CANDIDATE), (7, 3, 3, LEADER),
    ],
)  # fmt: skip
def test_a_candidate_wins_with_the_votes_of_a_majority(size, granted, refused, role):
    desk = candidate(voters=" ".join(f"n{i}" for i in range(1, size + 1)))
    votes = [True] * granted + [False] * refused
    for peer, vote in zip(desk.others, votes, strict=False):
        desk.hear(m.VoteReply(1, vote, False), peer)
    assert desk.raft.role == role


def test_a_server_votes_for_at_most_one_candidate_in_a_term():
    voter = Desk()
    assert voter.hear(vote_request(1), "n2") == [("n2", m.VoteReply(1, True, False))]
    assert voter.hear(vote_request(1), "n3") == [("n3", m.VoteReply(1, False, False))]
    assert voter.hear(vote_request(2), "n3") == [("n3", m.VoteReply(2, True, False))]


def test_a_vote_is_granted_again_to_whom_it_was_granted():
    """§5.5: the request, or the answer, was lost."""
    voter = Desk()
    answers = [voter.hear(vote_request(1), "n2") for _ in range(3)]
    voter.restart()
    answers.append(voter.hear(vote_request(1), "n2"))
    assert answers == [[("n2", m.VoteReply(1, True, False))]] * 4


def test_a_candidate_votes_for_itself_and_for_nobody_else():
    desk = candidate()
    assert desk.hear(vote_request(1, "9/1"), "n3") == [("n3", m.VoteReply(1, False, False))]
    assert desk.raft.role == CANDIDATE


def test_a_vote_that_the_network_repeats_counts_once():
    desk = candidate(voters=FIVE)
    for _ in range(4):
        desk.hear(m.VoteReply(1, True, False), "n2")
    assert desk.raft.role == CANDIDATE


def test_a_vote_of_an_earlier_election_does_not_count():
    desk = candidate()
    desk.fire()
    desk.hear(m.VoteReply(1, True, False), "n2")
    assert (desk.raft.role, desk.raft.term) == (CANDIDATE, 2)
    desk.hear(m.VoteReply(2, True, False), "n2")
    assert desk.raft.role == LEADER


def test_a_vote_of_a_stranger_does_not_count():
    desk = candidate()
    desk.hear(m.VoteReply(1, True, False), "n9")
    assert desk.raft.role == CANDIDATE


def test_a_new_leader_sends_heartbeats_to_all_other_servers_at_once():
    desk = candidate(voters=FIVE)
    desk.hear(m.VoteReply(1, True, False), "n2")
    sent = desk.hear(m.VoteReply(1, True, False), "n3")
    assert [to for to, _ in of(m.Heartbeat, sent)] == ["n2", "n3", "n4", "n5"]


def test_a_leader_repeats_its_heartbeats_in_idle_periods():
    desk = leader()
    for _ in range(5):
        before = desk.now
        assert [to for to, _ in of(m.Heartbeat, desk.beat())] == ["n2", "n3"]
        assert desk.now - before <= MODERN.heartbeat_s + 1e-9


@pytest.mark.parametrize(
    "message", [x for x in OF_TERM_7 if kind(x) in ("AppendEntries", "Heartbeat")], ids=kind
)
def test_a_candidate_that_hears_a_leader_of_its_term_becomes_its_follower(message):
    desk = candidate(7)
    desk.hear(message, "n3")
    assert (desk.raft.role, desk.raft.leader_name, desk.raft.term) == (FOLLOWER, "n3", 7)
    assert desk.raft.vote == "n1"  # given for this term, and kept


def test_a_candidate_that_hears_a_leader_of_an_earlier_term_goes_on():
    desk = candidate(8)
    desk.hear(append(7), "n3")
    assert (desk.raft.role, desk.raft.term) == (CANDIDATE, 8)


def test_a_candidate_whose_election_was_split_begins_another():
    desk = candidate()
    desk.hear(m.VoteReply(1, False, False), "n2")
    assert [message.term for _, message in of(m.VoteRequest, desk.fire())] == [2, 2]


@pytest.mark.parametrize("make", [Desk, candidate], ids=[FOLLOWER, CANDIDATE])
def test_election_timeouts_are_random_and_drawn_anew(make):
    waits = []
    desk = make()
    for _ in range(200):
        waits.append(desk.raft.next_deadline() - desk.now)
        desk.fire()
    assert LOW <= min(waits) < LOW + 0.02
    assert HIGH - 0.02 < max(waits) <= HIGH
    assert len(set(waits)) == len(waits)


def test_a_server_that_is_cut_off_wins_no_election():
    desk = candidate(voters=FIVE)
    for _ in range(50):
        desk.fire()
    assert (desk.raft.role, desk.raft.term) == (CANDIDATE, 51)


# -- §5.3 Log replication


def test_a_leader_appends_a_command_and_sends_it_to_each_other_server():
    desk = leader()
    for peer in ("n2", "n3"):
        desk.ack(peer)
    sent = desk.propose(b"x")
    entry = Entry(2, 1, COMMAND, b"x")
    assert sent == [(to, m.AppendEntries(1, 1, 1, 1, [entry])) for to in ("n2", "n3")]
    assert desk.disk.entries[-1] == entry


def test_a_follower_names_the_leader_to_a_client():
    desk = Desk()
    with pytest.raises(NotLeader) as unknown:
        desk.propose(b"x")
    desk.hear(m.Heartbeat(1, 0, 1), "n3")
    with pytest.raises(NotLeader) as known:
        desk.propose(b"x")
    assert (unknown.value.leader, known.value.leader) == (None, "n3")


@pytest.mark.parametrize(("size", "needed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_an_entry_is_committed_once_a_majority_has_it(size, needed):
    desk = leader(voters=" ".join(f"n{i}" for i in range(1, size + 1)))
    desk.propose(b"x")
    for count, peer in enumerate(desk.others):
        assert (desk.state == [b"x"]) == (count >= needed)
        desk.ack(peer)
    assert desk.state == [b"x"]


def test_a_leaders_own_copy_counts_when_its_disk_has_it_and_not_before():
    desk = leader()
    desk.slow_disk = True
    desk.propose(b"x")
    desk.ack("n2")
    assert desk.raft.commit == 1
    desk.sync()
    assert desk.raft.commit == 2


def test_a_majority_commits_without_the_leaders_own_disk():
    """Dissertation §10.2.1: it writes in parallel with its followers."""
    desk = leader()
    desk.slow_disk = True
    desk.propose(b"x")
    desk.ack("n2")
    desk.ack("n3")
    assert desk.state == [b"x"]


def test_one_slow_follower_does_not_hold_up_the_others():
    desk = leader(voters=FIVE)
    desk.propose(b"x")
    for peer in ("n2", "n3"):
        desk.ack(peer)
    assert desk.state == [b"x"]


def test_committing_an_entry_commits_all_before_it_whoever_made_them():
    desk = leader(5, log="1 2 2 4", commit=1)
    desk.ack("n3")
    assert [(e.index, e.term) for e in desk.applied] == [(1, 1), (2, 2), (3, 2), (4, 4), (5, 5)]


def test_every_server_applies_each_entry_once_and_in_log_order():
    stage = Stage()
    stage.elect("n1")
    for number in range(20):
        stage["n1"].propose(b"%d" % number)
        stage["n1"].fire()
        stage.settle()
    stage["n1"].fire()
    stage.settle()
    for desk in stage.desks.values():
        assert [e.index for e in desk.applied] == list(range(1, 22))
        assert desk.state == [b"%d" % number for number in range(20)]


def test_a_follower_learns_from_the_leader_what_is_committed():
    desk = Desk()
    desk.hear(append(1, new="1 1 1", commit=1))
    assert len(desk.applied) == 1
    desk.hear(append(1, "3/1", commit=2))
    assert len(desk.applied) == 2
    desk.hear(m.Heartbeat(1, 3, 1))
    assert desk.applied == entries("1 1 1")


def test_a_follower_commits_no_further_than_the_last_entry_it_was_sent():
    """Figure 2: min(leaderCommit, index of last new entry). What lies behind may conflict."""
    desk = Desk(log="1 1 1 1")
    desk.hear(append(2, "1/1", "1", commit=4))
    assert desk.raft.commit == 2
    desk.hear(m.Heartbeat(2, 9, 1))
    assert desk.raft.commit <= desk.raft.log.last_index


def test_a_heartbeat_names_no_more_as_committed_than_its_receiver_is_known_to_have():
    """It does not say what comes before: what a follower has there may be something else."""
    desk = leader()
    desk.propose(b"x")
    desk.ack("n2")
    beats = {to: beat.commit for to, beat in of(m.Heartbeat, desk.beat())}
    assert beats == {"n2": 2, "n3": 0}


def test_a_message_of_long_ago_takes_no_commit_back():
    desk = Desk()
    desk.hear(append(1, new="1 1 1", commit=3))
    desk.hear(append(1, new="1", commit=1))
    desk.hear(m.Heartbeat(1, 0, 1))
    assert desk.raft.commit == 3


def test_a_leader_retries_until_a_follower_has_stored_all_entries():
    desk = leader()
    desk.ack("n2")
    sent = []
    for _ in range(4):  # n3 answers heartbeats; what it is sent is lost
        context = of(m.Heartbeat, desk.beat())[0][1].context
        sent += desk.hear(m.HeartbeatReply(1, context), "n3")
    retried = [message for to, message in of(m.AppendEntries, sent) if to == "n3"]
    assert retried
    assert all(message.entries == desk.raft.log.slice(1, 1) for message in retried)
    desk.ack("n3")
    assert of(m.AppendEntries, desk.beat() + desk.beat() + desk.beat()) == []


@pytest.mark.parametrize(
    ("prev", "fits"),
    [("0/0", True), ("1/1", True), ("2/2", True), ("1/2", False), ("2/1", False), ("3/3", False)],
)
def test_a_follower_refuses_entries_unless_it_has_the_one_before_them(prev, fits):
    desk = Desk(log="1 2", term=3)
    ((_, reply),) = desk.hear(append(3, prev))
    assert reply.accepted == fits
    assert reply.index == int(prev[0])
    assert desk.terms == "1 2"


def test_entries_are_on_stable_storage_before_they_are_acknowledged():
    desk = Desk(term=1)
    desk.hear(m.Heartbeat(1, 0, 1))
    desk.slow_disk = True
    assert desk.hear(append(1, new="1 1")) == []
    assert desk.hear(append(1, new="1 1")) == []  # it has them; its disk has not
    assert [reply.index for _, reply in desk.sync()] == [2, 2]
    assert desk.disk.entries == entries("1 1")


@pytest.mark.parametrize(
    ("log", "prev", "new", "result"),
    [
        ("1 2", "2/2", "3", "1 2 3"),
        ("1 2", "1/1", "3 4", "1 3 4"),
        ("1 2", "0/0", "1", "1 2"),
        ("1 2", "0/0", "3", "3"),
        ("1 1 1 2 2", "2/1", "3", "1 1 3"),
        ("1 1 1 2 2", "2/1", "1 3 3", "1 1 1 3 3"),
        ("1 1 1 2 2", "1/1", "1 1 2", "1 1 1 2 2"),
    ],
)
def test_an_entry_that_conflicts_is_deleted_with_all_that_follow_it(log, prev, new, result):
    desk = Desk(log=log, term=4)
    desk.hear(append(4, prev, new))
    assert desk.terms == result
    desk.restart()
    assert desk.terms == result


def test_an_append_of_long_ago_truncates_nothing():
    """Figure 2, AppendEntries 3: only "if an existing entry conflicts"; it may be a repeat."""
    desk = Desk()
    desk.hear(append(1, new="1 1 1 1"))
    for stale in (append(1, new="1 1"), append(1, "2/1", "1"), append(1, "1/1")):
        ((_, reply),) = desk.hear(stale)
        assert reply.accepted
        assert reply.index == stale.prev_index + len(stale.entries)
    assert desk.terms == "1 1 1 1"


FIGURE_7 = {
    "a": "1 1 1 4 4 5 5 6 6",
    "b": "1 1 1 4",
    "c": "1 1 1 4 4 5 5 6 6 6 6",
    "d": "1 1 1 4 4 5 5 6 6 6 7 7",
    "e": "1 1 1 4 4 4 4",
    "f": "1 1 1 2 2 2 3 3 3 3 3",
}


def test_a_leader_brings_every_follower_of_figure_7_to_its_own_log():
    log = "1 1 1 4 4 5 5 6 6 6"
    stage = Stage("n1 a b c d e f", logs={"n1": log, **FIGURE_7}, term=7)
    stage.elect("n1")
    for letter in FIGURE_7:
        assert stage[letter].terms == log + " 8"
        assert stage[letter].raft.log.slice(1, 11) == stage["n1"].raft.log.slice(1, 11)


def test_next_index_starts_just_behind_the_leaders_last_entry():
    desk = candidate(3, log="1 1 2")
    sent = of(m.AppendEntries, desk.hear(m.VoteReply(3, True, False)))
    assert [(s.prev_index, s.prev_term, len(s.entries)) for _, s in sent] == [(3, 2, 1)] * 2


@pytest.mark.parametrize(
    ("lead", "follow", "refusals"),
    [
        ("1 " * 50 + "3 " * 50, "1 " * 50 + "2 " * 90, 1),
        ("1 " * 10 + "3 " * 40, "1 " * 10 + "2 " * 5, 1),
        ("1 " * 10 + "4 " * 10, "1 " * 5 + "2 " * 10 + "3 " * 10, 2),
        ("1 " * 50, "", 1),
    ],
)
def test_next_index_steps_back_over_a_term_at_a_time(lead, follow, refusals):
    stage = Stage(logs={"n1": lead, "n2": follow, "n3": lead}, term=4)
    answers = []
    stage["n2"].raft.promise = lambda to, message, promise=stage["n2"].raft.promise: (
        answers.append(message),
        promise(to, message),
    )
    stage.elect("n1")
    assert stage["n2"].terms == stage["n1"].terms
    assert sum(type(a) is m.AppendReply and not a.accepted for a in answers) == refusals


def test_next_index_never_falls_below_one():
    desk = leader(2, log="1 1 1")
    for prev in (3, 2, 1, 0, 0):
        desk.hear(m.AppendReply(2, False, prev, 0, 0), "n2")
        assert desk.raft.leading.progress["n2"].next_index >= 1


def test_a_leader_never_overwrites_or_deletes_entries_in_its_log():
    desk = leader(5, log="1 2 4")
    with pytest.raises(InvariantViolated, match="leads term 5 too"):
        desk.hear(append(5, "0/0", "5 5"))
    assert desk.terms == "1 2 4 5"
    for reply in (m.AppendReply(5, False, 4, 0, 0), m.AppendReply(5, True, 99, 0, 0)):
        desk.hear(reply, "n3")
    assert desk.terms == "1 2 4 5"


def test_a_committed_entry_is_never_overwritten():
    desk = Desk()
    desk.hear(append(1, new="1 1", commit=2))
    with pytest.raises(InvariantViolated, match="entry 2 is committed"):
        desk.hear(append(2, "1/1", "2"))


# -- §5.4 Safety


@pytest.mark.parametrize(
    ("mine", "theirs", "granted"),
    [
        ("1", "1/1", True), ("1", "2/1", True), ("1 1", "1/1", False), ("1", "1/2", True),
        ("1", "2/2", True), ("1 1", "1/2", True), ("2", "1/1", False), ("2", "2/1", False),
        ("2 1", "1/1", False), ("", "0/0", True), ("1", "0/0", False), ("1 1 1", "9/1", True),
    ],
)  # fmt: skip
def test_a_voter_refuses_a_candidate_whose_log_is_less_up_to_date(mine, theirs, granted):
    desk = Desk(log=mine, term=2)
    assert desk.hear(vote_request(3, theirs)) == [("n2", m.VoteReply(3, granted, False))]


def test_only_entries_of_the_leaders_current_term_are_committed_by_counting_replicas():
    """Figure 8 (c): the entry of term 2 is on three of five servers, and not committed."""
    s1 = leader(4, voters=FIVE, log="1 2", commit=1)
    for peer in ("n2", "n3", "n4", "n5"):
        s1.ack(peer, 2)
    assert s1.raft.commit == 1
    s1.ack("n2", 3)
    assert s1.raft.commit == 1
    s1.ack("n3", 3)  # (e): one of its own term commits it as well
    assert s1.raft.commit == 3


@pytest.mark.parametrize("s1_got_further", [False, True], ids=["d", "e"])
def test_figure_8(s1_got_further):
    """In (d) S5 may still overwrite the entry of term 2; in (e) it is elected no more."""
    copied = "1 2 4" if s1_got_further else "1 2"
    logs = {"n1": "1 2 4", "n2": copied, "n3": copied, "n4": "1", "n5": "1 3"}
    stage = Stage(FIVE, logs=logs, term=4)
    stage.crash("n1")
    stage["n5"].fire()
    stage.settle()
    if s1_got_further:
        assert stage["n5"].raft.role != LEADER
        assert [stage[name].terms for name in ("n2", "n3", "n4")] == ["1 2 4", "1 2 4", "1"]
    else:
        assert stage["n5"].raft.role == LEADER
        assert [stage[name].terms for name in ("n2", "n3", "n4")] == ["1 3 5"] * 3


# -- §5.5 Crashes, §5.6 Timing


def test_raft_requests_are_idempotent():
    desk = Desk()
    first = desk.hear(append(1, new="1 1", commit=1))
    again = [desk.hear(append(1, new="1 1", commit=1)) for _ in range(3)]
    assert again == [first] * 3
    desk.slow_disk = True  # nothing is left to write: the answer need not wait
    assert desk.hear(append(1, new="1 1", commit=1)) == first
    assert (desk.terms, len(desk.applied)) == ("1 1", 1)


def test_heartbeats_are_several_times_as_frequent_as_elections():
    with pytest.raises(ValueError, match="a third"):
        RaftOptions(election_timeout_s=(0.1, 0.2), heartbeat_s=0.05)

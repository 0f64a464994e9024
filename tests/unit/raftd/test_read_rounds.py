"""Whom a leader asks before it answers a read: as few as make a majority, and no one for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_kit import FIVE, MODERN, Desk, Stage, leader, members, of

from raftd import messages as m


def answer(desk: Desk, context: int, *peers: str) -> None:
    for peer in peers:
        desk.hear(m.HeartbeatReply(desk.raft.term, context), peer)


def asked(desk: Desk, token: int) -> list[str]:
    return [to for to, _ in of(m.Heartbeat, desk.read(token))]


def beaten(voters: str, *answers: str, **given) -> Desk:
    """A leader whose last round but one was answered by `answers`, in this order."""
    desk = leader(voters=voters, **given)
    for peer in voters.split()[1:]:
        desk.ack(peer)
    answer(desk, of(m.Heartbeat, desk.beat())[0][1].context, *answers)
    desk.beat()
    return desk


@pytest.mark.parametrize(
    ("voters", "answers", "expected"),
    [
        ("n1 n2 n3", ("n3", "n2"), ["n3"]),
        ("n1 n2 n3", ("n2", "n3"), ["n2"]),
        ("n1 n2 n3 n4", ("n4", "n2", "n3"), ["n4", "n2"]),
        (FIVE, ("n5", "n3", "n2", "n4"), ["n5", "n3"]),
    ],
)
def test_a_read_asks_the_quickest_of_the_last_round_and_no_more_than_a_majority_needs(
    voters, answers, expected
):
    desk = beaten(voters, *answers)
    assert asked(desk, 7) == expected
    answer(desk, desk.sent[-1][1].context, *expected)
    assert desk.reads == {7: desk.raft.commit}


@pytest.mark.parametrize("answers", [(), ("n4",), ("n4", "n4")])
def test_when_too_few_answered_everybody_is_asked(answers):
    assert asked(beaten(FIVE, *answers), 7) == ["n2", "n3", "n4", "n5"]


def test_a_learner_is_never_asked_in_a_voters_place():
    three_and_a_learner = replace(members("n1 n2 n3", learners="n9"), promoting=())
    desk = beaten("n1 n2 n3", "n9", "n3", membership=three_and_a_learner)
    assert asked(desk, 7) == ["n3"]


def test_a_read_whose_follower_has_died_is_confirmed_by_the_next_round_to_all():
    desk = beaten("n1 n2 n3", "n2", "n3")
    assert asked(desk, 7) == ["n2"]
    round_ = of(m.Heartbeat, desk.beat())
    assert [to for to, _ in round_] == ["n2", "n3"]
    answer(desk, round_[0][1].context, "n3")
    assert desk.reads == {7: desk.raft.commit}
    desk.beat()
    assert asked(desk, 8) == ["n3"]


def test_reads_do_not_put_off_the_heartbeats_of_the_others():
    """Or a busy leader's third node would call an election."""
    desk = beaten("n1 n2 n3", "n2")
    due = desk.raft.next_deadline()
    for token in range(20):
        desk.clock.now += MODERN.heartbeat_s / 30
        asked(desk, token)
    assert desk.raft.next_deadline() == due


def test_while_two_configurations_count_everybody_is_asked():
    stage = Stage("n1 n2 n3", options=MODERN)
    desk = stage.elect("n1")
    desk.beat()
    stage.settle()
    desk.change(desk.raft.membership.removing(["n3"]))
    assert desk.raft.membership.joint
    desk.beat()
    assert asked(desk, 7) == ["n2", "n3"]

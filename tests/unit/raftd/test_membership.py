"""Who decides: §6 of the paper, chapter 4 of the dissertation; learners, joint consensus."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from core_kit import FIVE, HIGH, LOW, MODERN, THREE, Desk, Stage, append, leader, members, of
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd import messages as m
from raftd.core import FOLLOWER, LEADER
from raftd.errors import InvalidChange, NotLeader
from raftd.log import CONFIG, Entry
from raftd.membership import Membership

QUICK = settings(deadline=None, database=None, max_examples=200)
AT = ("127.0.0.1", 9)

names = st.sets(st.sampled_from(FIVE.split()))


# -- configurations by themselves


def test_a_first_configuration_is_all_voters_in_order():
    membership = Membership.of({"n2": AT, "n1": AT})
    assert membership.voters == membership.everyone == ("n1", "n2")
    assert not membership.joint
    assert str(membership) == "voters=n1,n2"


def test_newcomers_are_learners_first():
    wanted = members(THREE).adding({"n5": AT, "n4": AT})
    assert wanted.voters == ("n1", "n2", "n3")
    assert wanted.learners == wanted.promoting == ("n4", "n5")
    assert wanted.everyone == tuple(FIVE.split())
    assert not wanted.joint
    assert wanted.addresses["n4"] == AT


def test_a_promotion_is_joint_of_old_and_new():
    wanted = members(THREE, "n4").promoted(["n4"])
    assert (wanted.voters, wanted.outgoing) == (("n1", "n2", "n3", "n4"), ("n1", "n2", "n3"))
    assert (wanted.learners, wanted.promoting, wanted.joint) == ((), (), True)
    assert str(wanted) == "voters=n1,n2,n3,n4 outgoing=n1,n2,n3"


def test_a_removal_of_voters_is_joint_and_one_of_learners_is_not():
    before = members(THREE, "n4")
    wanted = before.removing(["n1", "n4"])
    assert (wanted.voters, wanted.outgoing) == (("n2", "n3"), ("n1", "n2", "n3"))
    assert wanted.is_voter("n1")
    assert not before.removing(["n4"]).joint


def test_what_makes_no_sense_is_refused():
    three = members(THREE)
    for change, why in (
        (lambda: three.adding({"n1": AT}), "n1 is a member already"),
        (lambda: three.removing(["n9"]), "n9 is not a member"),
        (lambda: three.removing(THREE.split()), "last voter"),
        (lambda: three.removing(["n1"]).removing(["n2"]), "under way"),
        (lambda: three.removing(["n1"]).adding({"n4": AT}), "under way"),
    ):
        with pytest.raises(InvalidChange, match=why):
            change()


@QUICK
@given(names.filter(bool), names, names, names)
def test_the_way_of_a_change_ends_where_it_was_meant_to(voters, learners, leaving, caught_up):
    before = members(" ".join(sorted(voters)), " ".join(sorted(learners - voters)))
    joint = before.promoted(caught_up & set(before.learners))
    final = joint.left_joint()
    assert set(joint.outgoing) == voters
    assert set(final.voters) == voters | (caught_up & set(before.learners))
    assert set(final.everyone) == set(before.everyone) == set(final.addresses)
    leaving &= set(final.everyone)
    if set(final.voters) - leaving:
        smaller = final.removing(leaving).left_joint()
        assert set(smaller.everyone) == set(final.everyone) - leaving == set(smaller.addresses)


def test_a_learner_that_is_removed_leaves_no_address_behind():
    """left_joint, which strikes those who went, is no part of a change without voters."""
    wanted = members(THREE, "n4").removing(["n4"])
    assert set(wanted.addresses) == set(wanted.everyone)


@QUICK
@given(names, names, names)
def test_a_configuration_comes_back_from_the_log_as_it_went(voters, learners, outgoing):
    groups = (" ".join(sorted(group)) for group in (voters, learners, outgoing))
    membership = members(*groups)
    assert Membership.unpack(membership.pack()) == membership


@QUICK
@given(st.binary(max_size=60))
def test_bytes_that_are_no_configuration_are_refused_with_a_value_error(data):
    with pytest.raises(ValueError, match="not a membership"):
        Membership.unpack(data)


@pytest.mark.parametrize(
    "fields",
    [
        [["n1"], [], [], []],
        [1, [], [], [], {}],
        [["n1"], [], [], [], {"n1": 5}],
        [["n1"], [], [], [], {"n1": ["h", "port"]}],
        pytest.param([["n1"], [], [], [], []]),
        pytest.param([["n1"], [], [], [], {"n1": ["h", float("inf")]}]),
        pytest.param(["n1", [], [], [], {}]),
        pytest.param([[1, 2], [], [], [], {}]),
    ],
    ids=repr,
)
def test_lists_that_are_no_configuration_are_refused_with_a_value_error(fields):
    with pytest.raises(ValueError, match="not a membership"):
        Membership.unpack(msgpack.packb(fields))


# -- in use: the newest in the log, at once (§6)


def change_entry(index: int, term: int, membership: Membership) -> Entry:
    return Entry(index, term, CONFIG, membership.pack())


def test_a_server_uses_the_newest_configuration_in_its_log_committed_or_not():
    desk = Desk()
    five = members(FIVE)
    desk.hear(m.AppendEntries(1, 0, 0, 0, [change_entry(1, 1, five)]))
    assert (desk.raft.commit, desk.raft.membership) == (0, five)
    desk.restart()
    assert desk.raft.membership == five


def test_a_configuration_that_is_overwritten_gives_way_to_the_one_before():
    desk = Desk()
    four, five = members("n1 n2 n3 n4"), members(FIVE)
    changes = [change_entry(1, 1, four), change_entry(2, 1, five)]
    desk.hear(m.AppendEntries(1, 0, 0, 0, changes))
    assert (desk.raft.membership, desk.raft.membership_index) == (five, 2)
    desk.hear(append(2, "1/1", "2"), "n3")
    assert (desk.raft.membership, desk.raft.membership_index) == (four, 1)
    desk.hear(append(3, "0/0", "3"), "n2")
    assert desk.raft.membership == desk.membership


def test_a_snapshot_carries_the_configuration_of_its_last_entry():
    desk = leader()
    desk.ack("n2")
    grown = desk.raft.membership.adding({"n4": AT})
    desk.change(grown)
    desk.ack("n2")
    desk.propose(b"x")
    desk.ack("n2")
    assert [desk.raft.membership_at(index) for index in (1, 2, 3)] == [
        desk.membership, grown, grown,
    ]  # fmt: skip
    assert desk.compact().membership == grown
    desk.restart()
    assert desk.raft.membership == grown
    other = Desk("n4", "")
    packed = desk.raft.snapshot[0].membership.pack()
    other.hear(m.InstallSnapshot(1, 3, 1, packed, 0, 1, b"x"))
    assert other.raft.membership == grown


# -- a change, step by step


def after(desk: Desk, wanted: Membership) -> Desk:
    desk.ack("n2")
    desk.change(wanted)
    return desk


def test_only_a_leader_that_has_committed_something_changes_the_configuration():
    """Else two changes of different leaders might overlap (the bug in the dissertation's 4.1)."""
    desk = leader()
    wanted = desk.membership.removing(["n3"])
    with pytest.raises(InvalidChange, match="not committed anything"):
        desk.change(wanted)
    desk.ack("n2")
    desk.change(wanted)
    with pytest.raises(NotLeader):
        Desk().change(wanted)


def test_one_change_is_finished_before_the_next_begins():
    desk = after(leader(), members(THREE).adding({"n4": AT}))
    with pytest.raises(InvalidChange, match="under way"):
        desk.change(desk.raft.membership.adding({"n5": AT}))
    desk.ack("n2")
    desk.change(desk.raft.membership.adding({"n5": AT}))


@pytest.mark.parametrize(
    ("acks", "committed"),
    [("n2 n3", False), ("n4 n5", False), ("n3", False), ("n2 n4 n5", True), ("n3 n5", True)],
)
def test_while_joint_a_decision_needs_a_majority_of_both(acks, committed):
    """From n1 n2 n3 to n3 n4 n5: neither of the two decides alone."""
    desk = leader()
    desk.ack("n2")
    desk.change(members("n3 n4 n5", outgoing=THREE))
    for peer in acks.split():
        desk.ack(peer, 2)
    assert (desk.raft.commit == 2) == committed


@pytest.mark.parametrize(
    ("votes", "wins"), [("n2", False), ("n3", False), ("n4 n5", False), ("n2 n4 n5", True)]
)
def test_while_joint_an_election_needs_a_majority_of_both(votes, wins):
    desk = Desk(membership=members("n3 n4 n5", outgoing=THREE))
    assert [to for to, _ in desk.fire()] == ["n2", "n3", "n4", "n5"]
    for peer in votes.split():
        desk.hear(m.VoteReply(1, True, False), peer)
    assert (desk.raft.role == LEADER) == wins


NOT_ENOUGH_FOR_BOTH = pytest.mark.parametrize(
    ("one_majority", "missing"), [("n2 n4", "n5"), ("n4 n5", "n2")], ids=["old", "new"]
)


@NOT_ENOUGH_FOR_BOTH
def test_while_joint_a_read_needs_a_majority_of_both(one_majority, missing):
    desk = after(leader(), members("n3 n4 n5", outgoing=THREE))
    context = of(m.Heartbeat, desk.read(7))[0][1].context
    for peer in one_majority.split():
        desk.hear(m.HeartbeatReply(1, context), peer)
        assert desk.reads == {}
    desk.hear(m.HeartbeatReply(1, context), missing)
    assert desk.reads == {7: 1}


@NOT_ENOUGH_FOR_BOTH
@pytest.mark.parametrize("both", [False, True])
def test_while_joint_an_office_needs_a_majority_of_both(one_majority, missing, both):
    desk = after(leader(options=MODERN), members("n3 n4 n5", outgoing=THREE))
    began = desk.now
    while desk.raft.role == LEADER and desk.now < began + HIGH:
        for peer in one_majority.split() + [missing] * both:
            desk.hear(m.HeartbeatReply(1, 1), peer)
        desk.fire()
    assert desk.raft.role == (LEADER if both else FOLLOWER)


def test_newcomers_get_some_time_to_answer_before_they_count_as_silent():
    desk = leader(options=MODERN)
    began = desk.now
    desk.clock.now += LOW / 2
    after(desk, members("n1 n4 n5", outgoing=THREE))
    while desk.now < began + LOW:
        assert desk.raft.role == LEADER
        desk.fire()
    assert desk.raft.role == LEADER
    while desk.raft.role == LEADER:
        desk.hear(m.HeartbeatReply(1, 1), "n2")
        desk.fire()
    assert desk.now == pytest.approx(began + 2 * LOW)


def test_the_joint_configuration_is_left_once_it_is_committed():
    desk = after(leader(), members(THREE).removing(["n3"]))
    assert str(desk.raft.membership) == "voters=n1,n2 outgoing=n1,n2,n3"
    sent = desk.ack("n2")
    assert str(desk.raft.membership) == "voters=n1,n2"
    assert desk.raft.membership_index == 3
    assert [to for to, _ in of(m.AppendEntries, sent)] == ["n2"]


def test_a_new_leader_finishes_the_change_that_it_finds():
    desk = leader(2, membership=members("n1 n2", outgoing=THREE), log="1")
    desk.ack("n3")
    assert desk.raft.membership.joint  # n1 and n3 are no majority of the new one
    desk.ack("n2")
    assert str(desk.raft.membership) == "voters=n1,n2"


def test_a_learner_gets_the_log_and_has_no_say():
    desk = after(leader(), members(THREE).adding({"n4": AT, "n5": AT}))
    assert {to for to, _ in of(m.AppendEntries, desk.sent)} >= {"n4", "n5"}
    desk.ack("n4")
    desk.ack("n5")
    assert desk.raft.commit == 1
    desk.ack("n3")
    assert desk.raft.commit == 2


def test_a_learner_stands_in_no_election():
    desk = Desk("n4", learners="n4")
    for _ in range(10):
        assert desk.fire() == []
    assert (desk.raft.role, desk.raft.term) == (FOLLOWER, 0)


def test_a_learner_is_promoted_when_it_has_caught_up():
    options = replace(MODERN, caught_up_entries=2, check_quorum=False)
    desk = leader(options=options)
    desk.ack("n2")
    desk.change(desk.raft.membership.adding({"n4": AT}))
    desk.propose(*[b"x"] * 10)
    desk.ack("n2")
    last = desk.raft.log.last_index
    desk.ack("n4", last - 3)
    assert desk.raft.membership.learners == ("n4",)
    desk.ack("n4", last - 2)
    assert str(desk.raft.membership) == "voters=n1,n2,n3,n4 outgoing=n1,n2,n3"


def test_a_learner_is_promoted_by_the_next_leader_if_this_one_did_not_get_there():
    waiting = members(THREE, "n4")
    desk = leader(2, membership=waiting, log="1")
    desk.ack("n4")
    assert desk.raft.membership.learners == ("n4",)  # nothing of this term is committed yet
    desk.ack("n2")
    assert desk.raft.membership.voters == ("n1", "n2", "n3", "n4")


def test_a_leader_that_is_removed_leads_until_the_change_is_committed():
    """§6, second issue: it does not count itself, and steps down then."""
    desk = after(leader(), members(THREE).removing(["n1"]))
    desk.ack("n2")
    desk.ack("n3")
    assert str(desk.raft.membership) == "voters=n2,n3"
    assert desk.raft.role == LEADER
    desk.ack("n2")
    assert desk.raft.commit == 2  # n1 and n2 have it; n1 does not count
    sent = desk.ack("n3")
    assert (desk.raft.commit, desk.raft.role) == (3, FOLLOWER)
    assert [(to, beat.commit) for to, beat in of(m.Heartbeat, sent)] == [("n2", 3), ("n3", 3)]
    for _ in range(10):
        assert desk.fire() == []


def test_a_server_that_was_removed_unseats_nobody():
    """§6, third issue: its requests are disregarded while a leader is heard."""
    stage = Stage(options=MODERN)
    stage.elect("n1")
    stage["n1"].change(stage["n1"].raft.membership.removing(["n3"]))
    stage.settle()
    stage["n1"].beat()
    stage.settle()
    gone = stage["n3"]
    assert gone.raft.membership.joint  # nobody has told it that the change is over
    stage.clock.now += LOW / 3
    for _ in range(3):
        gone.raft.campaign(pre=False)
        gone.pump()
        stage.settle()
    assert stage["n1"].raft.role == LEADER
    assert stage["n2"].raft.term == stage["n1"].raft.term == 1


def test_a_newcomer_gets_everything_from_the_beginning():
    stage = Stage(options=MODERN)
    lead = stage.elect("n1")
    for number in range(5):
        lead.propose(b"%d" % number)
    stage.join("n4")
    lead.change(lead.raft.membership.adding({"n4": AT}))
    stage.settle()
    lead.beat()
    stage.settle()
    assert stage["n4"].state == lead.state == [b"0", b"1", b"2", b"3", b"4"]
    assert stage["n4"].raft.membership == lead.raft.membership
    assert lead.raft.membership.voters == ("n1", "n2", "n3", "n4")

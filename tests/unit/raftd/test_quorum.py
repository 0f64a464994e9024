"""Majorities, single and joint, against naive counting over all possibilities."""

from __future__ import annotations

from itertools import chain, combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd.quorum import (
    committed_index,
    has_joint_majority,
    has_majority,
    joint_committed_index,
    majority,
    vote_is_lost,
)

NAMES = "abcdefg"
QUICK = settings(deadline=None, database=None, max_examples=300)

voters = st.sets(st.sampled_from(NAMES), min_size=1)
outgoing = st.sets(st.sampled_from(NAMES))
members = st.sets(st.sampled_from(NAMES))
matches = st.fixed_dictionaries({name: st.integers(0, 9) for name in NAMES})
votes = st.dictionaries(st.sampled_from(NAMES), st.booleans())


def subsets(names):
    return chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))


def more_than_half(names, members) -> bool:
    """By the definition: those inside outnumber those outside. Of nobody, all is enough."""
    inside = [name for name in names if name in members]
    outside = [name for name in names if name not in members]
    return not names or len(inside) > len(outside)


@pytest.mark.parametrize(
    ("count", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]
)
def test_a_majority_is_more_than_half(count, needed):
    assert majority(count) == needed


@QUICK
@given(voters, members)
def test_has_majority_counts_voters_and_nobody_else(voters, members):
    assert has_majority(voters, members) == more_than_half(voters, members)


@QUICK
@given(voters, outgoing, members)
def test_a_joint_majority_is_one_of_both_configurations(voters, outgoing, members):
    wanted = more_than_half(voters, members) and more_than_half(outgoing, members)
    assert has_joint_majority(voters, outgoing, members) == wanted


@pytest.mark.parametrize(
    ("old", "new"),
    [("abc", "abcd"), ("abc", "def"), ("abc", "cde"), ("abcde", "a"), ("a", "ab"), ("ab", "bc")],
)
def test_any_two_quorums_of_configurations_that_may_meet_overlap(old, new):
    """Figure 11: old with joint, joint with joint, joint with new; old with new need not."""
    everyone = sorted({*old, *new})
    quorums = {
        stage: [set(s) for s in subsets(everyone) if has_joint_majority(*stage, s)]
        for stage in ((old, ""), (new, old), (new, ""))
    }
    first, joint, last = quorums.values()
    for one, other in chain(product(first, joint), product(joint, joint), product(joint, last)):
        assert one & other


@QUICK
@given(voters, matches)
def test_the_committed_index_is_the_highest_that_a_majority_holds(voters, matches):
    held = [
        index
        for index in range(10)
        if more_than_half(voters, {name for name in NAMES if matches[name] >= index})
    ]
    assert committed_index(voters, matches.__getitem__) == max(held)


@QUICK
@given(voters, outgoing, matches)
def test_the_joint_committed_index_is_the_highest_that_both_majorities_hold(
    voters, outgoing, matches
):
    held = [
        index
        for index in range(10)
        for holders in [{name for name in NAMES if matches[name] >= index}]
        if more_than_half(voters, holders) and more_than_half(outgoing, holders)
    ]
    assert joint_committed_index(voters, outgoing, matches.__getitem__) == max(held)


@QUICK
@given(voters, outgoing, votes)
def test_a_vote_is_lost_when_no_way_of_casting_the_rest_wins_it(voters, outgoing, votes):
    undecided = [name for name in sorted(voters | outgoing) if name not in votes]
    granted = {name for name, vote in votes.items() if vote}
    may_win = any(
        more_than_half(voters, granted | set(rest))
        and more_than_half(outgoing, granted | set(rest))
        for rest in subsets(undecided)
    )
    assert vote_is_lost(voters, outgoing, votes) == (not may_win)


def test_a_configuration_without_voters_decides_nothing_by_itself():
    """It is the missing half of a configuration that is not joint, never a whole one."""
    assert has_majority((), ())
    assert committed_index((), lambda name: 0) > 1 << 60
    assert joint_committed_index("abc", "", {"a": 5, "b": 4, "c": 3}.__getitem__) == 4

"""Sums over what was applied: the same for the same entries, silent about what was not seen."""

from __future__ import annotations

from raftd.checkpoints import EVERY, Checkpoints


def sums(entries):
    """(index, term, sum) of each checkpoint, after applying (index, data) of term 3."""
    found = []
    checkpoints = Checkpoints(lambda *told: found.append(told))
    for index, data in entries:
        checkpoints.applied(index, 3, data)
    return found


def entries(first, last):
    return [(index, b"%d" % index) for index in range(first, last + 1)]


def test_each_whole_stretch_is_told_once():
    found = sums(entries(1, 3 * EVERY + 5))
    assert [(index, term) for index, term, _ in found] == [(EVERY * k, 3) for k in (1, 2, 3)]


def test_who_began_later_tells_the_same_of_the_same_stretch():
    whole = sums(entries(1, 3 * EVERY))
    assert sums(entries(EVERY + 1, 3 * EVERY)) == whole[1:]
    assert sums(entries(EVERY + 2, 3 * EVERY)) == whole[2:]


def test_after_a_snapshot_in_the_middle_nothing_is_told_of_that_stretch():
    jumped = sums(entries(1, 10) + entries(100, 2 * EVERY))
    assert jumped == sums(entries(1, 2 * EVERY))[1:]


def test_another_entry_gives_another_sum():
    other = entries(1, EVERY)
    other[7] = (8, b"another")
    assert sums(other) != sums(entries(1, EVERY))

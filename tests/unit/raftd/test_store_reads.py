"""What a read costs: as many steps as it returns pairs, however many keys and versions there are.

A step is a key or a version that is looked at; they are counted, not timed.
"""

from __future__ import annotations

import pytest
from sortedcontainers import SortedList
from storage_kit import Applier, restored

from raftd import commands as c
from raftd.store import FAILED, OK, Store

KEYS = 5000
# Of what finding a place takes, which grows with the logarithm.
FEW = 40
ALL = (b"\0", c.EVERYTHING)

steps = [0]


class Keys(SortedList):
    """Counts the keys that are handed out."""

    def irange(self, *args, **how):
        for key in super().irange(*args, **how):
            steps[0] += 1
            yield key


class Histories(dict):
    """Counts the keys that are looked up."""

    def __getitem__(self, key):
        steps[0] += 1
        return super().__getitem__(key)

    def get(self, key, default=None):
        steps[0] += 1
        return super().get(key, default)


class Versions(list):
    """Counts the versions that are looked at."""

    def __getitem__(self, at):
        steps[0] += 1
        return super().__getitem__(at)

    def __iter__(self):
        for item in super().__iter__():
            steps[0] += 1
            yield item

    def __reversed__(self):
        for item in super().__reversed__():
            steps[0] += 1
            yield item


def counted(store: Store) -> Store:
    """The same store, whose steps are counted from now on."""
    store._histories = Histories({k: Versions(h) for k, h in store._histories.items()})
    store._keys, store._live = Keys(store._keys), Keys(store._live)
    since = store.watches.since
    store.watches.since = lambda revision: Versions(since(revision))
    return store


@pytest.fixture(scope="module")
def many() -> Store:
    """Keys 0 to 4999, every third of them deleted again; then one more is written."""
    run = Applier()
    for i in range(KEYS):
        run.put(b"%04d" % i, b"value")
    for i in range(0, KEYS, 3):
        run.delete(b"%04d" % i)
    run.put(b"zz")
    return counted(run.store)


LIVE = KEYS - len(range(0, KEYS, 3)) + 1


def taken(read) -> tuple[int, object]:
    steps[0] = 0
    answer = read()
    return steps[0], answer


def test_a_count_looks_at_no_pair(many):
    took, (pairs, more, count) = taken(lambda: many.range(*ALL, count_only=True))
    assert (pairs, more, count) == ([], False, LIVE)
    assert took == 0
    took, (_, _, count) = taken(lambda: many.range(b"1000", b"2000", count_only=True))
    assert (took, count) == (0, 1000 - len([i for i in range(1000, 2000) if i % 3 == 0]))


@pytest.mark.parametrize("keys_only", [False, True])
@pytest.mark.parametrize("limit", [1, 10, 100])
def test_a_limit_bounds_the_work(many, limit, keys_only):
    took, (pairs, more, count) = taken(lambda: many.range(*ALL, limit=limit, keys_only=keys_only))
    assert (len(pairs), more, count) == (limit, True, LIVE)
    assert pairs[0].value == (b"" if keys_only else b"value")
    assert took <= 3 * limit + FEW


def test_a_page_is_looked_for_no_further_than_it_reaches(many):
    took, (pairs, more, count) = taken(lambda: many.range(*ALL, bytes_max=9 * 20))
    assert (len(pairs), more, count) == (20, True, LIVE)
    assert took <= 3 * 20 + FEW


def test_a_page_has_one_pair_at_least(many):
    assert many.range(*ALL, bytes_max=1)[:2] == ([many.get(b"0001")], True)


def test_one_key_is_found_without_its_neighbours(many):
    for revision in (0, KEYS, many.revision - 1):
        took, (pairs, more, count) = taken(lambda at=revision: many.range(b"0004", revision=at))
        assert (pairs[0].key, more, count) == (b"0004", False, 1)
        assert took <= FEW


def test_a_page_of_the_past_costs_what_it_returns_and_what_was_deleted_between(many):
    at = many.revision - 1
    took, (pairs, more, count) = taken(lambda: many.range(*ALL, at, 10))
    assert (len(pairs), more, count) == (10, True, LIVE - 1)
    assert took <= 3 * 15 + FEW


def test_a_count_in_the_recent_past_looks_only_at_what_has_changed_since(many):
    took, (_, _, count) = taken(lambda: many.range(*ALL, many.revision - 7, count_only=True))
    assert count == LIVE - 1 + 6
    assert took <= 2 * 7 + FEW


def test_a_key_counts_as_it_was_before_the_first_of_its_changes_since():
    run = Applier()
    for i in range(10):
        run.put(b"%d" % i)
    at = run.store.revision
    run.delete(b"3")  # it was there, and is again
    run.put(b"3")
    run.put(b"x")  # it was not, and is not
    run.delete(b"x")
    run.delete(b"4")
    assert run.store.range(*ALL, at, count_only=True)[2] == 10
    assert run.store.range(*ALL, at + 1, count_only=True)[2] == 9
    assert run.store.range(*ALL, at + 3, count_only=True)[2] == 11
    assert run.store.range(*ALL, count_only=True)[2] == 9


def test_a_count_of_a_few_keys_in_the_far_past_looks_only_at_them(many):
    took, (_, _, count) = taken(lambda: many.range(b"1000", b"1010", KEYS, count_only=True))
    assert count == 10
    assert took <= 4 * 10 + FEW


def test_a_version_of_the_past_is_found_without_going_through_all_of_them():
    run = Applier()
    for i in range(2000):
        run.put(b"hot", b"%d" % i)
    store = counted(run.store)
    for revision in (1, 7, 1000, 1999, 2000):
        took, (pairs, _, _) = taken(lambda at=revision: store.range(b"hot", revision=at))
        assert pairs[0].value == b"%d" % (revision - 1)
        assert took <= FEW


def test_the_newest_revision_is_now(many):
    took, (pairs, more, count) = taken(lambda: many.range(*ALL, many.revision, 2))
    assert (pairs, more, count) == many.range(*ALL, limit=2)
    assert took <= FEW


def test_a_transaction_that_reads_a_page_costs_the_page(many):
    run = Applier(many)
    run.index = many.applied_index
    took, answer = taken(lambda: run.txn([c.RANGE, *ALL, 0, 5, False, False]))
    assert (answer[0], len(answer[3][0][2])) == (OK, 5)
    assert took <= 6 * 5 + FEW


def test_a_transaction_whose_answer_is_too_large_stops_where_it_is(many, monkeypatch):
    monkeypatch.setattr(c, "ANSWER_BYTES_MAX", 9 * 20)
    run = Applier(many)
    run.index = many.applied_index
    whole = [c.RANGE, *ALL, 0, 0, False, False]
    for ops in ([whole], [[c.DELETE, *ALL, True]], 20 * [whole], [[c.TXN, [], [whole], []]]):
        took, answer = taken(lambda ops=ops: run.txn(*ops))
        assert answer[:2] == [FAILED, "too-large"]
        assert took <= 3 * 20 + FEW
    assert run.txn([c.RANGE, *ALL, 0, 20, False, False])[0] == OK


def test_a_copy_finds_as_quickly(many):
    copy = counted(restored(many))
    took, answer = taken(lambda: copy.range(*ALL, limit=3))
    assert answer == many.range(*ALL, limit=3)
    assert took <= FEW

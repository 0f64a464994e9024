"""Transactions that are decided before they begin: all of it happens, or nothing."""

from __future__ import annotations

import pytest
from storage_kit import Applier

from raftd import commands as c
from raftd.store import FAILED, OK

ABSENT = ["version", "=", b"k", 0]
MEGABYTE = b"x" * 1_000_000


def put(key, value=b"", *, previous=False):
    return [c.PUT, key, value, 0, previous]


def range_(key, end=b"", revision=0, *, keys_only=False, count_only=False):
    return [c.RANGE, key, end, revision, 0, keys_only, count_only]


@pytest.fixture
def log():
    return Applier()


def full(log, count):
    for i in range(count):
        log.put(b"big%02d" % i, MEGABYTE)
    return log.store.hash()


def test_a_comparison_within_sees_the_state_before_all_of_it(log):
    inner = [c.TXN, [ABSENT], [put(b"then")], [put(b"else")]]
    log.txn(put(b"k"), inner)
    assert log.store.get(b"then")
    assert not log.store.get(b"else")


@pytest.mark.parametrize("revision", [1, 99])
def test_a_read_of_what_is_not_there_fails_all_of_it(log, revision):
    for _ in range(5):
        log.put(b"old")
    log(c.COMPACT, 4)
    before = log.store.hash()
    for reads in (
        range_(b"old", revision=revision),
        [c.TXN, [], [range_(b"old", b"", revision)], []],
    ):
        answer = log.txn(put(b"k"), reads)
        assert answer[:2] == [FAILED, "compacted" if revision == 1 else "future"]
    assert log.store.hash() == before


def test_a_branch_that_is_not_taken_is_not_looked_at(log):
    never = [c.TXN, [["version", ">", b"k", 0]], [range_(b"k", revision=99)], [put(b"k")]]
    assert log.txn(never)[0] == OK
    assert log.store.get(b"k")


@pytest.mark.parametrize(
    "asks",
    [
        [c.DELETE, b"big", b"bih", True],
        [c.TXN, [], [put(b"k"), [c.DELETE, b"big", b"bih", True]], []],
        [c.TXN, [], [put(b"k"), range_(b"big", b"bih")], []],
        [c.TXN, [], [[c.TXN, [], [range_(b"big00"), range_(b"big01", b"big05")], []]], []],
        [c.TXN, [], [put(b"big%02d" % i, previous=True) for i in range(5)], []],
    ],
)
def test_what_could_not_be_answered_is_refused_before_it_happens(log, asks):
    before = full(log, 5)
    assert log(*asks)[:2] == [FAILED, "too-large"]
    assert log.store.hash() == before


@pytest.mark.parametrize(
    "asks",
    [
        [c.DELETE, b"big", b"bih", False],
        [c.DELETE, b"big01", b"big04", True],
        [c.TXN, [], [range_(b"big", b"bih", keys_only=True)], []],
        [c.TXN, [], [range_(b"big", b"bih", count_only=True)], []],
        [c.TXN, [], [[c.DELETE, b"big", b"bih", False]], []],
    ],
)
def test_what_can_be_answered_is_done(log, asks):
    full(log, 5)
    assert log(*asks)[0] == OK

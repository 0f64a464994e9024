"""Transactions on lists: each anomaly by its name, with its reason in words, and none in a right
history."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.verify.appends import judge_appends
from cluster.verify.history import FAIL, INFO, OK, UNKNOWN, HistoryError, Operation


def txns(*rows):
    """(steps, called, returned[, outcome]) each; a read has its answer in the step."""
    found = []
    for index, (steps, called, returned, *outcome) in enumerate(rows):
        outcome = outcome[0] if outcome else OK
        steps = tuple(
            (verb, key, tuple(value) if isinstance(value, list) else value)
            for verb, key, value in steps
        )
        asked = tuple((v, k, None if v == "r" else x) for v, k, x in steps)
        result = steps if outcome == OK else UNKNOWN
        returned = math.inf if outcome == INFO else returned
        found.append(Operation(index, index, "txn", None, asked, outcome, result, called, returned))
    return found


def kinds(history):
    return [anomaly.kind for anomaly in judge_appends(history)]


def a(key, value):
    return ("append", key, value)


def r(key, *values):
    return ("r", key, list(values))


AT_ONCE = (0, 10)


def test_a_right_history_has_none():
    history = txns(
        ([a("x", 1), r("y")], 0, 1),
        ([a("y", 1), r("x", 1)], 2, 3),
        ([a("x", 2), a("x", 3), r("x", 1, 2, 3)], 2, 6),
        ([r("x", 1, 2, 3), r("y", 1)], 7, 8),
        ([a("x", 4)], 9, 0, INFO),
        ([a("x", 5)], 9, 10, FAIL),
        ([r("x", 1, 2, 3, 4)], 11, 12),
    )
    assert kinds(history) == []


ANOMALIES = {
    "G0": (
        [([a("x", 1), a("y", 1)], *AT_ONCE), ([a("x", 2), a("y", 2)], *AT_ONCE)],
        ([r("x", 1, 2), r("y", 2, 1)], 20, 21),
        "T1 appended 2 to 'x' after T0 appended 1",
    ),
    "G1a": (
        [([a("x", 1)], 0, 1, FAIL)],
        ([r("x", 1)], 2, 3),
        "T1 read 1 of 'x', which T0 appended, and failed",
    ),
    "G1b": (
        [([a("x", 1), a("x", 2)], *AT_ONCE)],
        ([r("x", 1)], *AT_ONCE),
        "saw T0's 1, but not its 2",
    ),
    "G1c": (
        [([a("x", 1), r("y", 1)], *AT_ONCE)],
        ([a("y", 1), r("x", 1)], *AT_ONCE),
        "T1 observed T0's append of 1 to 'x'",
    ),
    "G-single": (
        [([a("x", 1), a("y", 1)], *AT_ONCE)],
        ([r("x", 1), r("y")], *AT_ONCE),
        "T1 did not observe T0's append of 1 to 'y'",
    ),
    "G2": (
        [([r("x"), a("y", 1)], *AT_ONCE)],
        ([r("y"), a("x", 1)], *AT_ONCE),
        "T0 did not observe T1's append of 1 to 'x'",
    ),
    "G-single-realtime": (
        [([a("x", 1)], 0, 1)],
        ([r("x")], 2, 3),
        "T0 had its answer before T1 was asked",
    ),
    "internal": (
        [([a("x", 1)], 0, 1)],
        ([a("x", 2), r("x", 1)], 2, 3),
        "where its own steps led to [2]",
    ),
    "garbage": ([([a("x", 1)], 0, 1)], ([r("x", 1, 9)], 2, 3), "which nobody appended"),
    "duplicate": ([([a("x", 1)], 0, 1)], ([r("x", 1, 1)], 2, 3), "read [1, 1] of 'x'"),
    "incompatible": (
        [([a("x", 1)], *AT_ONCE), ([a("x", 2)], *AT_ONCE), ([r("x", 1, 2)], 20, 21)],
        ([r("x", 2)], 20, 21),
        "neither can have become the other",
    ),
}

# What shows an anomaly whose appends must be seen first.
WITNESS = {"G1b": ([r("x", 1, 2)], 20, 21), "G2": ([r("x", 1), r("y", 1)], 20, 21)}
WITNESS["G-single"] = WITNESS["G2"]
WITNESS["G-single-realtime"] = ([r("x", 1)], 20, 21)


@pytest.mark.parametrize("kind", ANOMALIES)
def test_each_is_found_by_its_name_and_told_in_words(kind):
    first, last, words = ANOMALIES[kind]
    rows = [*first, last, *([WITNESS[kind]] if kind in WITNESS else [])]
    found = judge_appends(txns(*rows))
    assert kind in {anomaly.kind for anomaly in found}
    told = next(anomaly for anomaly in found if anomaly.kind == kind)
    assert words in told.sentence
    assert told.rules_out
    if kind.startswith("G-") or kind in ("G0", "G1c", "G2"):
        assert "However, " in told.sentence
        assert told.sentence.endswith(": a contradiction")


def test_each_of_several_that_had_their_answers_counts():
    rows = [([a("x", 1)], 0, 5), ([a("y", 1)], 1, 6), ([r("x", 1), r("y", 1)], 20, 21)]
    assert kinds(txns(*rows, ([r("x")], 7, 8))) == ["G-single-realtime"]
    assert kinds(txns(*rows, ([r("y")], 7, 8))) == ["G-single-realtime"]
    assert kinds(txns(*rows, ([r("x")], 5, 8))) == []


def test_who_nobody_knows_of_is_judged_only_by_what_was_seen_of_it():
    history = txns(
        ([a("x", 1), a("y", 1)], 0, 0, INFO),
        ([r("x", 1), r("y")], 2, 3),
        ([r("y", 1)], 4, 5),
    )
    assert kinds(history) == ["G-single"]
    never = txns(([a("x", 1)], 0, 0, INFO), ([r("x")], 2, 3), ([r("x")], 4, 5))
    assert kinds(never) == []


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (3, "a transaction is a list"),
        ((("append", "x"),), "is neither"),
        ((("w", "x", 1),), "is neither"),
    ],
)
def test_what_is_no_transaction_is_told(value, why):
    history = [Operation(0, 0, "txn", None, value, INFO, UNKNOWN, 0, math.inf)]
    with pytest.raises(HistoryError, match=why):
        judge_appends(history)


def test_a_value_that_is_appended_twice_is_told_as_a_fault_of_the_test():
    with pytest.raises(HistoryError, match="1 is appended to 'x' twice"):
        judge_appends(txns(([a("x", 1)], 0, 1), ([a("x", 1)], 2, 3)))


# -- a system that is right, and one that is not


def run(rng, count, clients, *, snapshot_lag=0.0, unknown=0.0):
    """Transactions of a store that does each at one moment; with a lag it reads what was."""
    moments = []
    free_at = [0.0] * clients
    for _ in range(count):
        client = min(range(clients), key=lambda c: free_at[c])
        called = free_at[client] + rng.random()
        moment = called + rng.random()
        free_at[client] = moment + rng.random()
        moments.append((moment, called, free_at[client]))
    lists: dict[str, list[tuple[float, int]]] = {key: [] for key in "xyz"}
    rows, counter = [], 0
    for moment, called, returned in sorted(moments):
        steps = []
        seen_until = moment - (snapshot_lag if rng.random() < 0.1 else 0.0)
        mine: dict[str, list[int]] = {}
        for _ in range(rng.randint(1, 4)):
            key = rng.choice("xyz")
            if rng.random() < 0.5:
                counter += 1
                lists[key].append((moment, counter))
                mine.setdefault(key, []).append(counter)
                steps.append(a(key, counter))
            else:
                own = mine.get(key, [])
                seen = [v for at, v in lists[key] if at <= seen_until and v not in own]
                steps.append(r(key, *seen, *own))
        outcome = INFO if rng.random() < unknown else OK
        rows.append((steps, called, returned, outcome))
    return txns(*rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from((0.0, 0.1)))
def test_a_right_store_is_never_accused(seed, clients, unknown):
    assert kinds(run(random.Random(seed), 150, clients, unknown=unknown)) == []


@pytest.mark.parametrize("seed", range(10))
def test_a_store_that_reads_what_was_is_found_out(seed):
    found = kinds(run(random.Random(seed), 300, 5, snapshot_lag=5.0))
    assert found
    assert "G0" not in found


def test_thousands_of_transactions_take_no_search():
    rows = []
    for i in range(20_000):
        steps = [a(i // 10, i), r(i // 10, *range(i // 10 * 10, i + 1)), r(i // 10 + 1)]
        rows.append((steps, i / 100, i / 100 + 0.05))
    assert kinds(txns(*rows)) == []

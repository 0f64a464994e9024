"""Counters, sets and banks: judged by what adds up."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verify_kit import in_order

from cluster.verify.bank import judge_bank
from cluster.verify.counters import judge_counter
from cluster.verify.history import UNKNOWN, operations
from cluster.verify.models import REFUSED, Model
from cluster.verify.sets import judge_set


def _adding(total, op):
    if op.f == "add":
        return total + op.value
    return total if op.result in (total, UNKNOWN) else REFUSED


# A counter as a model that is stepped through: slow, and simple enough to be trusted.
ADDING = Model("adding", 0, _adding, frozenset({"read"}), {})


def history(*rows):
    """(called, returned, f, value, outcome or answer): `returned` None if nobody knows."""
    events = []
    for process, (called, returned, f, value, answer) in enumerate(rows):
        events.append((called, 0, "invoke", process, f, value))
        if returned is not None:
            kind = "fail" if answer == "fail" else "ok"
            events.append((returned, 1, kind, process, f, None if answer == "fail" else answer))
    return operations(
        {"type": kind, "process": process, "f": f, "value": value, "time": float(time)}
        for time, _, kind, process, f, value in sorted(events, key=lambda event: event[:2])
    )


def verdicts(findings):
    return {finding.verdict for finding in findings}


def told(findings):
    return " / ".join(finding.sentence for finding in findings)


class TestCounters:
    @pytest.mark.parametrize("total", range(2, 12))
    def test_a_read_lies_between_what_is_sure_and_what_may_be(self, total):
        findings = judge_counter(
            history(
                (0, 1, "add", 3, None),
                (0, None, "add", 2, None),
                (0, 1, "add", 7, "fail"),
                (4, 9, "add", 4, None),
                (5, 6, "read", None, total),
                (7, 8, "add", 1, None),
            )
        )
        assert verdicts(findings) == {"valid" if 3 <= total <= 9 else "invalid"}

    @pytest.mark.parametrize(("total", "word"), [(2, "lost"), (10, "counted twice")])
    def test_it_is_told_which_way_it_is_wrong(self, total, word):
        rows = [(0, 1, "add", 3, None), (5, 6, "read", None, total)]
        assert word in told(judge_counter(history(*rows)))

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 6), st.integers(1, 6), st.integers(-3, 3), st.sampled_from("okfi")
            ),
            max_size=4,
        ),
        st.integers(0, 6),
        st.integers(1, 6),
        st.integers(-8, 8),
    )
    def test_it_agrees_with_trying_all_ways(self, adds, called, took, total):
        rows = [
            (at, None if how == "i" else at + lasts, "add", n, "fail" if how == "f" else None)
            for at, lasts, n, how in adds
        ]
        ops = history(*rows, (called, called + took, "read", None, total))
        (read,) = [op for op in ops if op.f == "read"]
        choices = []
        for op in (op for op in ops if op.f == "add" and op.outcome != "fail"):
            if op.returned < read.called:
                choices.append((op.value,))
            elif op.called <= read.returned:
                choices.append((0, op.value))
        possible = {sum(choice) for choice in itertools.product(*choices)}
        low, high = min(possible), max(possible)
        found = verdicts(judge_counter(ops))
        assert (found == {"invalid"}) == (not low <= total <= high)
        assert (found == {"valid"}) == (low <= total <= high and any(map(any, choices)))

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 6),
                st.integers(1, 4),
                st.sampled_from([-2, 1, 3, None, None]),
                st.integers(-3, 5),
                st.booleans(),
            ),
            max_size=5,
        )
    )
    @settings(max_examples=300)
    def test_a_history_that_has_an_order_is_never_called_wrong(self, drawn):
        """Reads are evidence for later reads; that must not accuse anybody who is innocent."""
        rows = [
            (at, at + lasts, "read", None, total)
            if amount is None
            else (at, at + lasts if known else None, "add", amount, None)
            for at, lasts, amount, total, known in drawn
        ]
        ops = history(*rows)
        if in_order(ops, ADDING):
            assert "invalid" not in verdicts(judge_counter(ops))

    def test_a_total_that_was_seen_stays(self):
        """Whoever was counted once although nobody knew of it cannot be uncounted again."""
        rows = [
            (0, None, "add", 2, None),
            (1, 2, "read", None, 2),
            (3, 4, "read", None, 0),
        ]
        assert verdicts(judge_counter(history(*rows))) == {"invalid"}


class TestSets:
    GOOD = ((0, 1, "add", 1, None), (0, None, "add", 2, None), (0, 1, "add", 3, "fail"))

    def judged(self, *reads):
        return judge_set(history(*self.GOOD, *reads))

    def test_what_is_sure_is_there_and_what_is_unsure_may_be(self):
        for content in ([1], [1, 2]):
            assert verdicts(self.judged((5, 6, "read", None, content))) == {"valid"}

    @pytest.mark.parametrize(
        ("reads", "words"),
        [
            ([[2]], "has not 1, which was acknowledged at 1.000 at the latest: it was lost"),
            ([[], [1]], "has not 1, which was acknowledged at 1.000 at the latest, and came back"),
            ([[1, 2], [1]], "has not 2, which was seen at 6.000 at the latest: it was lost"),
            ([[1, 2], [1], [1, 2]], "has not 2, which was seen at 6.000 at the latest, and came"),
            ([[1, 3]], "has 3, and adding it had failed"),
            ([[1, 9]], "has 9, and nobody had added it"),
            ([[1, 1]], "has 1 2 times"),
        ],
    )
    def test_what_is_lost_late_or_strange_is_told(self, reads, words):
        rows = [(5 + 2 * i, 6 + 2 * i, "read", None, content) for i, content in enumerate(reads)]
        findings = self.judged(*rows)
        assert verdicts(findings) == {"invalid"}
        assert words in told(findings)

    def test_a_read_may_miss_what_is_added_meanwhile_and_may_not_know_the_future(self):
        late = judge_set(history((0, 9, "add", 1, None), (5, 6, "read", None, [])))
        assert "1 never read" in told(late)
        assert "invalid" not in verdicts(late)
        future = history((5, 6, "read", None, [1]), (7, 8, "add", 1, None))
        assert "nobody had added it" in told(judge_set(future))


EVEN = {"a": 5, "b": 5}
MOVED = {"a": 2, "b": 8}


class TestBanks:
    def judged(self, *balances, outcome=None):
        """Reads one after the other; after the first one 3 are moved, with that outcome."""
        rows = [(10 * i, 10 * i + 1, "read", None, found) for i, found in enumerate(balances)]
        if outcome is not None:
            returned, move = (
                (None if outcome == "info" else 3),
                {"from": "a", "to": "b", "amount": 3},
            )
            rows.append((2, returned, "transfer", move, "fail" if outcome == "fail" else None))
        return judge_bank(history(*rows))

    def test_moved_money_is_no_loss(self):
        assert verdicts(self.judged(EVEN, MOVED, outcome="ok")) == {"valid"}

    @pytest.mark.parametrize(
        ("found", "change"),
        [
            ({"a": 5, "b": 4}, "1 has vanished"),
            ({"a": 5, "b": 6}, "1 has appeared"),
            ({"a": 5}, "5 has vanished"),
        ],
    )
    def test_money_that_appears_or_vanishes_is_told(self, found, change):
        findings = self.judged(EVEN, found, EVEN)
        assert verdicts(findings) == {"invalid"}
        assert f"and 10 in 2 of all reads: {change}" in told(findings)

    @pytest.mark.parametrize(
        ("outcome", "then", "verdict"),
        [
            ("ok", EVEN, "invalid"),  # acknowledged, and lost
            ("ok", MOVED, "valid"),
            ("ok", {"a": -1, "b": 11}, "invalid"),  # twice, and overdrawn
            ("fail", MOVED, "invalid"),
            ("fail", EVEN, "unknown"),  # nothing was moved that could have been lost
            ("info", MOVED, "unknown"),
            ("info", EVEN, "unknown"),
            ("info", {"a": 0, "b": 10}, "invalid"),
        ],
    )
    def test_a_transfer_shows_in_both_balances_or_in_none(self, outcome, then, verdict):
        assert verdicts(self.judged(EVEN, then, outcome=outcome)) == {verdict}

    def test_what_nobody_knew_of_is_settled_by_the_first_read_that_saw_it(self):
        """Its money cannot go back."""
        findings = self.judged(EVEN, MOVED, EVEN, outcome="info")
        assert verdicts(findings) == {"invalid"}
        assert "a held 2 in the read of process 1" in told(findings)

    def test_nobody_is_overdrawn(self):
        assert "a is overdrawn" in told(self.judged({"a": -1, "b": 11}))

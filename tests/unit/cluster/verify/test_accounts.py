"""Counters, sets and banks: judged by what adds up."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.verify.bank import judge_bank
from cluster.verify.counters import judge_counter
from cluster.verify.history import operations
from cluster.verify.sets import judge_set


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
            elif op.called < read.returned:
                choices.append((0, op.value))
        possible = {sum(choice) for choice in itertools.product(*choices)}
        low, high = min(possible), max(possible)
        assert (verdicts(judge_counter(ops)) == {"valid"}) == (low <= total <= high)


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
            ([[2]], "1 was lost"),
            ([[], [1]], "1 is missing from it, and came back"),
            ([[1, 2], [1]], "2 was lost"),
            ([[1, 2], [1], [1, 2]], "2 is missing from it, and came back"),
            ([[1, 3]], "3 is in it, and adding it had failed"),
            ([[1, 9]], "9 is in it, and nobody had added it"),
            ([[1, 1]], "1 is in it 2 times"),
        ],
    )
    def test_what_is_lost_late_or_strange_is_told(self, reads, words):
        rows = [(5 + 2 * i, 6 + 2 * i, "read", None, content) for i, content in enumerate(reads)]
        findings = self.judged(*rows)
        assert verdicts(findings) == {"invalid"}
        assert words in told(findings)

    def test_a_read_may_miss_what_is_added_meanwhile_and_may_not_know_the_future(self):
        assert verdicts(judge_set(history((0, 9, "add", 1, None), (5, 6, "read", None, [])))) == {
            "valid"
        }
        future = history((5, 6, "read", None, [1]), (7, 8, "add", 1, None))
        assert "nobody had added it" in told(judge_set(future))


class TestBanks:
    def judged(self, *balances):
        rows = [(2 * i, 2 * i + 1, "read", None, found) for i, found in enumerate(balances)]
        return judge_bank(history(*rows))

    def test_moved_money_is_no_loss(self):
        assert verdicts(self.judged({"a": 5, "b": 5}, {"a": 0, "b": 10})) == {"valid"}

    @pytest.mark.parametrize("found", [{"a": 5, "b": 4}, {"a": 5, "b": 6}, {"a": 5}])
    def test_money_that_appears_or_vanishes_is_told(self, found):
        findings = self.judged({"a": 5, "b": 5}, found)
        assert verdicts(findings) == {"invalid"}
        assert "the total was 10" in told(findings)

    def test_nobody_is_overdrawn(self):
        assert "a is overdrawn" in told(self.judged({"a": -1, "b": 11}))

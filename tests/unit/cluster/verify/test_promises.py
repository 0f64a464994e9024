"""Watches, leases, queues, ids and at-most-once: what each promises, and how a breach is told."""

from __future__ import annotations

import pytest

from cluster.verify.atmost import judge_at_most_once
from cluster.verify.history import HistoryError, operations
from cluster.verify.ids import judge_ids
from cluster.verify.leases import judge_leases
from cluster.verify.queues import judge_total_queue
from cluster.verify.watches import judge_watches


def history(*rows):
    """(process, called, returned, f, key, value, answer); `returned` None: nobody knows."""
    events = []
    for process, called, returned, f, key, value, answer in rows:
        events.append((called, 0, "invoke", process, f, key, value))
        if returned is not None:
            failed = answer == "fail"
            kind, told = ("fail", value) if failed else ("ok", answer)
            events.append((returned, 1, kind, process, f, key, told))
    return operations(
        {"type": kind, "process": process, "f": f, "key": key, "value": value, "time": float(time)}
        for time, _, kind, process, f, key, value in sorted(events, key=lambda e: (e[0], e[1]))
    )


def verdicts(findings):
    return {finding.verdict for finding in findings}


def told(findings):
    return " / ".join(finding.sentence for finding in findings)


PUT_1 = (0, 0, 1, "put", "w/a", "1", 11)
PUT_2 = (0, 2, 3, "put", "w/b", "2", 12)
DELETE = (0, 4, 5, "delete", "w/a", None, [True, 13])
PERHAPS = (1, 4, None, "put", "w/c", "3", None)
FIRST, SECOND, THIRD = [11, "w/a", "1"], [12, "w/b", "2"], [13, "w/a", None]


def heard(*batches, begin=11, process=9, at=20):
    """A follower is told one thing after the other."""
    return [
        (process, at + i, at + i, "watch", "w/", begin, list(batch))
        for i, batch in enumerate(batches)
    ]


class TestWatches:
    def judged(self, *rows):
        return judge_watches(history(PUT_1, PUT_2, DELETE, PERHAPS, *rows))

    @pytest.mark.parametrize(
        "batches",
        [
            ([FIRST], [SECOND], [THIRD]),
            ([FIRST, SECOND], [THIRD]),
            ([FIRST], [SECOND], [THIRD], [[14, "w/c", "3"]]),  # of which its writer never heard
        ],
    )
    def test_all_of_it_in_order_once_is_right(self, batches):
        assert verdicts(self.judged(*heard(*batches))) == {"valid"}

    @pytest.mark.parametrize(
        ("batches", "words"),
        [
            (([FIRST], [THIRD]), "it was never told"),
            (([SECOND],), "it was never told"),
            (([FIRST], [SECOND], [SECOND]), "a part of it had come"),
            (([FIRST], [SECOND], [THIRD], [FIRST]), "13 had come"),
            (([SECOND, FIRST],), "not in order"),
            (([FIRST], [SECOND], [THIRD], [[14, "w/x", "9"]]), "nobody can have made put w/x"),
            (([[12, "w/a", "1"]],), "nobody can have made put w/a"),
            (([FIRST, FIRST],), "the same change twice"),
        ],
    )
    def test_what_is_missing_late_or_strange_is_told(self, batches, words):
        findings = self.judged(*heard(*batches))
        assert verdicts(findings) == {"invalid"}
        assert words in told(findings)

    def test_what_one_was_told_of_the_other_must_be_told_of_too(self):
        full = heard([FIRST], [SECOND], [THIRD], [[14, "w/c", "3"]], [[15, "w/d", "4"]])
        less = heard([FIRST], [SECOND], [THIRD], [[15, "w/d", "4"]], process=8, at=30)
        last = (2, 6, 7, "put", "w/d", "4", 15)
        findings = self.judged(last, *full, *less)
        assert "put w/c '3' at revision 14 it was never told" in told(findings)

    def test_what_was_done_at_once_comes_whole(self):
        both = (2, 6, 7, "commit", "w/", {"w/d": "4", "w/e": "5"}, 14)
        d, e = [14, "w/d", "4"], [14, "w/e", "5"]
        before = ([FIRST], [SECOND], [THIRD])
        assert verdicts(self.judged(both, *heard(*before, [d, e]))) == {"valid"}
        assert "a part of it had come" in told(self.judged(both, *heard(*before, [d], [e])))
        assert "put w/e '5' at revision 14 it was never told" in told(
            self.judged(both, *heard(*before, [d]))
        )

    def test_a_later_beginning_excuses_what_came_before(self):
        again = heard([THIRD], begin=13, at=30)
        assert verdicts(self.judged(*heard([FIRST]), *again)) == {"valid"}

    def test_a_gap_is_right_where_somebody_wanted_it(self):
        wanted = (4, 6, 7, "compact", "w/", 12, None)
        gap = (9, 20, 20, "gap", "w/", 11, 13)
        after = heard([THIRD], begin=13, at=30)
        assert verdicts(self.judged(wanted, gap, *after)) == {"valid"}
        assert "nobody wanted so much" in told(self.judged(gap, *after))
        too_far = (9, 20, 20, "gap", "w/", 11, 14)
        assert "nobody wanted so much" in told(self.judged(wanted, too_far, *after))
        refused = (4, 6, 7, "compact", "w/", 12, "fail")
        assert "nobody wanted so much" in told(self.judged(refused, gap, *after))
        later = (4, 25, 26, "compact", "w/", 12, None)
        assert "nobody wanted so much" in told(self.judged(later, gap, *after))

    def test_a_gap_of_which_nobody_is_told_is_found(self):
        wanted = (4, 6, 7, "compact", "w/", 12, None)
        assert "it was never told" in told(self.judged(wanted, *heard([THIRD])))

    def test_it_begins_where_it_was_asked_to(self):
        assert "was to begin with revision 12" in told(self.judged(*heard([FIRST], begin=12)))

    def test_other_ranges_are_not_its_own(self):
        other = (3, 6, 7, "put", "x/a", "9", 14)
        after = (2, 8, 9, "put", "w/d", "4", 15)
        rows = heard([FIRST], [SECOND], [THIRD], [[15, "w/d", "4"]])
        assert verdicts(self.judged(other, after, *rows)) == {"valid"}

    def test_nobody_told_of_anything_shows_nothing(self):
        assert verdicts(self.judged()) == {"unknown"}

    def test_another_form_is_an_error_that_names_it(self):
        with pytest.raises(HistoryError, match="rows"):
            self.judged((9, 20, 21, "watch", "w/", 11, [7]))


def acquired(process, called, returned, token, until):
    return process, called, returned, "acquire", "job", None, {"token": token, "until": until}


class TestLeases:
    FIRST = acquired(0, 0.0, 0.2, 5, 3.0)

    def judged(self, *rows):
        return judge_leases(history(self.FIRST, *rows))

    def test_one_after_the_other_is_right(self):
        assert verdicts(self.judged(acquired(1, 2.0, 3.1, 9, 5.0))) == {"valid"}

    def test_nobody_acquires_what_another_believes_to_have(self):
        findings = self.judged(acquired(1, 2.0, 2.5, 9, 5.0))
        assert verdicts(findings) == {"invalid"}
        assert "job had two holders" in told(findings)

    def test_a_renewal_is_a_belief(self):
        renewal = (0, 2.0, 2.1, "renew", "job", 5, 5.0)
        later = acquired(1, 3.0, 3.2, 9, 6.0)
        assert verdicts(self.judged(renewal, later)) == {"invalid"}
        refused = (0, 2.0, 2.1, "renew", "job", 5, "fail")
        assert verdicts(self.judged(refused, later)) == {"valid"}

    def test_whoever_gives_it_back_believes_nothing(self):
        release = (0, 1.0, None, "release", "job", 5, None)
        assert verdicts(self.judged(release, acquired(1, 1.1, 1.4, 9, 5.0))) == {"valid"}
        assert verdicts(self.judged(acquired(1, 0.5, 0.9, 9, 5.0), release)) == {"invalid"}

    def test_an_old_token_is_worth_nothing(self):
        second = acquired(1, 3.0, 3.1, 9, 6.0)
        new = (1, 3.2, 3.3, "work", "job", 9, True)
        assert verdicts(self.judged(second, new, (0, 4, 5, "work", "job", 5, False))) == {"valid"}
        findings = self.judged(second, new, (0, 4, 5, "work", "job", 5, True))
        assert "the token was worth nothing" in told(findings)

    def test_tokens_grow(self):
        findings = self.judged(acquired(1, 4.0, 4.1, 4, 6.0))
        assert "token 4 was given after 5" in told(findings)

    def test_another_thing_is_another_matter(self):
        other = (1, 0.1, 0.3, "acquire", "other", None, {"token": 6, "until": 4.0})
        assert verdicts(self.judged(other)) == {"valid"}

    def test_another_form_is_an_error_that_names_it(self):
        with pytest.raises(HistoryError, match="token and until"):
            self.judged((1, 4, 5, "acquire", "job", None, True))


def queue(*rows):
    return judge_total_queue(history(*((*row[:3], row[3], None, *row[4:]) for row in rows)))


IN_1, IN_2 = (0, 0, 1, "enqueue", 1, None), (0, 2, 3, "enqueue", 2, None)
PERHAPS_IN_3 = (1, 2, None, "enqueue", 3, None)


class TestTotalQueue:
    @pytest.mark.parametrize(
        ("rows", "verdict"),
        [
            ([(2, 4, 5, "dequeue", None, 2), (2, 6, 7, "drain", None, [1])], "valid"),
            ([(2, 4, 5, "drain", None, [1, 2, 3])], "valid"),
            ([(2, 4, 5, "drain", None, [1])], "invalid"),  # lost
            ([(2, 4, 5, "dequeue", None, 1)], "valid"),  # the other is still in it
            ([(2, 4, 5, "dequeue", None, None)], "invalid"),  # and found to be empty
            ([(2, 4, 5, "drain", None, [1, 2, 2])], "invalid"),  # duplicated
            ([(2, 4, 5, "drain", None, [1, 2, 7])], "invalid"),  # from nowhere
            ([(2, 4, None, "dequeue", None, None), (3, 6, 7, "drain", None, [1])], "unknown"),
            ([(2, 4, None, "dequeue", None, None), (3, 6, 7, "drain", None, [])], "invalid"),
            ([], "unknown"),
        ],
    )
    def test_what_went_in_comes_out_once(self, rows, verdict):
        findings = queue(IN_1, IN_2, PERHAPS_IN_3, *rows)
        worst = next(v for v in ("invalid", "unknown", "valid") if v in verdicts(findings))
        assert worst == verdict

    def test_what_failed_does_not_come_out(self):
        findings = queue((0, 0, 1, "enqueue", 1, "fail"), (1, 2, 3, "dequeue", None, 1))
        assert "putting it in had failed" in told(findings)


class TestUniqueIds:
    def judged(self, *ids):
        return judge_ids(
            history(*((i, i, i + 1, "generate", None, None, x) for i, x in enumerate(ids)))
        )

    def test_each_is_given_once(self):
        assert verdicts(self.judged("a", "b", "c")) == {"valid"}
        findings = self.judged("a", "b", "a")
        assert "'a' was given 2 times: to process 0 at 1.000, process 2 at 3.000" in told(findings)

    def test_without_any_nothing_is_known(self):
        assert verdicts(judge_ids([])) == {"unknown"}


class TestAtMostOnce:
    ASKED = (0, 0, 5, "request", None, "r1", None)
    DONE = (7, 2, 2, "executed", "n1", "r1", None)

    def judged(self, *rows):
        return judge_at_most_once(history(*rows))

    def test_once_on_each_replica_is_right(self):
        other = (8, 3, 3, "executed", "n2", "r1", None)
        assert verdicts(self.judged(self.ASKED, self.DONE, other)) == {"valid"}

    @pytest.mark.parametrize(
        ("rows", "words"),
        [
            ([ASKED, DONE, (7, 4, 4, "executed", "n1", "r1", None)], "executed 2 times on n1"),
            ([ASKED], "acknowledged and not executed"),
            ([DONE], "nobody had asked"),
            ([(0, 0, 1, "request", None, "r1", "fail"), DONE], "refused for good, and executed"),
        ],
    )
    def test_every_other_way_is_told(self, rows, words):
        findings = self.judged(*rows)
        assert "invalid" in verdicts(findings)
        assert words in told(findings)

    def test_one_that_nobody_knows_of_may_be_executed_or_not(self):
        perhaps = (0, 0, None, "request", None, "r1", None)
        sure = (1, 0, 3, "request", None, "r2", None)
        done = (7, 2, 2, "executed", "n1", "r2", None)
        assert verdicts(self.judged(perhaps, sure, done)) == {"valid"}
        assert verdicts(self.judged(perhaps, self.DONE, sure, (7, 3, 3, *done[3:]))) == {"valid"}

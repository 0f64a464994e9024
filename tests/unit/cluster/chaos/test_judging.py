"""The verdict on a campaign beside its history: recovery, progress, effects, leaders."""

from __future__ import annotations

import pytest

from cluster.chaos.campaign import Result
from cluster.chaos.injector import Record
from cluster.chaos.judge import judge_effects, judge_progress, judge_result

NODES = ("n1", "n2", "n3")


def result(**changes) -> Result:
    fields = {
        "records": [],
        "harmed": [(0.0, frozenset())],
        "answered_at": [i / 10 for i in range(600)],
        "terms": 3,
        "trouble_s": 60.0,
        "peace_s": 0.5,
    }
    return Result(**(fields | changes))


def record(fault, took_effect, target="one", evidence="seen", unseated=False) -> Record:
    return Record(fault, target, ["n1"], {}, 1.0, 2.0, took_effect, evidence, unseated)


def told(findings) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in findings}


def test_a_quiet_run_is_valid():
    assert set(told(judge_result(result(), NODES)).values()) == {"valid"}


def test_what_does_not_recover_is_invalid():
    broken = result(complaints=["n1 is fatal, down"], peace_s=None)
    (finding, *_) = judge_result(broken, NODES)
    assert (finding.verdict, finding.sentence) == ("invalid", "n1 is fatal, down")


def test_silence_while_a_quorum_was_able_is_invalid():
    silent = [t for t in result().answered_at if not 20 < t < 26]
    finding = judge_result(result(answered_at=silent), NODES)[1]
    assert finding.verdict == "invalid"
    assert "6.0 s from 20.00 on" in finding.sentence


@pytest.mark.parametrize("slowness", [1.0, 3.0])
def test_a_slow_machine_has_more_time(slowness):
    silent = [t for t in result().answered_at if not 20 < t < 28]
    finding = judge_result(result(answered_at=silent), NODES, slowness)[1]
    assert (finding.verdict == "valid") == (slowness > 1.5)


@pytest.mark.parametrize(
    ("unseated", "times", "verdict"),
    [(True, 3, "valid"), (True, 1, "invalid"), (False, 3, "invalid")],
)
def test_each_leader_that_was_really_taken_away_excuses_a_second(unseated, times, verdict):
    """Six and a half seconds of silence, while leaders are killed, or it was no leader."""
    silent = [t for t in result().answered_at if not 20 < t < 26.45]
    killed = [
        Record("kill", "leader", ["n1"], {}, 21.0 + k, 21.5 + k, True, "seen", unseated)
        for k in range(times)
    ]
    finding = judge_result(result(answered_at=silent, records=killed), NODES)[1]
    assert finding.verdict == verdict


def test_silence_is_no_fault_while_too_many_are_harmed():
    silent = [t for t in result().answered_at if not 20 < t < 40]
    harmed = [(0.0, frozenset()), (20.0, frozenset({"n1", "n2"})), (40.0, frozenset())]
    finding = judge_result(result(answered_at=silent, harmed=harmed), NODES)[1]
    assert finding.verdict == "valid"
    assert finding.sentence.startswith("39 s in all")  # less one, to find itself


def test_changes_among_the_harmed_do_not_excuse_a_long_silence():
    """A minority is harmed, another one each second: the rest must go on all the while."""
    silent = [t for t in result().answered_at if not 20 < t < 26]
    harmed = [(float(t), frozenset({NODES[t % 3]})) for t in range(60)]
    finding = judge_result(result(answered_at=silent, harmed=harmed), NODES)[1]
    assert finding.verdict == "invalid"


def test_a_silence_is_not_over_because_a_majority_is_harmed_for_a_moment():
    """Nobody is ever answered, and one second in eleven nobody could have been."""
    harmed = [(0.0, frozenset())]
    for begin in range(10, 60, 11):
        harmed += [(float(begin), frozenset({"n1", "n2"})), (begin + 1.0, frozenset())]
    finding = judge_result(result(answered_at=[], harmed=harmed), NODES)[1]
    assert finding.verdict == "invalid"
    assert finding.sentence.startswith("nobody was answered for 60.0 s from 0.00 on, ")


def test_a_quorum_that_comes_back_has_a_moment_to_find_itself():
    """Half a second at a time, again and again: that is not owed, and nothing can be told."""
    harmed = [(t / 2, frozenset({"n1", "n2"}) if t % 2 == 0 else frozenset()) for t in range(120)]
    finding = judge_result(result(answered_at=[], harmed=harmed), NODES)[1]
    assert finding.verdict == "unknown"


@pytest.mark.parametrize(("able_s", "verdict"), [(0, "unknown"), (4, "unknown"), (7, "valid")])
def test_where_too_little_was_owed_to_fail_nobody_knows(able_s, verdict):
    harmed = [(0.0, frozenset()), (float(able_s), frozenset({"n1", "n2"}))]
    finding = judge_result(result(harmed=harmed), NODES)[1]
    assert finding.verdict == verdict


def test_what_is_excused_could_not_have_failed_either():
    """Seven seconds, and in the middle of them each second a leader is taken away."""
    killed = [Record("kill", "one", ["n1"], {}, t, t, True, "", True) for t in (2.0, 3.0, 4.0)]
    short = result(records=killed, trouble_s=7.0)
    assert judge_result(short, NODES)[1].verdict == "unknown"
    assert judge_result(result(records=killed, trouble_s=12.0), NODES)[1].verdict == "valid"


def test_of_short_runs_one_must_have_been_long_enough():
    short, long = result(trouble_s=3.0), result(trouble_s=30.0)
    assert told(judge_progress([(short, NODES), (long, NODES)], 1.0)).popitem()[1] == "valid"
    assert told(judge_progress([(short, NODES)] * 5, 1.0)).popitem()[1] == "unknown"
    assert judge_progress([], 1.0) == []


def test_leaders_that_were_killed_must_have_been_followed_by_others():
    killed = [record("kill", True, target="one", unseated=True)]
    assert (
        told(judge_result(result(records=killed, terms=1), NODES))["leaders changed"] == "unknown"
    )
    assert told(judge_result(result(records=killed, terms=2), NODES))["leaders changed"] == "valid"
    followers = [record("kill", True, target="leader")]  # when nobody led
    assert "leaders changed" not in told(judge_result(result(records=followers, terms=1), NODES))


def test_of_each_package_something_must_have_been_there():
    records = [record("loss", False), record("burst", True), record("full", False, evidence="no")]
    (finding,) = judge_effects(records, ["packets", "disk"])
    assert finding.verdict == "unknown"
    assert finding.sentence == "none of disk: no"
    (finding,) = judge_effects([record("loss", False), record("burst", True)], ["packets"])
    assert (finding.verdict, finding.sentence[:6]) == ("valid", "1 of 2")


def test_a_package_that_was_asked_for_and_never_came_is_unknown():
    found = judge_effects([record("pause", True)], ["kill", "pause", "jump"])
    assert [(f.verdict, f.sentence) for f in found] == [
        ("unknown", "none of kill: the plan had nothing of it"),
        ("unknown", "none of jump: the plan had nothing of it"),
    ]


def test_a_single_fault_is_not_made_up_for_by_others_of_its_package():
    (finding,) = judge_effects([record("loss", True)], ["burst"])
    assert finding.verdict == "unknown"


def test_a_kill_that_killed_nothing_beside_a_pause_that_worked_is_unknown():
    records = [record("kill", False, evidence="process 7 is still there"), record("pause", True)]
    (finding,) = judge_effects(records, ["kill", "pause"])
    assert (finding.verdict, finding.sentence) == (
        "unknown",
        "none of kill: process 7 is still there",
    )


def test_a_fault_whose_end_nobody_saw_is_told_as_such():
    (finding,) = judge_effects([record("kill", None, evidence="")], ["kill"])
    assert finding.sentence == "none of kill: still under way when the run ended"


def test_a_plan_of_which_nothing_could_be_begun_is_unknown():
    assert judge_effects([record("kill", None)], ["kill"])[0].verdict == "unknown"
    assert judge_effects([record("kill", None)], [])[0].verdict == "unknown"


def test_an_empty_plan_is_unknown_unless_no_fault_was_asked_for():
    assert judge_effects([], ["kill"])[0].verdict == "unknown"
    assert judge_effects([], [])[0].verdict == "valid"

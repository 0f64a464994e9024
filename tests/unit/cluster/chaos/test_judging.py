"""The verdict on a campaign beside its history: recovery, progress, effects, leaders."""

from __future__ import annotations

import pytest

from cluster.chaos.campaign import Result
from cluster.chaos.injector import Record
from cluster.chaos.judge import judge_effects, judge_result

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


def record(fault, took_effect, target="one", evidence="seen") -> Record:
    return Record(fault, target, ["n1"], {}, 1.0, 2.0, took_effect, evidence)


def told(findings) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in findings}


def test_a_quiet_run_is_valid():
    assert set(told(judge_result(result(), NODES)).values()) == {"valid"}


def test_what_does_not_recover_is_invalid():
    broken = result(complaints=["n1 is fatal, down"], peace_s=None)
    (finding, *_) = judge_result(broken, NODES)
    assert (finding.verdict, finding.sentence) == ("invalid", "n1 is fatal, down")


def test_silence_while_a_quorum_was_able_is_invalid():
    silent = [t for t in result().answered_at if not 20 < t < 31]
    finding = judge_result(result(answered_at=silent), NODES)[1]
    assert finding.verdict == "invalid"
    assert "11.0 s from 20.00 on" in finding.sentence


@pytest.mark.parametrize("slowness", [1.0, 3.0])
def test_a_slow_machine_has_more_time(slowness):
    silent = [t for t in result().answered_at if not 20 < t < 35]
    finding = judge_result(result(answered_at=silent), NODES, slowness)[1]
    assert (finding.verdict == "valid") == (slowness > 1.5)


@pytest.mark.parametrize(
    ("target", "times", "verdict"),
    [("leader", 3, "valid"), ("leader", 1, "invalid"), ("one", 3, "invalid")],
)
def test_each_leader_that_is_taken_away_excuses_a_second(target, times, verdict):
    """Eleven and a half seconds of silence, while leaders, or others, are killed."""
    silent = [t for t in result().answered_at if not 20 < t < 31.45]
    killed = [
        Record("kill", target, ["n1"], {}, 21.0 + k, 21.5 + k, True, "seen") for k in range(times)
    ]
    finding = judge_result(result(answered_at=silent, records=killed), NODES)[1]
    assert finding.verdict == verdict


def test_silence_is_no_fault_while_too_many_are_harmed():
    silent = [t for t in result().answered_at if not 20 < t < 40]
    harmed = [(0.0, frozenset()), (20.0, frozenset({"n1", "n2"})), (40.0, frozenset())]
    finding = judge_result(result(answered_at=silent, harmed=harmed), NODES)[1]
    assert finding.verdict == "valid"
    assert finding.sentence.startswith("40 s in all")


def test_changes_among_the_harmed_do_not_excuse_a_long_silence():
    """A minority is harmed, another one each second: the rest must go on all the while."""
    silent = [t for t in result().answered_at if not 20 < t < 31]
    harmed = [(float(t), frozenset({NODES[t % 3]})) for t in range(60)]
    finding = judge_result(result(answered_at=silent, harmed=harmed), NODES)[1]
    assert finding.verdict == "invalid"


def test_leaders_that_were_killed_must_have_been_followed_by_others():
    killed = [record("kill", True, target="leader")]
    assert (
        told(judge_result(result(records=killed, terms=1), NODES))["leaders changed"] == "unknown"
    )
    assert told(judge_result(result(records=killed, terms=2), NODES))["leaders changed"] == "valid"
    followers = [record("kill", True, target="n2")]
    assert "leaders changed" not in told(judge_result(result(records=followers, terms=1), NODES))


def test_of_each_package_something_must_have_been_there():
    records = [record("loss", False), record("burst", True), record("full", False, evidence="no")]
    (finding,) = judge_effects(records)
    assert finding.verdict == "unknown"
    assert finding.sentence == "none of disk: no"
    (finding,) = judge_effects([record("loss", False), record("burst", True)])
    assert (finding.verdict, finding.sentence[:6]) == ("valid", "1 of 2")


def test_a_plan_of_which_nothing_could_be_begun_is_unknown_and_no_plan_is_not():
    assert judge_effects([record("kill", None)])[0].verdict == "unknown"
    assert judge_effects([])[0].verdict == "valid"

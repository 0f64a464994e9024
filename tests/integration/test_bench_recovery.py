"""`ring bench recovery`: it times what was done after the kill, and its bars can be missed."""

from __future__ import annotations

import pytest

from cluster.bench import recovery
from cluster.bench.recovery import BARS_MS, NothingCame, after_death, committed_after, rows

KILLED = 100.0


def step(name, number, at, members=3, **more):
    return name, {"kind": "step", "step": number, "at": at, "members": members, **more}


def lost(name, whom, at):
    return name, {"kind": "lost", "name": whom, "at": at}


def test_a_step_that_was_committed_before_the_kill_does_not_count():
    said = [
        step("w1", 6, 99.9),
        step("w1", 7, 100.001),  # told of after it, and done before
        step("w2", 7, 100.002),
        step("w3", 6, 100.003),  # heard late
        step("w3", 7, 100.004),
        step("w2", 8, 100.9),
    ]
    assert committed_after(iter(said), KILLED) == pytest.approx(0.9)


def test_no_step_after_the_kill_is_no_figure():
    with pytest.raises(NothingCame):
        committed_after(iter([step("w1", 6, 99.9), step("w1", 7, 100.1)]), KILLED)


def test_the_error_is_that_of_the_last_survivor_and_the_step_is_of_these_alone():
    said = [
        step("w1", 7, 100.01),  # of all three: it was under way
        lost("w1", "w2", 100.1),
        lost("w1", "w2", 100.15),  # again, of another epoch
        step("w1", 8, 100.3, members=2),
        lost("ps", "w1", 100.35),
        lost("ps", "w2", 100.4),
    ]
    error, took = after_death(iter(said), "w2", KILLED)
    assert (error, took) == (pytest.approx(0.4), pytest.approx(0.3))


def test_the_dead_are_not_asked():
    said = [lost("w2", "w2", 100.1), lost("w1", "w2", 100.2), step("w1", 8, 100.3, members=2)]
    with pytest.raises(NothingCame):
        after_death(iter(said), "w2", KILLED)


@pytest.mark.parametrize(
    ("who", "victim"), [("a worker", "w1"), ("the first", "w2"), ("the parameter server", "ps")]
)
def test_each_kind_of_death_has_its_victim(who, victim):
    """By who is who at the time: the first is another after each death of the first."""
    _, event = step("w1", 7, 100.0, first="w2", server="ps")
    assert recovery.victim_of(who, event) == victim


@pytest.mark.parametrize("what", BARS_MS)
@pytest.mark.parametrize(("over", "holds"), [(-1, True), (1, False)])
def test_the_worst_trial_is_held_to_the_bar(what, over, holds):
    worst = (BARS_MS[what] + over) / 1e3
    median, bar = rows({("a member", what): [0.01, worst, 0.02]})
    assert (bar.metric, bar.holds, bar.note) == ("worst", holds, "3 trials")
    assert (median.metric, median.ours, median.bar) == ("median", pytest.approx(20.0), None)


def test_imports_have_no_bar():
    assert all(row.bar is None for row in rows({("a member", "healed, imports and all"): [9.0]}))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kind_of_death_gives_a_time(monkeypatch):
    monkeypatch.setattr(recovery, "TRIALS", 1)
    report = recovery.run(peers=False)
    assert len(report.rows) == 2 * (3 * 4 + 1)
    assert all(0 < row.ours < 90_000 for row in report.rows)
    assert {row.bar for row in report.rows if row.metric == "worst"} == {*BARS_MS.values(), None}

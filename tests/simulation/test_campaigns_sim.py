"""Campaigns over whole daemons in virtual time: seeded faults, the verdict, the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.chaos.catalogue import DEFAULT
from cluster.chaos.judge import VIRTUAL, judge_effects, judge_progress
from cluster.chaos.plan import Episode
from cluster.chaos.scenarios import SCENARIOS
from cluster.chaos.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_healthy_build_is_valid_under_everything(scenario, seed):
    run = simulate(scenario, seed, seconds=10.0)
    assert run.verdict.verdict == "valid", f"ring sim {scenario} --seed {seed}: {run.line()}"


def test_a_few_seeds_see_every_package_take_effect_and_many_leaders():
    """A campaign that is green because nothing happened would be worth nothing."""
    runs = [simulate("register", seed, seconds=20.0) for seed in range(20, 24)]
    assert [run.verdict.verdict for run in runs] == ["valid"] * 4, [run.line() for run in runs]
    records = [record for run in runs for record in run.result.records]
    assert [finding.verdict for finding in judge_effects(records, DEFAULT)] == ["valid"]
    progress = judge_progress([(run.result, run.nodes) for run in runs], VIRTUAL)
    assert [finding.verdict for finding in progress] == ["valid"], progress
    assert sum(run.result.terms for run in runs) >= 8


def test_what_shows_a_fault_is_its_own():
    """On the daemons themselves: counts by cause, how a process ended, what a clock shows."""
    plan = [
        Episode("loss", "all", {"loss": 0.2}, 0.5, 2.5),
        Episode("burst", "all", {"burst_begin": 0.1, "burst_end": 0.3}, 0.5, 2.5),
        Episode("delay", "n2", {"delay_s": 0.0, "jitter_s": 0.0}, 0.5, 2.5),
        Episode("jump", "n3", {"offset_s": -2.0}, 0.6, 2.6),
        Episode("drift", "n1", {"rate": 0.9}, 0.6, 2.6),
        Episode("slow-disk", "n1", {"slow_s": 0.02}, 3.0, 4.0),
        Episode("torn", "n2", {"torn": True}, 4.0, 6.0),
        Episode("eio", "n2", {"eio_at": 50_000}, 4.0, 6.0),
        Episode("crashpoint", "n2", {"point": "raft.before-apply", "after": 50_000}, 4.0, 6.0),
        Episode("slow-disk", "n1", {"slow_s": 0.0}, 4.5, 6.0),
        Episode("crashpoint", "n3", {"point": "raft.persisted", "after": 2}, 6.5, 8.5),
        Episode("torn", "n1", {"torn": False}, 6.5, 8.5),
        Episode("truncate", "n1", {}, 9.0, 10.0),
        Episode("wipe", "n2", {}, 13.0, 14.0),
        Episode("old-copy", "n3", {}, 17.0, 18.0),
    ]
    run = simulate("register", 1, seconds=21.0, plan=plan, nodes=3)
    assert run.verdict.verdict == "valid", run.line()
    told = [(r.fault, r.took_effect, r.evidence) for r in run.result.records]
    shown = {evidence for _, took_effect, evidence in told if took_effect}
    harmless = [fault for fault, took_effect, _ in told if took_effect is False]
    assert sorted(harmless) == ["crashpoint", "delay", "eio", "slow-disk", "torn"], told
    for words in (
        "datagrams lost",
        "datagrams lost in bursts",
        "n3: wall clock off by -2.00 s",
        "n1: steady clock ran 0.90 times as fast",
        "n2 gave up over its disk: torn write",
        "n3 died at raft.persisted",
        "it started on what was left, apart from the others",
    ):
        assert any(evidence.endswith(words) for evidence in shown), (words, told)


def test_terms_stand_still_while_nobody_can_be_elected():
    """Of two nodes, one has no room for its vote: asking again and again must not cost terms."""
    full = Episode("full", "n1", {"full": True}, 1.0, 9.0)
    run = simulate("register", 3, seconds=10.0, plan=[full], nodes=2)
    assert run.verdict.verdict == "valid", run.line()
    (record,) = run.result.records
    assert record.took_effect
    roles = [event for event in map(json.loads, run.events.splitlines()) if "role" in event]
    assert max(event["term"] for event in roles) <= 6


def digest(run) -> str:
    return hashlib.sha256((run.events + run.history + str(run.verdict)).encode()).hexdigest()


def test_one_seed_one_history_byte_for_byte():
    first, second = (simulate("register", 7, seconds=6.0) for _ in range(2))
    assert digest(first) == digest(second)
    assert len(first.events) > 5_000
    assert len(first.history) > 5_000
    assert digest(simulate("register", 8, seconds=6.0)) != digest(first)


def test_a_plan_that_was_written_down_gives_the_same_run():
    drawn = simulate("register", 7, seconds=6.0)
    assert digest(simulate("register", 7, seconds=6.0, plan=drawn.plan)) == digest(drawn)
    assert digest(simulate("register", 7, seconds=6.0, plan=drawn.plan[1:])) != digest(drawn)


def test_another_process_with_another_hash_seed_tells_the_same_history():
    """Sets of strings come in another order in each process: none may decide what happens."""
    program = (
        "import hashlib; from cluster.chaos.simulate import simulate;"
        "run = simulate('register', 7, seconds=6.0);"
        "print(hashlib.sha256((run.events + run.history + str(run.verdict)).encode()).hexdigest())"
    )
    digests = {digest(simulate("register", 7, seconds=6.0))}
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(run.stdout.strip())
    assert len(digests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("first", range(1000, 1060, 20))
def test_many_seeds(scenario, first):
    for seed in range(first, first + 20):
        run = simulate(scenario, seed, seconds=20.0)
        assert run.verdict.verdict == "valid", f"ring sim {scenario} --seed {seed}: {run.line()}"

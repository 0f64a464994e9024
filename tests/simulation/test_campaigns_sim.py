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
        assert run.verdict.verdict != "invalid", f"ring sim {scenario} --seed {seed}: {run.line()}"

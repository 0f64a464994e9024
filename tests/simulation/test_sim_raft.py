"""Whole daemons in virtual time: seeded faults, the verdict, the same bytes for a seed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.sim.raft import simulate

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("seed", range(8))
def test_a_seed_is_valid(seed):
    verdict = simulate(seed, seconds=12.0)
    assert verdict.outcome in ("valid", "unknown"), f"ring sim raft --seed {seed}: {verdict.why}"


def test_most_seeds_test_something():
    """A campaign that is green because nothing happened would be worth nothing."""
    verdicts = [simulate(seed, seconds=12.0) for seed in range(20, 24)]
    assert sum(v.outcome == "valid" for v in verdicts) >= 3, [v.line() for v in verdicts]
    assert all(v.faults > 5 for v in verdicts)
    assert sum(v.leaders for v in verdicts) >= 8


def test_one_seed_one_history_byte_for_byte():
    first, second = simulate(7, seconds=6.0), simulate(7, seconds=6.0)
    assert first.log == second.log
    assert len(first.log) > 5_000
    assert simulate(8, seconds=6.0).log != first.log


def test_another_process_with_another_hash_seed_tells_the_same_history():
    """Sets of strings come in another order in each process: none may decide what happens."""
    program = (
        "import hashlib; from cluster.sim.raft import simulate;"
        "print(hashlib.sha256(simulate(7, seconds=6.0).log.encode()).hexdigest())"
    )
    digests = {hashlib.sha256(simulate(7, seconds=6.0).log.encode()).hexdigest()}
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
@pytest.mark.parametrize("first", range(1000, 1200, 20))
def test_many_seeds(first):
    for seed in range(first, first + 20):
        verdict = simulate(seed, seconds=20.0)
        assert verdict.outcome != "invalid", f"ring sim raft --seed {seed}: {verdict.why}"

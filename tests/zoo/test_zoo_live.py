"""Planted bugs on real processes: the same bugs and the same judge, but sockets, disks and time.

The plan is slower than in virtual time, since a process takes longer to start than an object.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from daemon_bugs import ZOO, campaigns, shows
from daemon_plans import SECONDS

from cluster.chaos import raft_live
from cluster.chaos.judge import WENT_ON
from cluster.chaos.raft_live import LiveRaft
from cluster.chaos.run import Wanted, run_live
from cluster.control import start_supervisor

LIVE = [bug for bug in ZOO if bug.live]
# How much slower; and so many campaigns of this length may be needed.
SLOWER = 2.0
RUNS = 3


def campaign(bug, folder: Path, seed: int):
    """What came of one on a fresh cluster of processes."""
    plan = [replace(e, at=e.at * SLOWER, until=e.until * SLOWER) for e in bug.plan]
    wanted = Wanted(bug.scenario, (), plan, SECONDS * SLOWER, seed, 6, ["make", "zoo"])
    folder.mkdir()
    system = LiveRaft(folder / "home", bug.nodes or 3)
    return asyncio.run(run_live(system, wanted, folder, lambda line: None)).verdict


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", LIVE, ids=lambda bug: bug.name)
def test_the_bug_is_found_on_real_processes_too(bug, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("RING_BUG", bug.name)
    planted = partial(start_supervisor, module="planted_supervisor")
    monkeypatch.setattr(raft_live, "start_supervisor", planted)
    told = []
    for seed in range(RUNS):
        verdict = campaign(bug, tmp_path / str(seed), seed)
        if shows(bug, verdict):
            return
        told += [f"{finding.verdict} {finding.check}" for finding in verdict.findings]
    raise AssertionError(f"{bug.name}: {bug.what}: survived {RUNS} campaigns: {told}")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", campaigns(LIVE), ids=lambda bug: bug.name)
def test_the_original_comes_through_the_same(bug, tmp_path):
    """All is valid but, perhaps, one thing: where a majority is taken away every two seconds, no
    silence can be long enough to tell whether it went on in between."""
    verdict = campaign(bug, tmp_path / "run", 0)
    told = [(f.check, f.verdict) for f in verdict.findings if f.verdict != "valid"]
    assert told in ([], [(WENT_ON, "unknown")]), verdict.findings

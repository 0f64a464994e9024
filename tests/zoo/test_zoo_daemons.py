"""Every planted bug of whole daemons is found within its budget, and the original never."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon_bugs import SECONDS, ZOO, planted

from cluster.chaos.simulate import simulate

TABLE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"


def seed_that_shows(bug) -> int | None:
    """The first seed of its budget whose verdict is invalid."""
    for seed in range(bug.seeds):
        run = simulate(bug.scenario, seed, seconds=SECONDS, plan=bug.plan)
        if run.verdict.verdict == "invalid":
            return seed
    return None


@pytest.mark.parametrize("bug", ZOO, ids=lambda bug: bug.name)
def test_the_bug_is_found_within_its_budget(bug):
    with planted(bug):
        assert seed_that_shows(bug) is not None, (
            f"{bug.name}: {bug.what}: survived {bug.seeds} seeds"
        )


@pytest.mark.parametrize("bug", ZOO[::3], ids=lambda bug: bug.name)
def test_the_same_faults_find_nothing_wrong_with_the_original(bug):
    run = simulate(bug.scenario, 0, seconds=SECONDS, plan=bug.plan)
    assert run.verdict.verdict != "invalid", run.line()


@pytest.mark.slow
@pytest.mark.parametrize("bug", ZOO, ids=lambda bug: bug.name)
def test_nor_do_many_seeds_of_them(bug):
    for seed in range(10):
        run = simulate(bug.scenario, seed, seconds=SECONDS, plan=bug.plan)
        assert run.verdict.verdict != "invalid", run.line()


def test_each_stands_in_the_table():
    table = TABLE.read_text()
    for bug in ZOO:
        assert f"| {bug.name} | {bug.part} | {bug.what} |" in table, bug.name

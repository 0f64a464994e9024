"""Every planted bug of whole daemons is found within its budget, and the original never.

The quick part belongs to `make test`: bugs that show at once. `make zoo` tries all.
"""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from daemon_bugs import ZOO, campaigns, planted, run, shows

TABLE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
QUICK = [bug for bug in ZOO if bug.quick]
# Part of the budget that the original must come through as well.
HONEST_SEEDS = 3
# Bugs that are looked for by the same faults have the same original: it is run once.
HONEST = campaigns(ZOO)


def seed_that_shows(bug) -> int | None:
    """The first seed of its budget whose verdict names the check that was to catch it."""
    for seed in range(bug.seeds):
        if shows(bug, run(bug, seed).verdict):
            return seed
        gc.collect()  # a simulated disk is megabytes, in cycles
    return None


def is_found(bug) -> None:
    with planted(bug):
        found = seed_that_shows(bug)
    assert found is not None, f"{bug.name}: {bug.what}: survived {bug.seeds} seeds"


@pytest.mark.parametrize("bug", QUICK, ids=lambda bug: bug.name)
def test_what_shows_at_once_is_found(bug):
    is_found(bug)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", [bug for bug in ZOO if not bug.quick], ids=lambda bug: bug.name)
def test_the_bug_is_found_within_its_budget(bug):
    is_found(bug)


@pytest.mark.parametrize("bug", QUICK[::4], ids=lambda bug: bug.name)
def test_the_same_faults_find_nothing_wrong_with_the_original(bug):
    found = run(bug, 0)
    assert found.verdict.verdict == "valid", found.line()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(HONEST_SEEDS))
@pytest.mark.parametrize("bug", HONEST, ids=lambda bug: bug.name)
def test_nor_do_more_seeds_of_them(bug, seed):
    found = run(bug, seed)
    assert found.verdict.verdict == "valid", found.line()
    gc.collect()


def test_no_bug_goes_without_its_original():
    for bug in ZOO:
        assert sum(bug.campaign == honest.campaign for honest in HONEST) == 1, bug.name


def test_there_are_enough_of_every_part():
    parts = {bug.part for bug in ZOO}
    assert len(ZOO) >= 25
    assert parts >= {"core", "disk", "sessions", "reads", "snapshots", "membership", "transport"}
    assert sum(bug.live for bug in ZOO) >= 11


def row(bug) -> str:
    """Its line of the table."""
    live = "live" if bug.live else "-"
    cells = (bug.name, bug.part, bug.what, bug.scenario, bug.check, str(bug.seeds), live)
    return "| " + " | ".join(cells) + " |"


def test_the_table_in_the_docs_is_this_one():
    told = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    assert told[-len(ZOO) :] == [row(bug) for bug in ZOO]

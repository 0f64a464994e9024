"""`ring chaos` before anything is started: what it refuses, and the command that runs it again."""

from __future__ import annotations

import shlex

import pytest
from chaos_kit import FakeSystem

from cluster.chaos import raft_live, run, systems
from cluster.chaos.catalogue import PAUSE, PROCESS
from cluster.chaos.plan import Episode, write_plan
from cluster.errors import Unhealthy


class Poor(FakeSystem):
    """Its processes can be killed and paused; more is out of reach."""

    name = "poor"
    able = frozenset((PROCESS, PAUSE))


@pytest.fixture
def wanted(monkeypatch):
    """What was asked for, by the time that a system would be started."""
    seen = []

    async def run_live(system, asked, folder, say):
        seen.append((system, asked, folder))
        raise Unhealthy("seen enough")

    monkeypatch.setattr(run, "run_live", run_live)
    monkeypatch.setattr(
        systems, "SYSTEMS", {"raft": lambda f, n: FakeSystem(n), "poor": lambda f, n: Poor(n)}
    )
    monkeypatch.setattr(raft_live, "LiveRaft", lambda home: FakeSystem(3))
    return seen


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--faults", "kill,ring"], "ring: it takes 4 nodes, and there are 3"),
        (["--faults", "chain"], "chain: it takes 4 nodes"),
        (["--faults", "files", "--nodes", "2"], "files: it takes 3 nodes, and there are 2"),
        (["--faults", "partition", "--nodes", "1"], "partition: it takes 2 nodes"),
        (
            ["--faults", "disk", "--system", "poor"],
            "poor cannot be harmed so: disk: it is out of reach",
        ),
    ],
)
def test_what_the_system_cannot_suffer_is_refused_by_name(ring, wanted, tmp_path, words, why):
    ring("chaos", "register", *words).refused(2, why)
    assert wanted == []
    assert list((tmp_path / "home" / "runs").glob("*-seed*")) == []


def test_so_is_a_plan_of_it(ring, wanted, tmp_path):
    path = tmp_path / "plan.jsonl"
    write_plan(path, [Episode("eio", "one", {"eio_at": 1}, 1.0, 2.0)])
    ring("chaos", "--system", "poor", "--plan", str(path)).refused(2, "disk: it is out of reach")


def test_what_nobody_asked_for_by_name_is_left_out_and_told(ring, wanted):
    done = ring("chaos", "--system", "poor")
    assert "left out: host: it is out of reach there; partition: it is" in done.err
    ((_, asked, _),) = wanted
    assert asked.packages == ("kill", "pause")
    assert {episode.fault for episode in asked.plan} <= {"kill", "pause", "slow"}


@pytest.mark.parametrize(
    "words",
    [
        "--faults kill,jump",
        "--faults none --nodes 5",
        "--here --workers 9",
        "--system poor",
        "--workers 2 --nodes 5",
    ],
)
def test_the_command_that_runs_it_again_is_the_one_that_was_typed(ring, wanted, words):
    ring("chaos", "bank", "--time", "20", "--seed", "4", *words.split())
    ((system, asked, _),) = wanted
    ring(*asked.command[1:])
    again, repeated, _ = wanted[1]
    assert (repeated.plan, repeated.packages, repeated.workers, repeated.seed) == (
        asked.plan,
        asked.packages,
        asked.workers,
        4,
    )
    assert (again.name, again.nodes) == (system.name, system.nodes)
    assert ("--here" in asked.command) == ("--here" in words)


def test_a_given_plan_is_run_as_it_is_and_run_again_from_the_folder(ring, wanted, tmp_path):
    path = tmp_path / "plan.jsonl"
    write_plan(path, [])
    ring("chaos", "--plan", str(path))
    ring("chaos", "--plan", str(path), "--faults", "none")
    (_, empty, folder), (_, none, _) = wanted
    assert empty.plan == none.plan == []
    assert "kill" in empty.packages
    assert none.packages == ()
    assert shlex.join(empty.command).endswith(f"--plan {folder / 'plan.jsonl'}")

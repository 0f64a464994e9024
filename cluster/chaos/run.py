"""A campaign on live processes, from the first process to the verdict.

The folder of a fresh cluster is deleted when the verdict is valid, and kept for who wants to see
what happened otherwise.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.chaos.campaign import Campaign, Result
from cluster.chaos.folder import (
    Described,
    Outcome,
    conclude,
    describe,
    judge_folder,
    record_outcome,
)
from cluster.chaos.plan import Plan
from cluster.chaos.scenarios import workload_of
from cluster.chaos.slowness import Slowness, measure_slowness
from cluster.chaos.system import System
from cluster.verify.linear import VALID
from cluster.verify.verdict import Verdict

# What the search for an order may take.
LIMIT_S: Final = 120.0
# What costs a copy waits so long for its turn. Replacing a node whose files are gone takes seconds,
# on a busy machine twenty; without, one kind of fault could keep the other from ever coming.
PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asked for on the command line."""

    scenario: str
    packages: Sequence[str]
    plan: Plan
    seconds: float
    seed: int
    workers: int
    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of it."""

    folder: Path
    verdict: Verdict
    result: Result
    report: Path


async def run_live(
    system: System, wanted: Wanted, folder: Path, say: Callable[[str], None]
) -> Finished:
    """Start the system, run the campaign, judge it, write everything down, stop the system."""
    workload = workload_of(wanted.scenario, wanted.seed)
    try:
        await system.start()
        slowness = Slowness(await measure_slowness())
        if slowness() > 1:
            say(f"this machine is busy: all limits are {slowness():.1f} times as long")
        described = Described(
            wanted.scenario,
            workload.model,
            system.name,
            system.nodes,
            wanted.packages,
            wanted.seed,
            wanted.seconds,
            wanted.command,
            time.monotonic(),
        )
        describe(folder, described, wanted.plan)
        with (folder / "history.jsonl").open("w", encoding="utf-8") as history:
            campaign = Campaign(
                system,
                workload,
                wanted.plan,
                seconds=wanted.seconds,
                seed=wanted.seed,
                history=history,
                now=time.monotonic,
                workers=wanted.workers,
                slowness=lambda: slowness() * system.patience,
                say=say,
                patience_s=PATIENCE_S,
            )
            watching = asyncio.create_task(slowness.watch())
            try:
                result = await campaign.run()
            finally:
                watching.cancel()
    finally:
        await system.stop()
    _keep_events(folder, system)
    record_outcome(folder, Outcome(result, slowness() * system.patience))
    verdict = judge_folder(folder, limit_s=LIMIT_S)
    return Finished(folder, verdict, result, conclude(folder, verdict))


def _keep_events(folder: Path, system: System) -> None:
    """The nodes' own logs, if they are ours."""
    home = getattr(system, "home", None)
    if home is None:
        return
    (folder / "events").mkdir(exist_ok=True)
    for name in (*system.nodes, "supervisor"):
        path = home / "nodes" / name / "events.jsonl"
        if path.exists():
            shutil.copyfile(path, folder / "events" / f"{name}.jsonl")


def tidy(finished: Finished) -> None:
    """Delete the fresh cluster of a run with which nothing is wrong."""
    home = finished.folder / "home"
    if finished.verdict.verdict == VALID and home.exists():
        shutil.rmtree(home)

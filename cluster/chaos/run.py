"""A campaign on live processes, and the folder that it leaves: all that a verdict rests on.

    .ring/runs/2026-11-23T19-06-40-register-seed42/
        run.json        what was run, and the command that runs it again
        plan.jsonl      the fault plan               faults.jsonl   what came of it
        history.jsonl   what clients asked and were told
        events/n1.jsonl the nodes' own logs          home/   the cluster, if it was a fresh one
        verdict.json    report.html

`latest` beside it points to the newest. The folder of a fresh cluster is deleted when the verdict
is valid, and kept for who wants to see what happened otherwise.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.chaos.campaign import Campaign, Result
from cluster.chaos.judge import judge_effects, judge_result
from cluster.chaos.plan import Plan, write_plan
from cluster.chaos.scenarios import workload_of
from cluster.chaos.system import System
from cluster.verify.history import operations, read_events
from cluster.verify.linear import VALID
from cluster.verify.verdict import Verdict, judge_history

VERSION: Final = 1
# What the search for an order may take.
LIMIT_S: Final = 120.0
# A timer that is this late shows a machine that keeps up; limits grow with what is later.
LATE_S: Final = 0.05
PROBES: Final = 20


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


@dataclass(slots=True)
class Finished:
    """What came of it."""

    folder: Path
    verdict: Verdict
    result: Result
    slowness: float = 1.0
    report: Path | None = None
    notes: list[str] = field(default_factory=list)


def new_folder(runs: Path, scenario: str, seed: int) -> Path:
    """A folder for a run that begins now; `latest` points to it."""
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
    folder = runs / f"{stamp}-{scenario}-seed{seed}"
    number = 2
    while folder.exists():
        folder = runs / f"{stamp}-{scenario}-seed{seed}-{number}"
        number += 1
    folder.mkdir(parents=True)
    latest = runs / "latest"
    with suppress(OSError):
        latest.unlink(missing_ok=True)
        latest.symlink_to(folder.name)
    return folder


async def run_live(
    system: System, wanted: Wanted, folder: Path, say: Callable[[str], None]
) -> Finished:
    """Start the system, run the campaign, judge it, write everything down, stop the system."""
    workload = workload_of(wanted.scenario, wanted.seed)
    began_wall = time.time()
    try:
        await system.start()
        slowness = await measure_slowness()
        if slowness > 1:
            say(f"this machine is busy: all limits are {slowness:.1f} times as long")
        _describe(folder, system, wanted, workload.model, began_wall)
        write_plan(folder / "plan.jsonl", wanted.plan)
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
                slowness=slowness,
                say=say,
            )
            began_wall = time.time()
            _describe(folder, system, wanted, workload.model, began_wall)
            result = await campaign.run()
    finally:
        await system.stop()
    faults = [json.dumps(record.to_json()) for record in result.records]
    (folder / "faults.jsonl").write_text("".join(line + "\n" for line in faults))
    _keep_events(folder, system, began_wall)
    verdict = judge_history(
        operations(read_events(folder / "history.jsonl")), workload.model, limit_s=LIMIT_S
    )
    verdict.findings = [
        *judge_result(result, system.nodes, slowness),
        *judge_effects(result.records),
        *verdict.findings,
    ]
    (folder / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=2))
    return Finished(folder, verdict, result, slowness)


async def measure_slowness() -> float:
    """By how much timers are later here than on a machine that keeps up; 1 or more."""
    loop, worst = asyncio.get_running_loop(), 0.0
    for _ in range(PROBES):
        due = loop.time() + 0.01
        await asyncio.sleep(0.01)
        worst = max(worst, loop.time() - due)
    return max(1.0, worst / LATE_S)


def _describe(folder: Path, system: System, wanted: Wanted, model: str, began: float) -> None:
    described: dict[str, Any] = {
        "version": VERSION,
        "scenario": wanted.scenario,
        "workload": wanted.scenario,
        "model": model,
        "faults": list(wanted.packages),
        "system": system.name,
        "nodes": list(system.nodes),
        "seed": wanted.seed,
        "seconds": wanted.seconds,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "began_wall": began,
        "command": shlex.join(wanted.command),
    }
    (folder / "run.json").write_text(json.dumps(described, indent=2))


def _keep_events(folder: Path, system: System, began_wall: float) -> None:
    """The nodes' logs of this time; a wall clock that was put off must not lose a line."""
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

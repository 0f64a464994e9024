"""A campaign in virtual time: one seed, one run, byte for byte.

The seed decides the size of the cluster, how far its nodes are from one another, how often they
take snapshots, the plan, and everything that happens. So a failure is a number; and because the
plan is data, it can be made smaller: parts of it are left out as long as the run still fails
(ddmin, Zeller and Hildebrandt 2002). What is left is usually a story of two or three faults.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.chaos.campaign import Campaign, Result
from cluster.chaos.folder import (
    Described,
    Outcome,
    conclude,
    describe,
    judge_folder,
    record_outcome,
)
from cluster.chaos.judge import VIRTUAL, WENT_ON, judge_result, judge_run
from cluster.chaos.plan import Episode, Plan, draw_plan, packages_in
from cluster.chaos.raft_sim import SimulatedRaft
from cluster.chaos.scenarios import default_faults, workload_of
from cluster.verify.finding import Finding
from cluster.verify.history import operations
from cluster.verify.linear import INVALID, UNSURE
from cluster.verify.verdict import Verdict
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.simulation.world import World

# What the search for an order may take; a history of this length takes a fraction of a second.
LIMIT_S: Final = 60.0
# Runs that shrinking may cost.
TRIES_MAX: Final = 80


@dataclass(slots=True)
class SimulatedRun:
    """What came of one seed."""

    seed: int
    nodes: tuple[str, ...]
    plan: Plan
    verdict: Verdict
    result: Result | None
    began_s: float  # when the campaign began, in virtual time
    virtual_s: float
    history: str
    events: str
    broken: list[Finding]  # what the daemons themselves found to be wrong

    def line(self) -> str:
        """For a person."""
        counts, result = self.verdict.counts, self.result
        faults = sum(bool(r.took_effect) for r in result.records) if result else 0
        reigns = result.terms if result else 0
        wrong = [f for f in self.verdict.findings if f.verdict == self.verdict.verdict]
        why = "" if self.verdict.verdict == "valid" else f"{wrong[0].check}: {wrong[0].sentence}"
        return (
            f"{self.verdict.verdict.upper():8} seed {self.seed}  {counts.get('ok', 0)} ops"
            f" ({counts.get('info', 0)} unknown)  {reigns} leaders  {faults} faults "
            f" {self.virtual_s:.0f} s  {why}"
        ).rstrip()


def simulate(
    scenario: str,
    seed: int,
    *,
    seconds: float = 20.0,
    packages: Sequence[str] | None = None,
    plan: Plan | None = None,
    interval_s: float | None = None,
    nodes: int | None = None,
    settings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> SimulatedRun:
    """One run; raises Usage for an unknown scenario and UnknownFault for an unknown package.

    Args:
        packages: of faults; None: what the scenario must bear.
        plan: instead of the one that the seed draws.
        interval_s: mean time of quiet between two faults of a package.
        nodes: how many, instead of what the seed draws.
        settings: of the `[raft]` table, instead of what the seed draws.
    """
    workload = workload_of(scenario, seed)
    world, dice = World(seed), random.Random(f"plan {seed}")
    system = _system(world, dice, nodes, settings or {})
    packages = default_faults(scenario) if packages is None else packages
    drawn = draw_plan(packages, seconds, dice, interval_s=interval_s, nodes=len(system.nodes))
    history = io.StringIO()
    plan = drawn if plan is None else plan
    campaign = Campaign(
        system,
        workload,
        plan,
        seconds=seconds,
        seed=seed,
        history=history,
        now=world.loop.time,
        say=say,
    )
    try:
        result, broken = _carry_out(world, system, campaign)
    finally:
        virtual_s, events = world.now, world.log
        world.close()
    verdict = judge_run(
        operations(json.loads(line) for line in history.getvalue().splitlines()),
        workload.model,
        [json.loads(line) for line in events.splitlines()],
        [*broken, *_findings(result, system.nodes)],
        limit_s=LIMIT_S,
    )
    return SimulatedRun(
        seed,
        system.nodes,
        plan,
        verdict,
        result,
        campaign.began,
        virtual_s,
        history.getvalue(),
        events,
        broken,
    )


def _findings(result: Result | None, nodes: Sequence[str]) -> list[Finding]:
    """What one run shows. Whether it was long enough for that is judged of many together."""
    found = [] if result is None else judge_result(result, nodes, VIRTUAL)
    return [f for f in found if (f.check, f.verdict) != (WENT_ON, UNSURE)]


def _carry_out(
    world: World, system: SimulatedRaft, campaign: Campaign
) -> tuple[Result | None, list[Finding]]:
    """What came of it; or nothing, and what the daemons themselves found to be wrong."""

    async def go() -> tuple[Result, list[Finding]]:
        await system.start()
        result = await campaign.run()
        differ = "" if result.complaints else system.differ()
        await system.stop()
        return result, [Finding("equal stores", INVALID, differ)] if differ else []

    try:
        return world.run(go())
    except AssertionError as error:
        # One of the daemons' own; the first line tells which.
        return None, [Finding("a node's own invariants", INVALID, str(error).splitlines()[0])]
    except Exception as error:
        if error not in world.failures:
            raise
        return None, [Finding("no node fails", INVALID, f"{type(error).__name__}: {error}")]


def keep(run: SimulatedRun, folder: Path, scenario: str, seconds: float) -> Path:
    """Write a run down as one of live processes is; the page about it."""
    command = ["ring", "sim", scenario, "--seed", str(run.seed), "--time", f"{seconds:g}"]
    command += ["--plan", str(folder / "plan.jsonl")]
    described = Described(
        scenario,
        workload_of(scenario, run.seed).model,
        "simulated raft",
        run.nodes,
        packages_in(run.plan),
        run.seed,
        seconds,
        command,
        run.began_s,
    )
    describe(folder, described, run.plan)
    (folder / "history.jsonl").write_text(run.history)
    (folder / "events").mkdir()
    (folder / "events" / "all.jsonl").write_text(run.events)
    record_outcome(folder, Outcome(run.result, VIRTUAL, run.broken))
    return conclude(folder, judge_folder(folder, limit_s=LIMIT_S))


def _system(
    world: World, dice: random.Random, nodes: int | None, settings: Mapping[str, Any]
) -> SimulatedRaft:
    """A cluster as the seed has it: how many nodes, how far apart, how often they snapshot."""
    count = dice.choice((3, 3, 3, 5))
    settings = {"snapshot_every": dice.choice((30, 200, 10_000)), **settings}
    latency_s = dice.choice((0.0001, 0.0001, 0.005, 0.03))
    world.network.base_policy = LinkPolicy(delay_s=latency_s, jitter_s=latency_s / 2)
    return SimulatedRaft(world, nodes or count, settings=settings)


def shrink(plan: Plan, fails: Callable[[Plan], bool], tries: int = TRIES_MAX) -> Plan:
    """A part of the plan, as small as `tries` runs can make it, that still fails."""
    parts = 2
    while len(plan) >= 1 and tries > 0:
        size = max(1, len(plan) // parts)
        for start in range(0, len(plan), size):
            smaller: list[Episode] = plan[:start] + plan[start + size :]
            tries -= 1
            if fails(smaller):
                plan, parts = smaller, max(2, parts - 1)
                break
            if tries == 0:
                break
        else:
            if size == 1:
                break
            parts = min(len(plan), parts * 2)
    return plan

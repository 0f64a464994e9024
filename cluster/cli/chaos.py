"""A campaign on live processes (`ring chaos`), and the same in virtual time (`ring sim`)."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cluster import render, topology
from cluster.errors import RingError, Usage

if TYPE_CHECKING:
    from cluster.chaos.plan import Plan
    from cluster.chaos.run import Finished
    from cluster.chaos.simulate import SimulatedRun
    from cluster.chaos.system import System
    from cluster.verify.finding import Finding
    from cluster.verify.verdict import Verdict

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Scenario = Annotated[
    str, typer.Argument(help="register, versions, append, counter, set, bank, watch, lock, lease")
]
Faults = Annotated[
    str,
    typer.Option(
        help="Packages, by comma: kill, host, pause, partition, packets, disk, clock, files,"
        " members, crashpoints; or single faults; or none."
    ),
]

# Of one campaign.
WORKERS: Final = 6


def chaos(
    scenario: Scenario = "register",
    seconds: Annotated[float, typer.Option("--time", min=1, help="Seconds of trouble.")] = 60.0,
    seed: Annotated[int | None, typer.Option(help="Of the fault plan; else drawn.")] = None,
    faults: Faults = "",
    nodes: Annotated[int, typer.Option(min=1, max=9, help="Of the fresh cluster.")] = 3,
    here: Annotated[
        bool, typer.Option("--here", help="On the cluster that runs in this home.")
    ] = False,
    system: Annotated[str, typer.Option(help="raft, or etcd: Debian's.")] = "raft",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Clients at once.")] = WORKERS,
    plan: Annotated[Path | None, typer.Option(help="A plan.jsonl instead of a drawn one.")] = None,
    json: Json = False,
) -> None:
    """Harm a cluster while clients use it, then say whether it was right. 0, 1 or 3."""
    from cluster.chaos.folder import new_folder
    from cluster.chaos.plan import draw_plan
    from cluster.chaos.run import Wanted, run_live, tidy
    from cluster.chaos.scenarios import workload_of

    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    workload_of(scenario, seed)
    given = None if plan is None else _read(plan)
    packages = _packages(scenario, faults, given)
    folder = new_folder(topology.home() / "runs", scenario, seed)
    try:
        judged = _system(system, folder, nodes, here=here)
        packages = _possible(packages, judged, by_name=bool(faults) or given is not None)
    except RingError:
        shutil.rmtree(folder)
        raise
    drawn = given
    if drawn is None:
        dice = random.Random(f"plan {seed}")
        drawn = draw_plan(packages, seconds, dice, able=judged.able, nodes=len(judged.nodes))
    command = ["ring", "chaos", scenario, "--time", f"{seconds:g}", "--seed", str(seed)]
    command += ["--faults", faults] if faults else []
    command += ["--nodes", str(nodes)] if nodes != 3 else []
    command += ["--here"] if here else []
    command += ["--system", system] if system != "raft" else []
    command += ["--workers", str(workers)] if workers != WORKERS else []
    command += ["--plan", str(folder / "plan.jsonl")] if given is not None else []
    wanted = Wanted(scenario, packages, drawn, seconds, seed, workers, command)
    render.say(f"seed {seed}: {len(drawn)} faults in {seconds:g} s; all of it goes to {folder}")
    try:
        finished = asyncio.run(run_live(judged, wanted, folder, render.say))
    except KeyboardInterrupt:
        render.say(f"stopped; what there is lies in {folder}")
        raise
    _show(finished, json=json)
    tidy(finished)
    raise typer.Exit(_status(finished.verdict.verdict))


def _packages(scenario: str, faults: str, plan: Plan | None) -> tuple[str, ...]:
    """What somebody wants to see take effect: as named, or what the plan has, or the usual."""
    from cluster.chaos.catalogue import UnknownFault, package
    from cluster.chaos.plan import packages_in
    from cluster.chaos.scenarios import default_faults

    if faults == "none":
        return ()
    if plan and not faults:
        return packages_in(plan)
    names = (
        tuple(word.strip() for word in faults.split(",")) if faults else default_faults(scenario)
    )
    try:
        for name in names:
            package(name)
    except UnknownFault as error:
        raise Usage(str(error)) from None
    return names


def _possible(packages: Sequence[str], system: System, *, by_name: bool) -> tuple[str, ...]:
    """Without those that the system cannot suffer; raises Usage if they were asked for by name."""
    from cluster.chaos.plan import impossible

    reasons = impossible(packages, system.able, len(system.nodes))
    told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    if reasons and by_name:
        raise Usage(f"{system.name} cannot be harmed so: {told}")
    if reasons:
        render.say(f"left out: {told}")
    return tuple(name for name in packages if name not in reasons)


def _read(plan: Path) -> Plan:
    from cluster.chaos.plan import read_plan

    try:
        return read_plan(plan)
    except OSError as error:
        raise Usage(f"{plan} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Usage(str(error)) from None


def _system(name: str, folder: Path, nodes: int, *, here: bool) -> System:
    from cluster.chaos.raft_live import LiveRaft
    from cluster.chaos.systems import fresh_system

    if not here:
        return fresh_system(name, folder / "home", nodes)
    if name != "raft":
        raise Usage(f"--here means a cluster of ours; leave it away with --system {name}")
    return LiveRaft(topology.home())


def _status(verdict: str) -> int:
    from cluster.verify.verdict import STATUS

    return STATUS[verdict]


def _show(finished: Finished, *, json: bool) -> None:
    verdict, result = finished.verdict, finished.result
    if json:
        render.as_json({**verdict.to_json(), "run": str(finished.folder)})
        return
    for finding in verdict.findings:
        print(f"{finding.verdict:8} {finding.check}: {finding.sentence}")
    effective = sum(record.took_effect is True for record in result.records)
    counts = verdict.counts
    print(
        f"{verdict.verdict.upper()}  {counts['operations']:,} operations · {effective} faults"
        f" · {result.terms} leaders · report {finished.report}"
    )


# -- in virtual time


def sim(
    scenario: Annotated[str, typer.Argument(help="The same as those of chaos.")] = "register",
    seed: Annotated[int | None, typer.Option(help="Replay one seed.")] = None,
    seeds: Annotated[int, typer.Option(help="Run this many seeds.")] = 20,
    first: Annotated[int, typer.Option(help="Begin with this seed.")] = 0,
    seconds: Annotated[
        float, typer.Option("--time", min=1, help="Virtual seconds of trouble.")
    ] = 20.0,
    faults: Faults = "",
    plan: Annotated[Path | None, typer.Option(help="A plan.jsonl instead of a drawn one.")] = None,
    events: Annotated[bool, typer.Option("--events", help="Print the event log.")] = False,
    history: Annotated[Path | None, typer.Option(help="Write one seed's history here.")] = None,
    json: Json = False,
) -> None:
    """A cluster in virtual time under seeded faults; the first failing seed ends it."""
    from cluster.chaos.scenarios import workload_of

    if seed is None and seeds < 1:
        raise Usage(f"--seeds {seeds} runs nothing; write 1 or more")
    workload_of(scenario, 0)
    drawn = None if plan is None else _read(plan)
    packages = _packages(scenario, faults, drawn)
    numbers = [seed] if seed is not None else list(range(first, first + seeds))
    began = time.monotonic()
    runs = _simulate_all(scenario, numbers, seconds, packages, drawn, quiet=json)
    last = runs[-1]
    if events:
        print(last.events, end="")
    if history is not None:
        history.write_text(last.history)
    tested = _tested(runs, packages)
    verdict = _together(runs, tested)
    if json:
        told = [_as_json(run) for run in runs]
        render.as_json({**verdict.to_json(), "runs": told})
    if last.verdict.verdict == "invalid":
        again = ["ring", "sim", scenario, "--seed", str(last.seed), "--time", f"{seconds:g}"]
        _explain(scenario, last, seconds, again, faults, plan)
        raise typer.Exit(1)
    _conclude(runs, tested, time.monotonic() - began)
    raise typer.Exit(_status(verdict.verdict))


def _simulate_all(
    scenario: str,
    numbers: Sequence[int],
    seconds: float,
    packages: Sequence[str],
    plan: Plan | None,
    *,
    quiet: bool,
) -> list[SimulatedRun]:
    """In the order of the seeds, on all cores, up to the first that is invalid."""
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress

    from cluster.chaos.simulate import simulate

    run = partial(simulate, scenario, seconds=seconds, packages=packages, plan=plan)
    found: list[SimulatedRun] = []
    with (
        Progress(
            console=Console(stderr=True), transient=True, disable=len(numbers) < 2
        ) as progress,
        ProcessPoolExecutor(min(len(numbers), os.cpu_count() or 1)) as pool,
    ):
        task = progress.add_task(f"ring sim {scenario}", total=len(numbers))
        for outcome in pool.map(run, numbers):
            found.append(outcome)
            progress.advance(task)
            if not quiet:
                progress.console.print(
                    outcome.line(), highlight=False, markup=False, soft_wrap=True
                )
            if outcome.verdict.verdict == "invalid":
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return found


def _as_json(run: SimulatedRun) -> dict[str, object]:
    return {
        "seed": run.seed,
        "virtual_s": run.virtual_s,
        "nodes": list(run.nodes),
        **run.verdict.to_json(),
    }


def _explain(
    scenario: str,
    failed: SimulatedRun,
    seconds: float,
    again: Sequence[str],
    faults: str,
    plan: Path | None,
) -> None:
    """How to see it again; the smallest plan that shows the same, and a page about that."""
    from cluster.chaos.folder import new_folder
    from cluster.chaos.simulate import keep, shrink, simulate

    exactly = [*again, *(["--faults", faults] if faults else [])]
    exactly += ["--plan", str(plan)] if plan is not None else []
    render.say(f"replay   {shlex.join(exactly)}")
    for finding in failed.verdict.findings:
        if finding.verdict == "invalid":
            render.say(f"         {finding.check}: {finding.sentence}")
    render.say(f"shrink   from {len(failed.plan)} faults; each try is a run")
    shown = _invalid(failed)

    def run(smaller: Plan) -> SimulatedRun:
        return simulate(scenario, failed.seed, seconds=seconds, plan=smaller)

    # Another check that fails is another story.
    smallest = run(shrink(failed.plan, lambda smaller: bool(shown & _invalid(run(smaller)))))
    folder = new_folder(topology.home() / "runs", scenario, failed.seed)
    report = keep(smallest, folder, scenario, seconds)
    for episode in smallest.plan:
        render.say(f"         {episode}")
    render.say(f"replay   {shlex.join([*again, '--plan', str(folder / 'plan.jsonl')])}")
    render.say(f"report   {report}")


def _invalid(run: SimulatedRun) -> set[str]:
    """The checks that have failed."""
    return {finding.check for finding in run.verdict.findings if finding.verdict == "invalid"}


def _tested(runs: Sequence[SimulatedRun], packages: Sequence[str]) -> list[Finding]:
    """Whether anything was tried: no single short run says enough, but these together."""
    from cluster.chaos.judge import VIRTUAL, judge_effects, judge_progress

    ended = [(run.result, run.nodes) for run in runs if run.result is not None]
    records = [record for result, _ in ended for record in result.records]
    return [*judge_effects(records, packages), *judge_progress(ended, VIRTUAL)]


def _together(runs: Sequence[SimulatedRun], tested: Sequence[Finding]) -> Verdict:
    """The verdict on all seeds: as bad as the worst of them."""
    from cluster.verify.finding import Finding
    from cluster.verify.verdict import Verdict

    of_seeds = [Finding(f"seed {run.seed}", run.verdict.verdict, run.line()) for run in runs]
    counts = Counter[str]()
    for run in runs:
        counts.update(run.verdict.counts)
    return Verdict([*of_seeds, *tested], dict(counts))


def _conclude(runs: Sequence[SimulatedRun], tested: Sequence[Finding], took_s: float) -> None:
    unknown = sum(run.verdict.verdict == "unknown" for run in runs)
    virtual_s = sum(run.virtual_s for run in runs)
    for finding in tested:
        print(f"{finding.verdict:8} {finding.check}: {finding.sentence}", file=sys.stderr)
    render.say(
        f"{len(runs) - unknown} valid, {unknown} unknown; "
        f"{virtual_s:.0f} virtual seconds in {took_s:.1f}"
    )

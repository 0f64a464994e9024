"""`ring sim` and `ring bench`: many seeds in virtual time; figures beside those of others."""

from __future__ import annotations

import shlex
import time
from typing import Annotated

import typer

from cluster import render
from cluster.errors import Unhealthy, Usage

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def sim(
    scenario: Annotated[str, typer.Argument(help="raft")] = "raft",
    seed: Annotated[int | None, typer.Option(help="Replay one seed.")] = None,
    seeds: Annotated[int, typer.Option(help="Run this many seeds.")] = 20,
    first: Annotated[int, typer.Option(help="Begin with this seed.")] = 0,
    seconds: Annotated[float, typer.Option(help="Virtual seconds of trouble.")] = 20.0,
    events: Annotated[bool, typer.Option("--events", help="Print the event log.")] = False,
    json: Json = False,
) -> None:
    """Whole clusters in virtual time under seeded faults; the first failing seed ends it."""
    if scenario != "raft":
        raise Usage(f"there is no scenario {scenario!r}; there is: raft")
    if seed is None and seeds < 1:
        raise Usage(f"--seeds {seeds} runs nothing; write 1 or more")
    from cluster.sim.raft import simulate

    wanted = [seed] if seed is not None else list(range(first, first + seeds))
    verdicts = []
    began = time.monotonic()
    for number in wanted:
        verdict = simulate(number, seconds=seconds)
        verdicts.append(verdict)
        if events:
            print(verdict.log, end="")
        if not json:
            render.say(verdict.line())
        if verdict.outcome == "invalid":
            break
    if json:
        keys = ("seed", "outcome", "why", "operations", "unknown", "leaders", "faults", "virtual_s")
        render.as_json([{key: getattr(v, key) for key in keys} for v in verdicts])
    last = verdicts[-1]
    if last.outcome == "invalid":
        replay = f"ring sim {scenario} --seed {last.seed} --seconds {seconds:g}"
        render.say(f"replay   {replay}")
        raise typer.Exit(1)
    unknown = [v for v in verdicts if v.outcome == "unknown"]
    virtual = sum(v.virtual_s for v in verdicts)
    render.say(
        f"{len(verdicts) - len(unknown)} valid, {len(unknown)} unknown; "
        f"{virtual:.0f} virtual seconds in {time.monotonic() - began:.1f}"
    )
    if unknown and len(unknown) == len(verdicts):
        raise typer.Exit(3)


def bench(
    name: Annotated[str, typer.Argument(help="raft | rpc | transport | all")] = "all",
    peers: Annotated[bool, typer.Option("--peers", help="Beside what people use today.")] = False,
    seconds: Annotated[float, typer.Option(help="Seconds a round.")] = 3.0,
    lossy: Annotated[bool, typer.Option("--lossy", help="transport: over lossy lines.")] = False,
    json: Json = False,
) -> None:
    """Benchmarks; with --peers each figure beside another system's, taken in turn in one run."""
    from cluster.bench import lossy as lossy_lines
    from cluster.bench import raft, rpc, transport
    from cluster.bench.harness import Report

    runners = {"transport": transport.run, "rpc": rpc.run, "raft": raft.run}
    if lossy:
        if name != "transport":
            raise Usage("--lossy goes with: ring bench transport")
        runners = {"transport": lossy_lines.run}
    if name != "all" and name not in runners:
        raise Usage(f"there is no benchmark {name!r}; there are: {', '.join(runners)}")
    reports: list[Report] = []
    for bench_name, run in runners.items():
        if name in ("all", bench_name):
            flags = [*(["--lossy"] if lossy else []), *(["--peers"] if peers else [])]
            command = shlex.join(["ring", "bench", bench_name, *flags])
            render.say(f"{command}: takes a minute or more; leave the machine alone meanwhile")
            reports.append(run(peers=peers, seconds=seconds))
    if json:
        rows = [report.to_json() for report in reports]
        render.as_json(rows[0] if len(rows) == 1 else rows)
    else:
        for report in reports:
            _show(report)
    if not all(report.holds for report in reports):
        raise Unhealthy("a bar does not hold")


def _show(report: object) -> None:
    from cluster.bench.harness import Report

    assert isinstance(report, Report)
    rows = []
    for row in report.rows:
        theirs = f"{row.theirs:,.2f}" if row.theirs is not None else row.note or "-"
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
        bar = "-" if row.bar is None else f"{row.bar:g}"
        holds = {True: "yes", False: "NO", None: "-"}[row.holds]
        figures = (f"{row.ours:,.2f}", row.peer, theirs, ratio, bar, holds)
        rows.append((row.case, row.metric, row.unit, *figures))
    columns = ("CASE", "METRIC", "UNIT", "OURS", "PEER", "THEIRS", "RATIO", "BAR", "HOLDS")
    render.table(columns, rows, right=("OURS", "THEIRS", "RATIO", "BAR"))
